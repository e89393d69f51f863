//! One look at a server: everything that a pass wants to know of it, in one round trip.
//!
//! A server that could not be asked becomes a value of the model, and what it refused to say becomes a fault next to it:
//! a probe never fails.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::{Cmd, FromRedisValue, Value};

use super::cluster_nodes;
use super::connection::Connection;
use super::error::{Class, Error, Result};
use super::functions;
use super::info::Info;
use super::reply::text;
use super::sentinel::{master_questions, read_master};
use super::server::SECTIONS;
use super::user_forms::UserForms;
use crate::model::cluster::ClusterView;
use crate::model::desired::DesiredUser;
use crate::model::observed::{DataServer, ObservedServer, SentinelServer};

/// What to look at on a data node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataProbe {
    /// Directives to read back.
    pub settings: BTreeSet<String>,
    /// Users that should be there.
    pub users: BTreeMap<String, DesiredUser>,
    /// Libraries that should answer their digest (others are listed without one).
    pub libraries: BTreeSet<String>,
    /// Whether it is a server of a Cluster.
    pub in_cluster: bool,
}

/// What a probe of one server found.
#[derive(Clone, Debug, Default)]
pub struct ProbeResult {
    /// The server in the model's words.
    pub server: ObservedServer,
    /// Its `INFO`, as far as it answered.
    pub info: Info,
    /// What it refused to say, or why it is unknown.
    pub faults: Vec<Error>,
}

impl ProbeResult {
    /// A server that gave no answer; also for the caller that could not even connect.
    pub(crate) fn unknown(fault: Error) -> Self {
        let server = if fault.class() == Class::Loading { ObservedServer::Loading } else { ObservedServer::Unknown };
        Self { server, info: Info::default(), faults: vec![fault] }
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(words);
    command
}

/// The replies of one pipeline, taken in order; errors are kept as faults.
struct Replies<'a> {
    connection: &'a Connection,
    rest: std::vec::IntoIter<Result<Value>>,
    faults: Vec<Error>,
}

impl<'a> Replies<'a> {
    async fn ask(connection: &'a Connection, commands: &[Cmd]) -> Result<Self> {
        let rest = connection.query_all(commands).await?.into_iter();
        Ok(Self { connection, rest, faults: Vec::new() })
    }

    fn next(&mut self) -> Result<Value> {
        self.rest.next().unwrap_or_else(|| Err(self.connection.bad_reply("pipeline", "too few replies")))
    }

    /// The next reply as `T`; its default if there is none, with the fault noted.
    fn take<T: FromRedisValue + Default>(&mut self, command: &str) -> T {
        let connection = self.connection;
        let taken = self.next().and_then(|reply| {
            T::from_redis_value(reply).map_err(|error| connection.bad_reply(command, error.to_string()))
        });
        taken.unwrap_or_else(|fault| {
            self.faults.push(fault);
            T::default()
        })
    }
}

/// Looks at a data node.
pub async fn probe_data(connection: &Connection, probe: &DataProbe, forms: &UserForms) -> ProbeResult {
    let mut info = command(&["INFO"]);
    info.arg(&SECTIONS);
    let mut commands = vec![info, command(&["ACL", "LIST"]), command(&["FUNCTION", "LIST"])];
    for library in &probe.libraries {
        commands.push(functions::digest_question(library));
    }
    if !probe.settings.is_empty() {
        let mut settings = command(&["CONFIG", "GET"]);
        settings.arg(probe.settings.iter().collect::<Vec<_>>());
        commands.push(settings);
    }
    if probe.in_cluster {
        commands.extend(cluster_nodes::view_questions());
    }
    let mut replies = match Replies::ask(connection, &commands).await {
        Ok(replies) => replies,
        Err(fault) => return ProbeResult::unknown(fault),
    };
    let info = match replies.next() {
        Ok(reply) => Info::parse(&text(&reply).unwrap_or_default()),
        Err(fault) => return ProbeResult::unknown(fault),
    };
    if info.is_loading() {
        return ProbeResult { server: ObservedServer::Loading, info, faults: Vec::new() };
    }
    let lines: Vec<String> = replies.take("ACL LIST");
    let listed = functions::libraries(&replies.next().unwrap_or(Value::Nil));
    let mut libraries: BTreeMap<String, String> = listed.keys().map(|name| (name.clone(), String::new())).collect();
    for library in &probe.libraries {
        // A server that is not there cannot answer: that is no fault but what we wanted to know.
        let digest = replies.next().ok().as_ref().and_then(text).unwrap_or_default();
        libraries.entry(library.clone()).and_modify(|known| *known = digest);
    }
    let settings = if probe.settings.is_empty() { BTreeMap::new() } else { replies.take("CONFIG GET") };
    let cluster = if probe.in_cluster { view(&mut replies) } else { None };
    let (Some(run_id), Some(replication)) = (info.run_id(), info.replication()) else {
        return ProbeResult {
            faults: vec![connection.bad_reply("INFO", "no run_id or role")],
            info,
            ..ProbeResult::default()
        };
    };
    let (users, mut faults) = forms.compare(connection, run_id, &lines, &probe.users).await;
    faults.append(&mut replies.faults);
    let server = DataServer {
        run_id: run_id.to_owned(),
        replication,
        offset: info.offset(),
        settings,
        users_in_place: users.in_place,
        users_foreign: users.foreign,
        libraries,
        functions: functions::of_users(&listed),
        used_memory: info.number("used_memory").unwrap_or_default(),
        maxmemory: info.number("maxmemory").unwrap_or_default(),
        rejected_connections: info.number("rejected_connections").unwrap_or_default(),
        refuses_clients: is_full(&info),
        persistence_trouble: info.persistence_trouble().map(str::to_owned),
        cluster,
        version: info.version().unwrap_or_default(),
    };
    ProbeResult { server: ObservedServer::Data(Box::new(server)), info, faults }
}

/// What the server believes of its Cluster. What makes no sense is a fault, and no view.
fn view(replies: &mut Replies<'_>) -> Option<ClusterView> {
    let (nodes, info): (String, String) = (replies.take("CLUSTER NODES"), replies.take("CLUSTER INFO"));
    match cluster_nodes::parse(&nodes, &info) {
        Ok(view) => Some(view),
        Err(problem) => {
            replies.faults.push(replies.connection.bad_reply("CLUSTER NODES", problem));
            None
        }
    }
}

/// Whether a server has no connection left.
fn is_full(info: &Info) -> bool {
    let (open, most) = (info.number("connected_clients"), info.number("maxclients"));
    matches!((open, most), (Some(open), Some(most)) if most > 0 && open >= most)
}

/// Probes a Sentinel: its `INFO`, and what it knows of the primary `master_name`.
pub async fn probe_sentinel(
    connection: &Connection,
    master_name: &str,
    users: &BTreeMap<String, DesiredUser>,
    forms: &UserForms,
) -> ProbeResult {
    let mut commands = vec![command(&["INFO"]), command(&["ACL", "LIST"])];
    commands.extend(master_questions(master_name));
    let mut replies = match Replies::ask(connection, &commands).await {
        Ok(replies) => replies,
        Err(fault) => return ProbeResult::unknown(fault),
    };
    let info = match replies.next() {
        Ok(reply) => Info::parse(&text(&reply).unwrap_or_default()),
        Err(fault) => return ProbeResult::unknown(fault),
    };
    let Some(run_id) = info.run_id() else {
        return ProbeResult { faults: vec![connection.bad_reply("INFO", "no run_id")], info, ..ProbeResult::default() };
    };
    let lines: Vec<String> = replies.take("ACL LIST");
    let beliefs: Vec<Result<Value>> = replies.rest.by_ref().collect();
    // A belief that cannot be read is not "monitors nothing": that would lead to an order what to monitor.
    let master = match read_master(connection, master_name, beliefs) {
        Ok(master) => master,
        Err(fault) => return ProbeResult { server: ObservedServer::Unknown, faults: vec![fault], info },
    };
    let (report, mut faults) = forms.compare(connection, run_id, &lines, users).await;
    faults.append(&mut replies.faults);
    let server = SentinelServer {
        run_id: run_id.to_owned(),
        master,
        users_in_place: report.in_place,
        users_foreign: report.foreign,
        tilt: info.field("sentinel_tilt") == Some("1"),
    };
    ProbeResult { server: ObservedServer::Sentinel(Box::new(server)), info, faults }
}
