//! What a server carried out, command by command, from its slow log: how much one command or one write asks for can be counted, whatever
//! else the machine does meanwhile.

use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, cmd};
use redoubt::redis::{Connection, Endpoint, server};

use super::layer::Layer;
use redoubt::model::NodeId;

/// The user of a test that may read the log.
const USER: &str = "tester";
/// Arguments that an entry shows at most; the last one then says how many there are more.
const SHOWN: usize = 32;

/// A command that a server carried out.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its words; of one with many, the first.
    pub words: Vec<String>,
    /// How many words it had.
    pub length: usize,
    /// How long the server took, the time in which other processes ran included.
    pub microseconds: u64,
    /// When it was carried out, seconds of the server's clock.
    pub at: u64,
    /// Address of the client.
    pub client: String,
}

impl Call {
    /// Whether it is this command.
    pub fn is(&self, name: &str) -> bool {
        self.words[0].eq_ignore_ascii_case(name)
    }

    /// The word behind this one.
    pub fn after(&self, word: &str) -> Option<&str> {
        let at = self.words.iter().position(|found| found.eq_ignore_ascii_case(word))?;
        self.words.get(at + 1).map(String::as_str)
    }
}

/// The slow log of one server, in which everything is. It is read over a connection of its own each time: a failover ends all of them.
pub struct SlowLog(Endpoint);

impl SlowLog {
    /// Has the server log each command from now on, the latest `most`.
    pub async fn begin(layer: &Layer, id: NodeId, most: usize) -> Self {
        let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
        let rules = ["reset", "on", "nopass", "allkeys", "+slowlog"].map(str::to_owned);
        server::acl_set_user(&operator, USER, &rules).await.unwrap();
        let log = Self(Endpoint { username: USER.to_owned(), ..layer.endpoint(id) });
        server::config_set(&operator, "slowlog-max-len", &most.to_string()).await.unwrap();
        server::config_set(&operator, "slowlog-log-slower-than", "0").await.unwrap();
        log.connect().await.query::<()>(cmd("SLOWLOG").arg("RESET")).await.unwrap();
        log
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.0).await.unwrap().with_response_timeout(super::layer::SOON)
    }

    /// What was carried out since, the oldest first.
    pub async fn calls(&self) -> Vec<Call> {
        type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        // A client without our bound on a reply: a log of some ten thousand commands is longer.
        let address = ConnectionAddr::Tcp(self.0.address.clone(), self.0.port).into_connection_info().unwrap();
        let login = RedisConnectionInfo::default().set_username(&self.0.username).set_password("none");
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(super::layer::SOON));
        let client = redis::Client::open(address.set_redis_settings(login)).unwrap();
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let entries: Vec<Entry> = cmd("SLOWLOG").arg("GET").arg(-1).query_async(&mut connection).await.unwrap();
        let call = |(_, at, microseconds, words, client, _): Entry| {
            let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let more = words
                .last()
                .filter(|_| words.len() == SHOWN)
                .and_then(|word| word.strip_prefix("... (")?.strip_suffix(" more arguments)")?.parse::<usize>().ok());
            let length = more.map_or(words.len(), |more| SHOWN - 1 + more);
            Call { words, length, microseconds, at, client }
        };
        entries.into_iter().rev().map(call).collect()
    }
}

/// Lets these processes run before all others of the machine, so that what a command takes is its own; or says that it may not.
pub fn put_first(processes: &[u32]) -> bool {
    let put = |process: &u32| {
        let mut command = std::process::Command::new("chrt");
        command.args(["--all-tasks", "--fifo", "--pid", "1"]).arg(process.to_string());
        command.output().is_ok_and(|output| output.status.success())
    };
    !processes.is_empty() && processes.iter().all(put)
}

/// Writes that a machine which is itself one of several may hold up: what is in the middle of one of them stops as well.
const HELD_UP: usize = 2;

/// What each client sent in one write, where it asks for the time before and after: a server carries that out before it serves others.
/// Those that took longest, the longest first: microseconds, commands and the name of the first.
pub fn dearest_writes<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Vec<(u64, usize, String)> {
    let calls: Vec<&Call> = calls.into_iter().collect();
    let writes = calls.split(|call| call.is("TIME")).filter(|write| !write.is_empty());
    let cost = |write: &[&Call]| write.iter().map(|call| call.microseconds).sum::<u64>();
    let mut writes: Vec<_> = writes.map(|write| (cost(write), write.len(), write[0].words[0].clone())).collect();
    writes.sort_unstable_by(|one, other| other.cmp(one));
    writes.truncate(HELD_UP + 1);
    assert_eq!(writes.len(), HELD_UP + 1, "something was written");
    writes
}

/// The middle one of these times.
pub fn median<'a>(calls: impl Iterator<Item = &'a Call>) -> u64 {
    let mut times: Vec<u64> = calls.map(|call| call.microseconds).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
