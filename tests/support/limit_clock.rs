//! Limits on a server with a clock of the test's.

use redis::{Cmd, Value};
use redoubt::dataplane::limit_library;
use redoubt::model::limit_policy::LimitPolicy;
use redoubt::redis::Connection;

use super::engine_process::{Engine, Process};
use super::function_calls::call;
use super::function_clock;
use super::limit_calls::Answer;

pub use super::function_clock::{BEGINNING, call_at};

/// A server with these policies and no clock of its own.
pub async fn clocked_server(engine: &Engine, policies: &[LimitPolicy]) -> (Process, Connection) {
    function_clock::clocked_server(engine, limit_library(policies)).await
}

/// Loads policies, also over others.
pub async fn load_clocked(connection: &Connection, policies: &[LimitPolicy]) {
    function_clock::load_clocked(connection, limit_library(policies)).await;
}

/// Calls a function that answers with a decision, at a moment.
pub async fn decide_at(connection: &Connection, now: i64, function: &str, key: &str, arguments: &[&str]) -> Answer {
    let mut all = arguments.to_vec();
    let now = now.to_string();
    all.push(&now);
    Answer::read(call(connection, function, &[key], &all).await.unwrap())
}

/// The answers of many calls, in their order.
pub async fn decide_all(connection: &Connection, commands: &[Cmd]) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(commands.len());
    for some in commands.chunks(500) {
        let replies = connection.query_all(some).await.unwrap();
        answers.extend(replies.into_iter().map(|reply: Result<Value, _>| Answer::read(reply.unwrap())));
    }
    answers
}
