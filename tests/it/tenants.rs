//! Random histories of the tenants of one layer: stores, policies and caches come and go, namespaces get and lose their leave, stores are wrong or
//! unreadable for a while, the operator stops between two writes, and the list of tenants cannot always be stored.
//!
//! What holds in all of them: no user of a server can read a key that another store wrote. (One that is made again under the same name finds
//! what it wrote.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use redoubt::api::data_layer_status::Tenant;
use redoubt::api::uses::DeclaredUse;
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::rights::Grant;
use redoubt::redis::users::use_on_data;
use redoubt::validate::uses::tenancy::{Emptied, HostLayer, admit};
use serde_json::{Value, json};

use crate::session_stores::{by_selector, host, layer};

const NAMESPACES: [&str; 4] = ["data", "a", "b", "web"];
const KINDS: [UseKind; 3] = [UseKind::SessionStore, UseKind::RateLimitPolicy, UseKind::CacheNamespace];
const NAMES: [&str; 3] = ["web", "api", "a"];
const PREFIXES: [Option<&str>; 5] = [None, Some("web:"), Some("web:admin:"), Some("a:"), Some("api:web:")];

static HOST: LazyLock<HostLayer> =
    LazyLock::new(|| host(&layer(&json!({"mode": "Sentinel", "access": {"namespaces": by_selector()}}))));

#[derive(Clone, Debug)]
enum Event {
    /// A use is made: kind, namespace, name, prefix, and how old it says that it is.
    Create(UseKind, usize, usize, usize, u8),
    Delete(usize),
    /// A use declares what no layer can serve, or no longer.
    Spoil(usize),
    /// A store cannot be read, or can again.
    Garble(usize),
    /// A store's status says that it was served, with its plain prefix.
    Forge(usize),
    /// A namespace gets its leave, or loses it.
    Leave(usize),
    /// A pass.
    Pass,
    /// A pass whose list is not stored.
    Conflict,
    /// The operator stops after it stored the list, and before any server has a user of it.
    Stop,
    /// The keys of a store that is gone expire.
    Expire(usize),
    /// An audit of all keys ends, and the operator reads it.
    Audit,
}

fn kind() -> impl Strategy<Value = UseKind> {
    prop::sample::select(&KINDS[..])
}

fn event() -> impl Strategy<Value = Event> {
    let index = 0..8_usize;
    prop_oneof![
        4 => (kind(), 0..NAMESPACES.len(), 0..NAMES.len(), 0..PREFIXES.len(), 0..60_u8)
            .prop_map(|(kind, namespace, name, prefix, second)| Event::Create(kind, namespace, name, prefix, second)),
        2 => index.clone().prop_map(Event::Delete),
        1 => index.clone().prop_map(Event::Spoil),
        1 => index.clone().prop_map(Event::Garble),
        1 => index.prop_map(Event::Forge),
        3 => (1..NAMESPACES.len()).prop_map(Event::Leave),
        6 => Just(Event::Pass),
        1 => Just(Event::Conflict),
        1 => Just(Event::Stop),
        1 => (0..8_usize).prop_map(Event::Expire),
        2 => Just(Event::Audit),
    ]
}

#[derive(Clone, Debug)]
struct Store {
    kind: UseKind,
    namespace: &'static str,
    name: &'static str,
    uid: String,
    prefix: Option<&'static str>,
    second: u8,
    spoilt: bool,
    garbled: bool,
    status: Value,
}

impl Store {
    fn identity(&self) -> Name {
        (self.kind, self.namespace, self.name)
    }

    fn plain_prefix(&self) -> String {
        self.prefix.map_or_else(|| format!("{}:", self.name), str::to_owned)
    }

    fn object(&self) -> DeclaredUse {
        let layer = json!({"name": "shared", "namespace": "data"});
        let quota = if self.spoilt { 0 } else { 10 };
        let mut spec = match self.kind {
            UseKind::SessionStore if self.spoilt => json!({"idleTimeout": "30m", "revokeReplicas": 9}),
            UseKind::SessionStore => json!({"idleTimeout": "30m"}),
            UseKind::RateLimitPolicy => json!({"limits": [{"name": "each", "quota": quota, "window": "1h"}]}),
            UseKind::CacheNamespace if self.spoilt => json!({"ttl": "1m", "maxTtl": "1s"}),
            UseKind::CacheNamespace => json!({"ttl": "1m"}),
            UseKind::FunctionLibrary => unreachable!("it has no prefix"),
        };
        spec["layer"] = layer;
        if let Some(prefix) = self.prefix {
            spec["keyPrefix"] = json!(prefix);
        }
        let metadata = json!({
            "name": self.name, "namespace": self.namespace, "uid": self.uid, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", self.second),
        });
        let object = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": self.kind.words().kind, "metadata": metadata, "spec": spec,
            "status": self.status,
        });
        DeclaredUse::read(self.kind, &object).unwrap()
    }
}

/// Kind, namespace and name.
type Name = (UseKind, &'static str, &'static str);

/// A user of the servers: whose it is, and what its rules let it read.
#[derive(Clone, Debug, PartialEq)]
struct User {
    of: Name,
    pattern: String,
}

#[derive(Debug, Default)]
struct World {
    stores: Vec<Store>,
    made: usize,
    leave: BTreeSet<&'static str>,
    list: Option<Vec<Tenant>>,
    /// By the UID of the store.
    users: BTreeMap<String, User>,
    /// Key → name and UID of the store that wrote it.
    keys: BTreeMap<String, (Name, String)>,
    emptied: Emptied,
    clock: i64,
}

/// The one key pattern of a use's user.
fn pattern(kind: UseKind, prefix: &str) -> String {
    let rules = use_on_data(Grant::plain(kind, prefix, &Functions::new()), &"0".repeat(64)).rules;
    let mut patterns = rules.iter().filter_map(|rule| rule.strip_prefix('~'));
    let (first, second) = (patterns.next(), patterns.next());
    assert_eq!(second, None, "{rules:?}");
    first.and_then(|pattern| pattern.strip_suffix('*')).unwrap().to_owned()
}

impl World {
    fn create(
        &mut self,
        kind: UseKind,
        namespace: &'static str,
        name: &'static str,
        prefix: Option<&'static str>,
        second: u8,
    ) {
        let is_it = |it: &Store| (it.kind, it.namespace, it.name) == (kind, namespace, name);
        if self.stores.len() < 8 && !self.stores.iter().any(is_it) {
            self.made += 1;
            let uid = format!("uid-{}", self.made);
            let status = Value::Null;
            self.stores.push(Store {
                kind,
                namespace,
                name,
                uid,
                prefix,
                second,
                spoilt: false,
                garbled: false,
                status,
            });
        }
    }

    /// What an operator without lists served: plain prefixes that do not overlap, by users that the servers have.
    fn serve_as_before(&mut self) {
        let mut served: Vec<String> = Vec::new();
        for store in &mut self.stores {
            let prefix = store.plain_prefix();
            if served.iter().any(|other| other.starts_with(&prefix) || prefix.starts_with(other.as_str())) {
                continue;
            }
            store.status = served_status(&prefix, false);
            self.leave.insert(store.namespace);
            self.users.insert(store.uid.clone(), User { of: store.identity(), pattern: pattern(store.kind, &prefix) });
            served.push(prefix);
        }
        self.write();
    }

    fn happens(&mut self, event: &Event) {
        let pick = |stores: &mut Vec<Store>, index: &usize| (!stores.is_empty()).then(|| index % stores.len());
        match event {
            Event::Create(kind, namespace, name, prefix, second) => {
                self.create(*kind, NAMESPACES[*namespace], NAMES[*name], PREFIXES[*prefix], *second);
            }
            Event::Delete(index) => {
                if let Some(index) = pick(&mut self.stores, index) {
                    let gone = self.stores.remove(index);
                    // Of a store that was gone before there was a list, nothing is known.
                    if self.list.is_none() {
                        self.users.remove(&gone.uid);
                        self.keys.retain(|_, (_, writer)| *writer != gone.uid);
                    }
                }
            }
            Event::Spoil(index) => {
                if let Some(index) = pick(&mut self.stores, index) {
                    self.stores[index].spoilt ^= true;
                }
            }
            Event::Garble(index) => {
                if let Some(index) = pick(&mut self.stores, index) {
                    // An operator without lists stops at an unreadable store; the first list is made of readable ones.
                    self.stores[index].garbled ^= self.list.is_some();
                }
            }
            Event::Forge(index) => {
                if let Some(index) = pick(&mut self.stores, index).filter(|_| self.list.is_some()) {
                    self.stores[index].status = served_status(&self.stores[index].plain_prefix(), true);
                }
            }
            Event::Leave(index) => {
                if !self.leave.remove(NAMESPACES[*index]) {
                    self.leave.insert(NAMESPACES[*index]);
                }
            }
            Event::Pass => self.pass(true, true),
            Event::Conflict => self.pass(false, true),
            Event::Stop => self.pass(true, false),
            Event::Expire(index) => {
                let gone: Vec<String> = self.keys.values().map(|(_, writer)| writer.clone()).collect();
                let gone: Vec<&String> = gone.iter().filter(|writer| !self.users.contains_key(*writer)).collect();
                if let Some(writer) = gone.get(index % gone.len().max(1)).map(|writer| (*writer).clone()) {
                    self.keys.retain(|_, (_, other)| *other != writer);
                }
            }
            Event::Audit => {
                let left = self.list.iter().flatten().filter_map(|place| Some((&place.prefix, place.left.as_ref()?.0)));
                let is_empty = |prefix: &String| !self.keys.keys().any(|key| key.starts_with(prefix));
                // Of prefixes whose user is still there nothing is said: the operator waits until it is removed.
                let has_user = |prefix: &String| self.users.values().any(|user| user.pattern.starts_with(prefix));
                let emptied = left.filter(|(prefix, _)| is_empty(prefix) && !has_user(prefix));
                self.emptied = emptied.map(|(prefix, left)| (prefix.clone(), left)).collect();
            }
        }
        self.write();
        self.check(event);
    }

    fn pass(&mut self, is_stored: bool, sets_users: bool) {
        self.clock += 1;
        let readable: Vec<DeclaredUse> = self.stores.iter().filter(|it| !it.garbled).map(Store::object).collect();
        let unreadable: BTreeSet<String> =
            self.stores.iter().filter(|it| it.garbled).map(|it| it.uid.clone()).collect();
        let labels = |namespace: &str| {
            let value = if self.leave.contains(namespace) { "yes" } else { "no" };
            Some(BTreeMap::from([("sessions".to_owned(), value.to_owned())]))
        };
        let now = Timestamp::from_second(self.clock).unwrap();
        let admissions = admit(&HOST, self.list.as_deref(), readable.iter(), &unreadable, &self.emptied, &labels, now);
        let (admissions, waiting) = if is_stored {
            self.list = Some(admissions.tenants.clone());
            (admissions, Vec::new())
        } else {
            admissions.as_stored(self.list.as_deref())
        };
        if !sets_users {
            return;
        }
        let mut kept = unreadable;
        kept.extend(waiting.into_iter().map(|it| it.accepted.uid));
        self.users.retain(|uid, _| kept.contains(uid));
        for admitted in &admissions.admitted {
            let store = self.stores.iter_mut().find(|it| it.uid == admitted.accepted.uid).unwrap();
            let prefix = admitted.accepted.policy.prefix();
            store.status = served_status(prefix, true);
            self.users.insert(store.uid.clone(), User { of: store.identity(), pattern: pattern(store.kind, prefix) });
        }
        for store in &mut self.stores {
            if admissions.refused.get(&store.uid).is_some_and(|refusal| refusal.reason == "NotAllowed") {
                store.status = Value::Null;
            }
        }
    }

    /// Each user writes a key.
    fn write(&mut self) {
        for (uid, user) in &self.users {
            self.keys.insert(format!("{}{{t}}s:{uid}", user.pattern), (user.of, uid.clone()));
        }
    }

    fn check(&self, event: &Event) {
        for (uid, user) in &self.users {
            for (key, (of, writer)) in self.keys.iter().filter(|(key, _)| key.starts_with(&user.pattern)) {
                let is_own = writer == uid || (*of == user.of && !self.users.contains_key(writer));
                assert!(is_own, "after {event:?}: {uid} of {user:?} reads {key} of {of:?} {writer}: {self:#?}");
            }
        }
    }
}

fn served_status(prefix: &str, has_admission: bool) -> Value {
    let mut status = json!({"layer": {"namespace": "data", "name": "shared"}, "user": "ss.some.store"});
    if has_admission {
        let since = "2026-01-01T00:00:00Z";
        status["admission"] = json!({"namespace": "data", "name": "shared", "prefix": prefix, "since": since});
    }
    status
}

proptest! {
    #[test]
    fn a_key_that_one_store_wrote_is_never_readable_by_another(
        before in prop::collection::vec((kind(), 0..NAMESPACES.len(), 0..NAMES.len(), 0..PREFIXES.len(), 0..60_u8), 0..4),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut world = World::default();
        for (kind, namespace, name, prefix, second) in before {
            world.create(kind, NAMESPACES[namespace], NAMES[name], PREFIXES[prefix], second);
        }
        world.serve_as_before();
        for event in &events {
            world.happens(event);
        }
    }

    /// A store that is served stays served while it has its leave, is there and is not wrong, whatever others do.
    #[test]
    fn a_tenant_keeps_its_place(
        kind in kind(),
        events in prop::collection::vec(event(), 1..40),
        prefix in 0..PREFIXES.len(),
    ) {
        let mut world = World::default();
        world.leave.insert("a");
        world.create(kind, "a", "web", PREFIXES[prefix], 59);
        world.happens(&Event::Pass);
        let first = world.users["uid-1"].clone();
        for event in events {
            let is_its = match &event {
                Event::Delete(index) | Event::Spoil(index) | Event::Garble(index) => index % world.stores.len() == 0,
                Event::Leave(index) => NAMESPACES[*index] == "a",
                _ => false,
            };
            if !is_its {
                world.happens(&event);
                prop_assert_eq!(world.users.get("uid-1"), Some(&first), "{:?}", event);
            }
        }
    }
}
