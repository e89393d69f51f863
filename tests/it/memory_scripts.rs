//! Scripts, transactions and replies against `maxmemory`, which a server compares before them and not within them.

use redis::{Cmd, Value, cmd};
use redoubt::model::Purpose;
use redoubt::model::purpose;
use redoubt::redis::{Class, Connection, Result, server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::memory_soak::{AGENT, LIMIT, SOON, field, fill, node_without_a_file, plan, resident};
use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::eventually;

fn words(text: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg(text.split(' ').collect::<Vec<_>>());
    command
}

/// The server's words.
fn refusal(answer: Result<Value>) -> String {
    answer.expect_err("a refusal").server_text().expect("the server's words")
}

/// What is queued counts as what clients hold, and each command is compared with `maxmemory` when it is queued. Stores' users have no
/// command that makes more than it was sent, so their transactions stay within the room of connections and their requests.
#[tokio::test]
async fn a_transaction_that_makes_no_more_than_it_was_sent_stays_within_the_room_of_clients() {
    let value = "x".repeat(usize::try_from(plan().largest_value - 1_000).unwrap());
    for engine in engines() {
        let (process, admin) = node_without_a_file(&engine).await;
        let connect = async || process.connect().await.with_response_timeout(SOON);
        // Queues one value after the other: how many, and what ended it.
        let queue = async |client: &Connection, most: u64| {
            client.query::<()>(&cmd("MULTI")).await.unwrap();
            for number in 0..most {
                let set = client.query::<Value>(cmd("SET").arg(format!("queued{number}")).arg(&value)).await;
                if let Err(error) = set {
                    return (number, Some(error));
                }
            }
            (most, None)
        };
        let of_clients = plan().of_clients();
        let most = of_clients / plan().largest_value;
        let (queued, ended) = queue(&connect().await, 2 * most).await;
        let ended = ended.expect("an end of the queue");
        assert_eq!(ended.class(), Class::Unreachable, "{}: {ended}", engine.name);
        assert!(queued <= most + 1, "{}: {queued} of {most}", engine.name);
        // As much as may be queued, where the data leaves just enough room for it.
        fill(&admin, plan().maxmemory - of_clients).await;
        let client = connect().await;
        assert!(queue(&client, most - 2).await.1.is_none(), "{}", engine.name);
        client.query::<Vec<String>>(&cmd("EXEC")).await.unwrap();
        let highest = field(&admin, "used_memory_peak").await;
        println!("{}: {} of {} MiB at most", engine.name, highest >> 20, plan().maxmemory >> 20);
        let bound = plan().maxmemory + of_clients + plan().largest_command / 4 * 5;
        assert!(highest <= bound, "{}: {highest} {bound}", engine.name);
        // Full: nothing is queued that needs memory, and what was queued before is not done.
        fill(&admin, plan().maxmemory / 100 * 98).await;
        let client = connect().await;
        let (_, refused) = queue(&client, most).await;
        let refused = refused.and_then(|error| error.server_text()).expect("a refusal");
        assert!(refused.contains("OOM"), "{}: {refused}", engine.name);
        let aborted = refusal(client.query(&cmd("EXEC")).await);
        assert!(aborted.contains("EXECABORT"), "{}: {aborted}", engine.name);
        let own = resident(field(&admin, "process_id").await);
        assert!(own < LIMIT - AGENT, "{}: {own}", engine.name);
    }
}

/// A few short commands that make much, as the user `app` may send them: in a script, and in a transaction.
async fn made_at_once(connection: &Connection, in_a_script: bool, values: u64) {
    let offset = plan().largest_value - 1;
    if in_a_script {
        let script = "for number = 1, tonumber(ARGV[1]) do redis.call('SETRANGE', 'made' .. number, ARGV[2], 'x') end";
        connection.query::<()>(cmd("EVAL").arg(script).arg(0).arg(values).arg(offset)).await.unwrap();
        return;
    }
    connection.query::<()>(&cmd("MULTI")).await.unwrap();
    for number in 1..=values {
        connection.query::<()>(&words(&format!("SETRANGE made{number} {offset} x"))).await.unwrap();
    }
    connection.query::<Vec<u64>>(&cmd("EXEC")).await.unwrap();
}

/// Nothing but the pod bounds them. What is left afterwards is a server that answers, and takes writes again: by itself where it evicts,
/// otherwise once there is room.
#[tokio::test]
async fn a_script_or_transaction_may_pass_maxmemory_by_all_that_it_makes_and_leaves_a_server_that_answers() {
    // Several times the room of one command, and less than what is left of the pod.
    let values = 5 * plan().largest_command / plan().largest_value + 5;
    let made = values * plan().largest_value;
    let evicting = purpose::defaults(Purpose::Cache).eviction_policy;
    for engine in engines() {
        for (policy, in_a_script) in [("noeviction", true), ("noeviction", false), (evicting, true), (evicting, false)]
        {
            let name = format!("{}, {policy}, in a script: {in_a_script}", engine.name);
            let (process, admin) = node_without_a_file(&engine).await;
            server::config_set(&admin, "maxmemory-policy", policy).await.unwrap();
            fill(&admin, plan().maxmemory / 20 * 19).await;
            let client = process.connect().await.with_response_timeout(SOON);
            made_at_once(&client, in_a_script, values).await;
            let highest = field(&admin, "used_memory_peak").await;
            println!("{name}: {} of {} MiB", highest >> 20, plan().maxmemory >> 20);
            // An engine may bound it one day: then there is a promise to make.
            let bound = plan().maxmemory + plan().largest_command / 4 * 5 + (1 << 20);
            assert!(highest > bound && highest < plan().maxmemory + made / 4 * 5, "{name}: {highest} {bound}");
            if policy == "noeviction" {
                for write in ["SET after 1", "SETRANGE after 9 x"] {
                    let refused = refusal(client.query(&words(write)).await);
                    assert!(refused.contains("OOM"), "{name}: {refused}");
                }
                let again = cmd("EVAL").arg("return redis.call('SET', 'after', 1)").arg(0).clone();
                let refused = refusal(client.query(&again).await);
                assert!(refused.contains("OOM"), "{name}: {refused}");
                assert_eq!(client.query::<String>(&words("GET key:1")).await.unwrap().len(), 900, "{name}: reads");
                let all: Vec<String> = (1..=values).map(|number| format!("made{number}")).collect();
                assert_eq!(client.query::<u64>(cmd("UNLINK").arg(&all)).await.unwrap(), values, "{name}: makes room");
            }
            eventually(&format!("{name}: it takes writes within maxmemory"), SOON, async || {
                let is_taken = client.query::<()>(&words("SET after 1")).await.is_ok();
                is_taken && field(&admin, "used_memory").await <= plan().maxmemory + (1 << 20)
            })
            .await;
            let own = resident(field(&admin, "process_id").await);
            assert!(own < LIMIT - AGENT, "{name}: {own}");
        }
    }
}

/// Length of a member of the set, bytes.
const MEMBER: usize = 200;

/// Sends a command and reads at most this many bytes of the reply: how many came until the server ended the connection.
async fn reply_bytes(process: &Process, command: &Cmd, most: usize) -> usize {
    let mut stream = TcpStream::connect((process.address.as_str(), PORT)).await.unwrap();
    stream.write_all(&command.get_packed_command()).await.unwrap();
    let (mut buffer, mut bytes) = (vec![0; 65_536], 0);
    while bytes < most {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(more) => bytes += more,
        }
    }
    bytes
}

/// A node that holds a set, a hash, a sorted set and a large string, and is full but for a twentieth.
async fn filled(engine: &Engine) -> (Process, Connection) {
    let (process, admin) = node_without_a_file(engine).await;
    let member = "m".repeat(MEMBER);
    let large = "x".repeat(usize::try_from(plan().largest_value - 1_000).unwrap());
    for command in [
        cmd("SADD").arg("set").arg(&member),
        cmd("HSET").arg("hash").arg("f").arg("v".repeat(3_000)),
        cmd("ZADD").arg("sorted").arg(1).arg(&member),
        cmd("SET").arg("large").arg(&large),
    ] {
        admin.query::<Value>(command).await.unwrap();
    }
    fill(&admin, plan().maxmemory / 20 * 19).await;
    (process, admin)
}

/// The count of random elements is the client's to choose, and a command names one value as often as it likes. Each command has a server
/// of its own: what different ones leave behind in the allocator, one after the other, is in no term of the plan.
#[tokio::test]
async fn a_reply_that_grows_beyond_the_room_of_clients_ends_its_connection_and_a_large_page_passes() {
    let named =
        |command: &str, name: &str, times: usize| words(&format!("{command}{}", format!(" {name}").repeat(times)));
    let of_clients = usize::try_from(plan().of_clients()).unwrap();
    for engine in engines() {
        for command in [
            words("SRANDMEMBER set -4000000"),
            words("HRANDFIELD hash -4000000 WITHVALUES"),
            words("ZRANDMEMBER sorted -4000000 WITHSCORES"),
            named("MGET", "large", 250),
            named("HMGET hash", "f", 100_000),
        ] {
            let (process, _admin) = filled(&engine).await;
            let name = String::from_utf8_lossy(&command.get_packed_command()[..40]).replace("\r\n", " ");
            for _ in 0..2 {
                let bytes = reply_bytes(&process, &command, usize::MAX).await;
                assert!(bytes < of_clients, "{}: {name}: {bytes}", engine.name);
            }
            let own = resident(process.pid().into());
            println!("{}: {name}: {} of {} MiB at most", engine.name, own >> 20, LIMIT >> 20);
            assert!(own < LIMIT - AGENT, "{}: {name}: {own}", engine.name);
        }
        let (process, _admin) = filled(&engine).await;
        // *80000, and each member with its length.
        let page = "*80000\r\n".len() + 80_000 * ("$200\r\n\r\n".len() + MEMBER);
        assert_eq!(reply_bytes(&process, &words("SRANDMEMBER set -80000"), page).await, page, "{}", engine.name);
    }
}
