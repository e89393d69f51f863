//! The passwords of a layer's users, and how they outlive a deletion or an edit of the Secrets that hold them.
//!
//! Running servers know a layer's passwords as digests, so a Secret that is lost must come back with the *same* passwords:
//! new ones would lock the operator out of every server of the layer. So there are three copies, asked in this order:
//!
//! 1. this process's memory, while it leads;
//! 2. the root key in the operator's own namespace, from which each password is derived (HMAC-SHA-256 of the layer's UID and
//!    the user's name). A Secret says by which root key it was made; if that is ours, then the derived passwords are the
//!    true ones, whatever was written into the Secret;
//! 3. the layer's Secret: it counts if it was made by another root key (ours was lost and made again).
//!
//! Only the loss of the root key *and* of a layer's Secret *and* of the leader's memory loses a layer's passwords.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use sha2::{Digest, Sha256};

use super::Error;
use crate::api::names::{ANNOTATION_ROOT_KEY, ANNOTATION_ROTATION};
use crate::failure::request;
use crate::model::UseKind;
use crate::per_object::PerObject;
use crate::redis::Secret;

/// Field of the root key's Secret.
const ROOT_KEY_FIELD: &str = "key";
/// Characters of a password: 192 bits as hexadecimal.
const PASSWORD_LENGTH: usize = 48;
/// Bytes of a block of SHA-256 (RFC 2104).
const BLOCK: usize = 64;

/// Whose passwords there are, with the field of `L-redis-system` that holds each. The application's is in `L-redis-app`, the administrator's in `L-redis-admin`.
const SYSTEM_FIELDS: [&str; 4] = ["operator-password", "agent-password", "replication-password", "sentinel-password"];

/// The passwords of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passwords {
    pub operator: Secret,
    pub agent: Secret,
    pub replication: Secret,
    pub sentinel: Secret,
    pub application: Secret,
    pub administrator: Secret,
}

/// SHA-256 of a password as hexadecimal: how ACL rules name it.
pub fn digest(password: &Secret) -> String {
    hex::encode(Sha256::digest(password.reveal()))
}

/// What every password is derived from.
#[derive(Clone)]
pub struct RootKey(String);

impl std::fmt::Debug for RootKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RootKey({})", self.id())
    }
}

impl RootKey {
    /// Reads the root key's Secret in the operator's namespace; `None`: there is none.
    pub(crate) async fn read(client: Client, namespace: &str, name: &str) -> Result<Option<Self>, Error> {
        let api: Api<KubernetesSecret> = Api::namespaced(client, namespace);
        let object = format!("Secret {namespace}/{name}");
        let found = request("read", &object, api.get_opt(name)).await?;
        Ok(found.and_then(|secret| field(&secret, ROOT_KEY_FIELD)).map(Self))
    }

    /// The same; creates it, once, if there is none.
    pub async fn load(client: Client, namespace: &str, name: &str) -> Result<Self, Error> {
        if let Some(key) = Self::read(client.clone(), namespace, name).await? {
            return Ok(key);
        }
        let api: Api<KubernetesSecret> = Api::namespaced(client, namespace);
        let object = format!("Secret {namespace}/{name}");
        let key = hex::encode(rand::random::<[u8; 32]>());
        let secret = KubernetesSecret {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            string_data: Some(BTreeMap::from([(ROOT_KEY_FIELD.to_owned(), key.clone())])),
            ..KubernetesSecret::default()
        };
        request("create", &object, api.create(&PostParams::default(), &secret)).await?;
        Ok(Self(key))
    }

    /// A key that is not stored anywhere.
    #[cfg(test)]
    pub(crate) fn fixed(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// A name for this key that tells nothing of it.
    pub(crate) fn id(&self) -> String {
        self.derive("the name of this key")[..16].to_owned()
    }

    fn passwords(&self, layer_uid: &str) -> Passwords {
        let password = |user: &str| {
            let mut hex = self.derive(&format!("{layer_uid}/{user}"));
            hex.truncate(PASSWORD_LENGTH);
            Secret::new(hex)
        };
        Passwords {
            operator: password("operator"),
            agent: password("agent"),
            replication: password("replication"),
            sentinel: password("sentinel"),
            application: password("application"),
            administrator: password("administrator"),
        }
    }

    fn use_password(&self, kind: UseKind, uid: &str, rotation: u32) -> Secret {
        let mut hex = self.derive(&format!("{uid}/{}/{rotation}", kind.words().component));
        hex.truncate(PASSWORD_LENGTH);
        Secret::new(hex)
    }

    /// HMAC-SHA-256 (RFC 2104) of `message`, as hexadecimal.
    fn derive(&self, message: &str) -> String {
        let mut key = [0_u8; BLOCK];
        let hashed = Sha256::digest(self.0.as_bytes());
        key[..hashed.len()].copy_from_slice(&hashed);
        let padded = |pad: u8| key.map(|byte| byte ^ pad);
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
        hex::encode(Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize())
    }
}

/// The Secrets of one layer that hold its passwords; `None`: there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PasswordSecrets<'a> {
    /// `NAME-redis-system`.
    pub system: Option<&'a KubernetesSecret>,
    /// `NAME-redis-app`.
    pub application: Option<&'a KubernetesSecret>,
    /// `NAME-redis-admin`.
    pub administrator: Option<&'a KubernetesSecret>,
}

/// The passwords of every layer that this process has led.
#[derive(Debug)]
pub(crate) struct PasswordCache {
    root: RootKey,
    known: PerObject<Passwords>,
}

impl PasswordCache {
    /// A cache that has seen no layer yet.
    pub(crate) fn new(root: RootKey) -> Self {
        Self { root, known: PerObject::default() }
    }

    /// The layer's passwords, by its Secrets as they are now.
    pub(crate) fn passwords(&self, layer_uid: &str, stored: PasswordSecrets<'_>) -> Passwords {
        let mut known = self.known.lock();
        known.entry(layer_uid.to_owned()).or_insert_with(|| judged(&self.root, layer_uid, stored)).clone()
    }

    /// What the system Secret's annotation must say: our root key's id if the passwords were derived from it.
    pub(crate) fn root_key_of(&self, layer_uid: &str, passwords: &Passwords) -> Option<String> {
        (self.root.passwords(layer_uid) == *passwords).then(|| self.root.id())
    }

    /// Password of a use's user. `binding` is the use's Secret as it is: it counts if it shows these very credentials and
    /// was made by another root key.
    pub(crate) fn use_password(
        &self,
        kind: UseKind,
        uid: &str,
        rotation: u32,
        binding: Option<&KubernetesSecret>,
    ) -> Secret {
        let derived = self.root.use_password(kind, uid, rotation);
        let stored = binding.filter(|secret| {
            let says = |name: &str| secret.annotations().get(name).map(String::as_str);
            says(ANNOTATION_ROTATION) == Some(&rotation.to_string())
                && says(ANNOTATION_ROOT_KEY) != Some(&self.root.id())
        });
        stored.and_then(|secret| field(secret, "password")).map_or(derived, Secret::new)
    }

    /// What the annotation of a binding must say: our root key's id if the password was derived from it.
    pub(crate) fn root_key_of_use(&self, kind: UseKind, uid: &str, rotation: u32, password: &Secret) -> Option<String> {
        (self.root.use_password(kind, uid, rotation) == *password).then(|| self.root.id())
    }

    /// Forgets layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.known.retain(lives);
    }
}

/// Which copy counts, for a layer that this process has not led yet.
fn judged(root: &RootKey, layer_uid: &str, stored: PasswordSecrets<'_>) -> Passwords {
    let derived = root.passwords(layer_uid);
    let Some(system) = stored.system else { return derived };
    if system.annotations().get(ANNOTATION_ROOT_KEY) == Some(&root.id()) {
        return derived;
    }
    let of_binding = |binding: Option<&KubernetesSecret>| field(binding?, "password").map(Secret::new);
    let fields: Vec<Secret> = SYSTEM_FIELDS.iter().filter_map(|name| field(system, name)).map(Secret::new).collect();
    let [operator, agent, replication, sentinel] = fields.as_slice() else { return derived };
    Passwords {
        operator: operator.clone(),
        agent: agent.clone(),
        replication: replication.clone(),
        sentinel: sentinel.clone(),
        application: of_binding(stored.application).unwrap_or(derived.application),
        administrator: of_binding(stored.administrator).unwrap_or(derived.administrator),
    }
}

/// A field of a Secret, if it is there, text and not empty.
fn field(secret: &KubernetesSecret, name: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(name)?;
    String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(root_key: Option<&str>, fields: &[(&str, &str)]) -> KubernetesSecret {
        KubernetesSecret {
            metadata: ObjectMeta {
                annotations: root_key.map(|id| BTreeMap::from([(ANNOTATION_ROOT_KEY.to_owned(), id.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(
                fields.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec()))).collect(),
            ),
            ..KubernetesSecret::default()
        }
    }

    const fn of(system: &KubernetesSecret) -> PasswordSecrets<'_> {
        PasswordSecrets { system: Some(system), application: None, administrator: None }
    }

    fn complete(password: &str) -> Vec<(&str, &str)> {
        SYSTEM_FIELDS.iter().map(|name| (*name, password)).collect()
    }

    #[test]
    fn a_deleted_secret_comes_back_with_the_same_passwords_after_a_restart_of_the_operator() {
        let before = PasswordCache::new(RootKey::fixed("k")).passwords("uid-1", PasswordSecrets::default());
        let after = PasswordCache::new(RootKey::fixed("k")).passwords("uid-1", PasswordSecrets::default());
        assert_eq!(before, after);
        assert_eq!(before.operator.reveal().len(), PASSWORD_LENGTH);
    }

    #[test]
    fn layers_and_users_have_different_passwords() {
        let cache = PasswordCache::new(RootKey::fixed("k"));
        let (one, other) = (
            cache.passwords("uid-1", PasswordSecrets::default()),
            cache.passwords("uid-2", PasswordSecrets::default()),
        );
        assert_ne!(one.operator, other.operator);
        assert_ne!(one.operator, one.agent);
    }

    #[test]
    fn an_edit_by_hand_of_a_secret_that_our_root_key_made_is_undone() {
        let root = RootKey::fixed("k");
        let edited = secret(Some(&root.id()), &complete("edited"));
        assert_eq!(judged(&root, "uid-1", of(&edited)), root.passwords("uid-1"));
    }

    #[test]
    fn a_secret_that_another_root_key_made_keeps_its_passwords() {
        let root = RootKey::fixed("k");
        let old = secret(Some("another"), &complete("stored"));
        let application = secret(None, &[("password", "app")]);
        let administrator = secret(None, &[("password", "admin")]);
        let bindings =
            PasswordSecrets { application: Some(&application), administrator: Some(&administrator), ..of(&old) };
        let passwords = judged(&root, "uid-1", bindings);
        assert_eq!((passwords.sentinel.reveal(), passwords.application.reveal()), ("stored", "app"));
        assert_eq!(passwords.administrator.reveal(), "admin");
        assert_eq!(PasswordCache::new(root).root_key_of("uid-1", &passwords), None);
    }

    #[test]
    fn what_a_leader_once_used_it_goes_on_using() {
        let cache = PasswordCache::new(RootKey::fixed("k"));
        let old = secret(Some("another"), &complete("stored"));
        let first = cache.passwords("uid-1", of(&old));
        assert_eq!(cache.passwords("uid-1", PasswordSecrets::default()), first);
        assert_eq!(cache.passwords("uid-1", of(&secret(None, &complete("edited")))), first);
    }

    #[test]
    fn each_rotation_of_a_store_has_a_password_of_its_own_and_a_lost_root_key_changes_none() {
        let cache = PasswordCache::new(RootKey::fixed("k"));
        let (first, second) = (
            cache.use_password(UseKind::SessionStore, "uid-1", 0, None),
            cache.use_password(UseKind::SessionStore, "uid-1", 1, None),
        );
        assert_ne!(first, second);
        assert_ne!(first, cache.use_password(UseKind::SessionStore, "uid-2", 0, None));
        let mut binding = secret(Some("another"), &[("password", "stored")]);
        binding.annotations_mut().insert(ANNOTATION_ROTATION.to_owned(), "0".to_owned());
        let believed = cache.use_password(UseKind::SessionStore, "uid-1", 0, Some(&binding));
        assert_eq!(believed.reveal(), "stored");
        assert_eq!(cache.root_key_of_use(UseKind::SessionStore, "uid-1", 0, &believed), None);
        assert_eq!(
            cache.use_password(UseKind::SessionStore, "uid-1", 1, Some(&binding)),
            second,
            "the next one is derived again"
        );
        binding.annotations_mut().insert(ANNOTATION_ROOT_KEY.to_owned(), RootKey::fixed("k").id());
        assert_eq!(
            cache.use_password(UseKind::SessionStore, "uid-1", 0, Some(&binding)),
            first,
            "an edit by hand is undone"
        );
    }

    #[test]
    fn nothing_prints_a_password_or_the_root_key() {
        let cache = PasswordCache::new(RootKey::fixed("the-root"));
        let password = cache.passwords("uid-1", PasswordSecrets::default()).operator;
        let printed = format!("{cache:?}");
        assert!(!printed.contains("the-root") && !printed.contains(password.reveal()), "{printed}");
    }
}
