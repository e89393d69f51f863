//! The audit of the own server's keys: which have no expiry, which are under no declared prefix, and how large they are.
//!
//! One replica of a layer does it, the fit one with the lowest ordinal; the primary where there is none. Where keys are to be given an
//! expiry, or a cache takes more memory than it may, the primary goes through its keys for that as well. Keys are listed in pages. After each page a pause follows that leaves
//! the server all but a small share of its time, and no command of a page should take longer than 5 ms.

pub(super) mod metrics;
mod tasks;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use self::tasks::AuditTasks;
use super::config::Environment;
use super::state::State;
use super::{chain, durable, removal};
use crate::model::audit::{
    Candidate, CountedKey, CursorScope, DeclaredPrefixes, Expiry, LargeKeySearch, PREFIXES_FORMAT, PageSize, Pass,
    Prefixes, Shrink, Tally, pause_after, short_hash,
};
use crate::model::node_config::PREFIXES_FILE;
use crate::redis::keys::{self, Removal};
use crate::redis::{Class, Connection, Error, cluster, server};

/// Share of a server's time that the audit takes while it is under way, percent.
const SHARE_OF_REPLICA: u32 = 5;
/// The same of a primary, which has more to do.
const SHARE_OF_PRIMARY: u32 = 2;
/// Between two polls for work.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Between two passes: so many times as long as the last one took, within these bounds.
const REST_FACTOR: u32 = 20;
const REST: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(10)];
/// Before another try, where the server refused: it loads, or the user has not got its rights yet.
const AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// Audits for as long as the process lives.
pub(super) async fn run(environment: Environment, state: Arc<State>) {
    let mut auditor = Auditor::default();
    loop {
        let pause = auditor.step(&environment, &state).await;
        sleep(pause).await;
    }
}

/// What goes on between two pages.
#[derive(Default)]
struct Auditor {
    connection: Option<AuditConnection>,
    work: Option<AuditPass>,
    size: PageSize,
    /// What the server was at the last poll.
    scope: Option<CursorScope>,
    /// No pass begins before, as long as it stays so.
    rests_until: Option<Instant>,
    /// The list that the last pass went by.
    last_list: Option<String>,
    /// What the next pass is to remove, if it is of this standing and list: the last one measured it.
    shrink: Option<(CursorScope, String, Shrink)>,
    /// What the last pass found of large keys.
    search: LargeKeySearch,
    refused: Option<Class>,
}

/// A connection of the audit's own: it has a database of its own.
struct AuditConnection {
    connection: Connection,
    run_id: String,
    database: Option<u32>,
}

/// A pass that is under way.
struct AuditPass {
    pass: Pass,
    tasks: AuditTasks,
    list: String,
    began: Instant,
    busy: Duration,
    /// What it is to remove. Its counts hold what was removed, so it is no measure.
    shrink: Option<Shrink>,
    /// A page is counted in part: it cannot be asked for again.
    is_torn: bool,
}

impl Auditor {
    /// One poll, or one page; how long to wait before the next.
    async fn step(&mut self, environment: &Environment, state: &State) -> Duration {
        match self.try_step(environment, state).await {
            Ok(pause) => {
                self.refused = None;
                pause
            }
            Err(error) => {
                if self.refused.replace(error.class()) != Some(error.class()) {
                    tracing::info!(error = %chain(&error), "the audit of the keys is tried again");
                }
                // The cursor stays: it is good for as long as the process is the same.
                self.connection = None;
                self.work = self.work.take().filter(|work| !work.is_torn);
                AFTER_REFUSAL
            }
        }
    }

    async fn try_step(&mut self, environment: &Environment, state: &State) -> Result<Duration, Error> {
        let Some((replication_id, role)) = tasks::stands(state) else {
            self.connection = None;
            return Ok(POLL_EVERY);
        };
        let own = match self.connection.take() {
            Some(own) => own,
            None => AuditConnection::open(environment, state).await?,
        };
        let own = self.connection.insert(own);
        let scope = CursorScope { run_id: own.run_id.clone(), replication_id, role };
        if self.scope.as_ref() != Some(&scope) {
            // What was found at rest is of other data, and a new primary has to repair what the one before left.
            self.rests_until = None;
            self.scope = Some(scope.clone());
        }
        if self.work.as_ref().is_some_and(|work| !work.pass.is_of(&scope)) {
            tracing::info!("another server process, role or dataset: the audit of the keys begins again");
            self.work = None;
        }
        if self.work.is_none() {
            let (list, declared) = declared(environment);
            let is_news = self.last_list.as_ref() != Some(&list);
            if !is_news && self.rests_until.is_some_and(|until| Instant::now() < until) {
                return Ok(POLL_EVERY);
            }
            let tasks = tasks::of(state, role, &declared).await;
            if !tasks.is_some_and(|tasks| tasks.reports) {
                // Another node tells from now on.
                state.set_audit(None);
            }
            let Some(tasks) = tasks else {
                self.rests_until = Some(Instant::now() + REST[0]);
                self.last_list = Some(list);
                return Ok(POLL_EVERY);
            };
            let is_of_this =
                |known: &(CursorScope, String, Shrink)| tasks.shrinks && known.0 == scope && known.1 == list;
            let shrink = self.shrink.take().filter(is_of_this).map(|(_, _, shrink)| shrink);
            let search = self.search.clone();
            self.work =
                Some(AuditPass::begin(&own.connection, scope.clone(), tasks, list, &declared, shrink, search).await?);
        }
        let Some(work) = &mut self.work else { return Ok(POLL_EVERY) };
        let mut pause = POLL_EVERY;
        if work.pass.position().is_some() {
            let busy = work.page(own, state, &mut self.size).await?;
            let share = if work.tasks.is_on_primary { SHARE_OF_PRIMARY } else { SHARE_OF_REPLICA };
            pause = pause_after(busy, share);
        }
        if work.pass.position().is_none() {
            let took = work.began.elapsed();
            let found = work.end(state);
            self.search = work.pass.tally.next_search();
            // What was removed is measured again at once, and what is still too much removed.
            let goes_on = work.shrink.is_some() || found.is_some();
            self.rests_until = (!goes_on).then(|| Instant::now() + (took * REST_FACTOR).clamp(REST[0], REST[1]));
            self.shrink = found.map(|shrink| (scope, work.list.clone(), shrink));
            self.last_list = Some(std::mem::take(&mut work.list));
            self.work = None;
        }
        Ok(pause)
    }
}

impl AuditConnection {
    async fn open(environment: &Environment, state: &State) -> Result<Self, Error> {
        let connection = Connection::open(&state.own_endpoint(environment)).await?;
        if state.config().cluster.is_some() {
            // Else a replica of a Cluster says of each key that its primary has it.
            cluster::read_only(&connection).await?;
        }
        let info = server::info(&connection).await?;
        Ok(Self { connection, run_id: info.field("run_id").unwrap_or_default().to_owned(), database: None })
    }

    async fn select(&mut self, database: u32) -> Result<(), Error> {
        if self.database != Some(database) {
            self.database = None;
            keys::select(&self.connection, database).await?;
            self.database = Some(database);
        }
        Ok(())
    }
}

impl AuditPass {
    async fn begin(
        connection: &Connection,
        scope: CursorScope,
        tasks: AuditTasks,
        list: String,
        declared: &DeclaredPrefixes,
        shrink: Option<Shrink>,
        search: LargeKeySearch,
    ) -> Result<Self, Error> {
        let info = server::info(connection).await?;
        let databases =
            info.databases().filter_map(|database| database.name.strip_prefix("db")?.parse().ok()).collect();
        let tally = Tally::new(Arc::new(Prefixes::new(declared)), tasks.repairs, search);
        Ok(Self {
            pass: Pass::new(scope, databases, tally),
            tasks,
            list,
            began: Instant::now(),
            busy: Duration::ZERO,
            shrink,
            is_torn: false,
        })
    }

    /// Counts one page. How long the server was busy with it.
    async fn page(&mut self, own: &mut AuditConnection, state: &State, size: &mut PageSize) -> Result<Duration, Error> {
        let Some(position) = self.pass.position() else { return Ok(Duration::ZERO) };
        own.select(position.database).await?;
        let (connection, mut meter) = (&own.connection, keys::Meter::default());
        let (cursor, names) = keys::scan(connection, &mut meter, position.cursor, size.keys()).await?;
        let lifetimes = keys::lifetimes(connection, &mut meter, &names).await?;
        let gone = lifetimes.iter().filter(|milliseconds| **milliseconds == -2).count();
        state.note_own_reads(names.len() - gone, gone);
        self.is_torn = true;
        let counted: Vec<(&[u8], CountedKey)> = names
            .iter()
            .zip(&lifetimes)
            .filter_map(|(key, lifetime)| Some((key.as_slice(), self.pass.tally.count(key, Expiry::of(*lifetime))?)))
            .collect();
        let sampled: Vec<(&[u8], CountedKey)> =
            counted.iter().copied().filter(|(_, found)| found.is_measured()).collect();
        let asked: Vec<&[u8]> = sampled.iter().map(|(key, _)| *key).collect();
        let sizes = keys::sizes(connection, &mut meter, &asked).await?;
        for ((key, found), bytes) in sampled.into_iter().zip(sizes) {
            if let Some(bytes) = bytes {
                self.pass.tally.measure(found, key, bytes);
            }
        }
        let repairs: Vec<(&[u8], u64)> =
            counted.iter().filter_map(|(key, found)| Some((*key, found.repair?))).collect();
        if !repairs.is_empty() {
            state.note_repaired(keys::give_expiry(connection, &mut meter, &repairs).await?);
        }
        if let Some(shrink) = &mut self.shrink
            && !shrink.is_done()
        {
            let ending = names.iter().zip(&lifetimes).filter(|(_, lifetime)| **lifetime != -2);
            let page: Vec<Candidate<'_>> = ending
                .filter_map(|(key, lifetime)| {
                    let place = self.pass.tally.prefixes().of(key)?;
                    Some(Candidate { place, key, lifetime: u64::try_from(*lifetime).unwrap_or(u64::MAX) })
                })
                .collect();
            let chosen = shrink.choose(self.pass.tally.prefixes(), &page);
            let asked: Vec<&[u8]> = chosen.iter().map(|it| it.key).collect();
            let sizes = keys::sizes(connection, &mut meter, &asked).await?;
            let with_sizes = chosen.into_iter().zip(sizes).filter_map(|(it, bytes)| Some((it, bytes?)));
            let surplus: Vec<(&[u8], u64)> = with_sizes
                .filter(|(it, bytes)| shrink.take(it.place, *bytes))
                .map(|(it, bytes)| (it.key, bytes))
                .collect();
            state.note_shrunk(removal::remove(connection, &surplus, SHARE_OF_PRIMARY, Removal::Eviction).await?);
        }
        self.is_torn = false;
        self.pass.advance(cursor);
        self.busy += meter.busy;
        *size = size.after(meter.longest);
        Ok(meter.busy)
    }

    /// The pass is whole. What the next one is to remove; `None`: nothing, or this one was no measure.
    fn end(&self, state: &State) -> Option<Shrink> {
        if self.shrink.is_some() {
            return None;
        }
        let mut report = self.pass.tally.report();
        let shrink = Shrink::new(self.pass.tally.prefixes(), &report.prefixes);
        let shrink = Some(shrink).filter(|shrink| self.tasks.shrinks && !shrink.is_done());
        if !self.tasks.reports {
            return shrink;
        }
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        report.list.clone_from(&self.list);
        report.finished = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, milliseconds);
        (report.took_milliseconds, report.busy_milliseconds) =
            (milliseconds(self.began.elapsed()), milliseconds(self.busy));
        state.set_audit(Some(report));
        shrink
    }
}

/// What the operator says of the layer's uses, and the hash of that; empty where it says nothing that this agent can read.
fn declared(environment: &Environment) -> (String, DeclaredPrefixes) {
    let nothing = || (String::new(), DeclaredPrefixes::default());
    let Ok(Some(text)) = durable::read(&environment.secrets.join(PREFIXES_FILE)) else { return nothing() };
    match serde_json::from_str::<DeclaredPrefixes>(&text) {
        Ok(declared) if declared.format <= PREFIXES_FORMAT => (short_hash(text.as_bytes()), declared),
        Ok(_) | Err(_) => nothing(),
    }
}
