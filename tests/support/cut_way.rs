//! A way to a server that can be cut, between a program and a process of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::engine_process::PORT;

static NEXT: AtomicU8 = AtomicU8::new(1);

/// What does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All gets through.
    Nothing,
    /// Every connection ends, and each new one too.
    Connections,
    /// What the server sends to connections that subscribed is lost, while they stay open.
    Messages,
    /// Nothing, but each byte that the server sends arrives by itself, this long after the one before.
    Pace(Duration),
}

/// Takes connections at an address of its own and leads them to a server.
pub struct Way {
    /// Address, at [`PORT`].
    pub address: String,
    cut: watch::Sender<Cut>,
    counts: Arc<Counts>,
}

/// Bytes of the server.
#[derive(Default)]
struct Counts {
    lost: AtomicUsize,
    paced: AtomicUsize,
}

impl Way {
    /// A way to the server at this address, nothing of it cut.
    pub async fn to(server: &str) -> Self {
        let address = format!("127.2.{}.{}", std::process::id() % 250, NEXT.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((address.as_str(), PORT)).await.unwrap();
        let (cut, seen) = watch::channel(Cut::Nothing);
        let counts = Arc::<Counts>::default();
        let (server, counted) = (server.to_owned(), Arc::clone(&counts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() != Cut::Connections
                    && let Ok(upstream) = TcpStream::connect((server.as_str(), PORT)).await
                {
                    tokio::spawn(lead(client, upstream, seen.clone(), Arc::clone(&counted)));
                }
            }
        });
        Self { address, cut, counts }
    }

    /// Cuts this from now on, and nothing else.
    pub fn cut(&self, what: Cut) {
        self.cut.send_replace(what);
    }

    /// Bytes of the server that were lost so far.
    pub fn lost(&self) -> usize {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Bytes of the server that arrived by themselves so far.
    pub fn paced(&self) -> usize {
        self.counts.paced.load(Ordering::Relaxed)
    }
}

/// Leads one connection until it ends or is cut.
async fn lead(client: TcpStream, server: TcpStream, mut cut: watch::Receiver<Cut>, counts: Arc<Counts>) {
    // Bytes that are sent one by one are not gathered.
    client.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let seen = cut.clone();
    let has_subscribed = AtomicBool::new(false);
    let there = async {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            if bytes[..count].windows(9).any(|word| word.eq_ignore_ascii_case(b"SUBSCRIBE")) {
                has_subscribed.store(true, Ordering::Relaxed);
            }
            if to_server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            if *seen.borrow() == Cut::Messages && has_subscribed.load(Ordering::Relaxed) {
                counts.lost.fetch_add(count, Ordering::Relaxed);
                continue;
            }
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let now = *seen.borrow();
                let (next, later) = match now {
                    Cut::Pace(pause) => {
                        tokio::time::sleep(pause).await;
                        counts.paced.fetch_add(1, Ordering::Relaxed);
                        rest.split_at(1)
                    }
                    Cut::Nothing | Cut::Connections | Cut::Messages => (rest, [].as_slice()),
                };
                if to_client.write_all(next).await.is_err() {
                    return;
                }
                rest = later;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut.wait_for(|cut| *cut == Cut::Connections) => {}
    }
}
