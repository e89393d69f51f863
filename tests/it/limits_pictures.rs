//! What each algorithm admits over time, recorded of a real run for `docs/uses/draw`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Cmd;
use redoubt::model::limit_policy::Algorithm;

use crate::support::engine_process::engines;
use crate::support::limit_calls::{Answer, algorithms, limit_call, one_of_each, server_with};

const QUOTA: u64 = 10;
const WINDOW: u64 = 1_000;
/// Time between two arrivals, milliseconds: four times as many as the quota.
const PACE: u64 = 25;
/// When requests arrive, milliseconds since the begin of a second of the clock.
const BUSY: [std::ops::Range<u64>; 2] = [600..2_000, 3_100..4_500];

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn wait_until(moment: u64) {
    tokio::time::sleep(Duration::from_millis(moment.saturating_sub(now()))).await;
}

#[tokio::test]
#[ignore = "a recording: make pictures"]
async fn each_algorithm_is_recorded() {
    let engine = engines().remove(0);
    let (_process, connection) = server_with(&engine, &one_of_each(QUOTA, WINDOW), &[]).await;
    let letters: Vec<char> = algorithms(QUOTA).map(Algorithm::letter).to_vec();
    let calls: Vec<Cmd> = letters.iter().map(|letter| limit_call(&format!("{letter}:{{a}}"), &[])).collect();
    println!("limits {QUOTA} {WINDOW} {}", engine.name);
    let begin = (now() / 1_000 + 2) * 1_000;
    for moment in BUSY.into_iter().flat_map(|busy| busy.step_by(usize::try_from(PACE).unwrap())) {
        wait_until(begin + moment).await;
        let at = now() - begin;
        for (letter, reply) in letters.iter().zip(connection.query_all(&calls).await.unwrap()) {
            let answer = Answer::read(reply.unwrap());
            let wait = if answer.allowed == 1 { answer.retry } else { 0 };
            println!("limit {letter} {at} {} {wait}", answer.allowed);
        }
    }
}
