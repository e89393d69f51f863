//! What the operator knows of a server, over connections that do not last.

use std::sync::Arc;

use redoubt::model::NodeId;
use redoubt::model::observed::ObservedServer;
use redoubt::observe::servers::{Pool, Question, ServerProbe};
use tokio::sync::watch;

use crate::support::engine_process::{PORT, Process, engines};
use crate::support::layer::SOON;

fn question(server: &Process) -> Question {
    Question {
        node: NodeId::data(0),
        pod_uid: "uid".to_owned(),
        endpoint: server.endpoint("operator", "secret"),
        probe: ServerProbe::Data(Arc::default()),
    }
}

/// What a status tells of memory and of clients that are turned away is what the server says.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_turned_away_and_memory_are_seen_as_the_server_counts_them() {
    for engine in engines() {
        let lines = ["user operator on >secret ~* &* +@all", "maxclients 10", "maxmemory 64mb"];
        let server = Process::server(&engine, &lines).await;
        let (pool, (_moves, last_move)) = (Pool::default(), watch::channel(None));
        let seen = async || {
            let answer = pool.ask(vec![question(&server)], &last_move).await.remove(&NodeId::data(0)).unwrap().server;
            let ObservedServer::Data(seen) = answer else { panic!("{}: {answer:?}", engine.name) };
            seen
        };
        let before = seen().await;
        assert_eq!((before.rejected_connections, before.maxmemory), (0, 64 << 20), "{}", engine.name);
        let client = server.connect().await;
        client.query::<()>(redis::cmd("SET").arg("large").arg("x".repeat(8 << 20))).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(tokio::net::TcpStream::connect((server.address.as_str(), PORT)).await.unwrap());
        }
        crate::support::eventually("the server turned some away", SOON, async || {
            let now = seen().await;
            let is_told = now.refuses_clients && (10..20).contains(&now.rejected_connections);
            is_told && now.used_memory >= before.used_memory + (8 << 20)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_cut_our_connection_is_known_in_the_same_pass() {
    for engine in engines() {
        let server = Process::server(&engine, &["user operator on >secret ~* &* +@all"]).await;
        let node = NodeId::data(0);
        let question = question(&server);
        let (pool, (_moves, last_move)) = (Pool::default(), watch::channel(None));
        let connection = server.connect().await;
        for round in 0..20 {
            let answers = pool.ask(vec![question.clone()], &last_move).await;
            let answer = &answers[&node];
            assert!(matches!(answer.server, ObservedServer::Data(_)), "{}, round {round}: {answer:?}", engine.name);
            assert!(answer.connection.is_some());
            // As a Sentinel does to the replica that it promotes.
            connection.query::<()>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await.unwrap();
        }
    }
}
