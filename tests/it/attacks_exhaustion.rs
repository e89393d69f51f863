//! Others of the cluster that take what an agent has: connections and memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redoubt::model::node_config::AGENT_PORT;
use redoubt::redis::connection::open_subscriber;
use redoubt::redis::{Connection, Endpoint, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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

/// A server that takes any login and answers everything with this and what follows, without end. The counter: bytes that were taken.
async fn forger(reply: &'static [u8]) -> (Endpoint, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"+OK\r\n").await;
                let _ = stream.read(&mut request).await;
                let mut next = stream.write_all(reply).await;
                let chunk = vec![b'x'; 64 << 10];
                while next.is_ok() {
                    next = stream.write_all(&chunk).await;
                    counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    let password = Secret::new("p");
    (
        Endpoint {
            address: "127.0.0.1".to_owned(),
            port,
            username: "agent".to_owned(),
            password,
            other_password: None,
        },
        taken,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_bound_is_an_error_that_names_the_server_and_little_of_it_is_read() {
    // A length that is told, a number of elements, a line that does not end.
    for (reply, most) in [(b"$1500000000\r\n".as_slice(), 8 << 20), (b"*1500000000\r\n", 8 << 20), (b"+", 32 << 20)] {
        let text = String::from_utf8_lossy(reply).trim().to_owned();
        let (endpoint, taken) = forger(reply).await;
        let connection = Connection::open_with(&endpoint, SOON, SOON).await.unwrap();
        let error = connection.query::<redis::Value>(&redis::cmd("PING")).await.unwrap_err();
        let told = format!("{error}: {:?}", std::error::Error::source(&error).unwrap());
        let name = format!("cannot run PING on 127.0.0.1:{}", endpoint.port);
        assert!(told.contains(&name) && (told.contains("16 MiB") || told.contains("elements")), "{text}: {told}");
        // Its connection is closed, so nothing more is taken.
        let mut before = u64::MAX;
        eventually("no more is taken", SOON, async || {
            let now = taken.load(Ordering::Relaxed);
            std::mem::replace(&mut before, now) == now
        })
        .await;
        println!("{text}: {} KiB left the forger; {told}", before >> 10);
        assert!(before < most, "{text}: {before} bytes");
        assert!(open_subscriber(&endpoint, "events").await.is_err(), "{text}");
    }
}
