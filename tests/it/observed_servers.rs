//! What the operator knows of a server, over connections that do not last.

use std::sync::Arc;

use redoubt::model::NodeId;
use redoubt::model::observed::ObservedServer;
use redoubt::observe::servers::{Asked, Pool, Question};
use tokio::sync::watch;

use crate::support::engine_process::{Process, engines};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_cut_our_connection_is_known_in_the_same_pass() {
    for engine in engines() {
        let server = Process::server(&engine, &["user operator on >secret ~* &* +@all"]).await;
        let node = NodeId::data(0);
        let question = Question {
            node,
            pod_uid: "uid".to_owned(),
            endpoint: server.endpoint("operator", "secret"),
            asked: Asked::Data(Arc::default()),
        };
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
