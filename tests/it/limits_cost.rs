//! What a library of 10,000 policies costs.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::Cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::limit_policy::{Algorithm, LimitPolicy};

use crate::support::engine_process::engines;
use crate::support::figures::server_micros;
use crate::support::limit_calls::{Answer, MINUTE, limit_call, rows, server_with, single};

/// 10,000 policies, each of one limit.
pub fn many() -> Vec<LimitPolicy> {
    (0..10_000).map(|number| single(&format!("p{number}:api"), Algorithm::Gcra { burst: 100 }, 100, MINUTE)).collect()
}

#[tokio::test]
async fn ten_thousand_policies_load_fast_and_each_is_found() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[], &[]).await;
        load(&connection, &limit_library(&many())).await.unwrap();
        let took = server_micros(&connection, Some("function|load")).await;
        println!(
            "{}: 10,000 policies loaded in {:.1} ms",
            engine.name,
            Duration::from_micros(took).as_secs_f64() * 1e3
        );
        // Some 10 ms on a machine at rest, and a multiple where the server waits for a processor; Redis gives a library 500 ms.
        assert!(took < 250_000, "{}: {took} µs", engine.name);
        let calls: Vec<Cmd> = (0..10_000).map(|number| limit_call(&format!("p{number}:api:{{a}}"), &[])).collect();
        for some in calls.chunks(500) {
            for reply in connection.query_all(some).await.unwrap() {
                assert_eq!(Answer::read(reply.unwrap()).verdict(), (1, 99), "{}", engine.name);
            }
        }
        let counted = rows(&connection).await;
        assert_eq!(counted.iter().map(|row| &row.owner).collect::<BTreeSet<_>>().len(), 10_000);
        assert!(counted.iter().all(|row| row.counts == [1, 0, 0]));
    }
}
