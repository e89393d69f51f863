//! Serving HTTP on the agent's port within bounds: whatever connects there, probes, peers and Prometheus get their answers.
//!
//! At the bound the oldest connection of the address that holds most of them ends. So a new one is always taken, and one address
//! that opens any number ends its own only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Limits of the agent's port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once. Each may hold [`LARGEST_HEADER`].
    at_once: usize,
    /// Time for the whole head of a request, from the end of the one before or the begin of the connection.
    head_within: Duration,
}

/// Those of the agent's port. Peers, operator, kubelet and Prometheus have some ten connections, each for one request of a millisecond.
pub(super) const BOUNDS: Bounds = Bounds { at_once: 128, head_within: Duration::from_secs(3) };
/// What is read of a request before it is refused, bytes: ours have some 100.
const LARGEST_HEADER: usize = 16 << 10;
/// Before the next try to take a connection, where the process has no file descriptor left for it.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let mut held: Vec<(IpAddr, JoinHandle<()>)> = Vec::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection taken on the agent's port");
                sleep(RETRY_AFTER).await;
                continue;
            }
        };
        held.retain(|(_, task)| !task.is_finished());
        if held.len() >= bounds.at_once
            && let Some(index) = first_to_end(held.iter().map(|(address, _)| *address))
        {
            let (_, task) = held.remove(index);
            task.abort();
            // Its socket is closed before there is one more.
            let _ = task.await;
        }
        let service = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(bounds.head_within).max_buf_size(LARGEST_HEADER);
        let task = tokio::spawn(async move {
            // A peer that breaks off, or is too slow: its own matter.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
        held.push((peer.ip(), task));
    }
}

/// Of the addresses of connections, the oldest first: the oldest one of the address that has most. `None`: there is no connection.
fn first_to_end(held: impl Iterator<Item = IpAddr> + Clone) -> Option<usize> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for address in held.clone() {
        *counts.entry(address).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    held.enumerate().find(|(_, address)| counts.get(address) == Some(&most)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn started(bounds: Bounds) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, Router::new().route("/", get("ok")), bounds));
        port
    }

    async fn connect(last: u8, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
    }

    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 12];
        let _ = stream.write_all(WHOLE).await;
        let is_read = stream.read_exact(&mut answer).await.is_ok();
        // The rest, so that the next answer begins where it is looked for.
        let _ = stream.read(&mut [0; 512]).await;
        is_read && &answer == b"HTTP/1.1 200"
    }

    /// Whether the server ends the connection soon: a claim that waits without an end names no fault.
    async fn is_ended(stream: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(20), async { stream.read(&mut [0]).await });
        read.await.is_ok_and(|read| !matches!(read, Ok(1..)))
    }

    #[tokio::test]
    async fn an_address_that_opens_any_number_ends_its_own_only() {
        let port = started(Bounds { at_once: 8, head_within: Duration::from_hours(1) }).await;
        let mut kept = connect(2, port).await;
        assert!(is_answered(&mut kept).await);
        let mut held = Vec::new();
        for _ in 0..20 {
            let mut stream = connect(3, port).await;
            let _ = stream.write_all(&WHOLE[..9]).await;
            held.push(stream);
        }
        // Connections are taken in their order: all before it were.
        assert!(is_answered(&mut connect(4, port).await).await);
        assert!(is_answered(&mut kept).await);
        let rest = held.split_off(14);
        for mut ended in held {
            assert!(is_ended(&mut ended).await, "the oldest ended");
        }
        for stream in rest {
            let is_open = stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(is_open, "no more than needed end");
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_given_up() {
        let port = started(Bounds { at_once: 8, head_within: Duration::from_millis(50) }).await;
        let mut half = connect(2, port).await;
        half.write_all(&WHOLE[..9]).await.unwrap();
        assert!(is_ended(&mut half).await);
    }

    #[test]
    fn the_address_with_most_connections_loses_its_oldest() {
        let ends = |last: &[u8]| first_to_end(last.iter().map(|last| IpAddr::from([10, 0, 0, *last])));
        assert_eq!(ends(&[1, 2, 2, 1, 2]), Some(1));
        assert_eq!(ends(&[1, 2, 3]), Some(0), "all have as many: the oldest of all");
        assert_eq!(ends(&[]), None);
    }
}
