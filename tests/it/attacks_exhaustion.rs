//! Others of the cluster that take what an agent has: connections and memory.

use std::net::IpAddr;
use std::time::Instant;

use redoubt::model::node_config::AGENT_PORT;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// More than the agent holds at once.
const HALF_OPEN: usize = 400;
/// A request of which half is sent.
const ROOT: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn connect(from: IpAddr, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(format!("{to}:{AGENT_PORT}").parse().unwrap()).await.unwrap()
}

/// Whether the other end has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 256]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_take_no_answer_from_the_kubelet_and_are_ended() {
    let layer = Layer::start(&Options { data_nodes: 1, sentinels: 0, min_replicas: 0, ..Options::default() });
    let id = layer.data_ids()[0];
    let address = layer.nodes[&id].address.0.clone();
    eventually("its agent answers", SOON, async || layer.probe(id, "started").await.is_some()).await;
    let attacker: IpAddr = "127.1.0.2".parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut stream = connect(attacker, &address).await;
        // The agent may have ended it already.
        let _ = stream.write_all(&ROOT[..20]).await;
        held.push(stream);
    }
    let asked = Instant::now();
    let answer = timeout(SOON, layer.probe(id, "live")).await.unwrap().unwrap();
    println!("a probe was answered in {:.2?} under {HALF_OPEN} half requests", asked.elapsed());
    assert!(answer.contains("200 OK"), "{answer}");
    let took = eventually("all are ended", SOON, async || {
        held.retain(is_open);
        held.is_empty()
    })
    .await;
    println!("all were ended {took:.2?} later");
}
