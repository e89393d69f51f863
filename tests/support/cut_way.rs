//! A way to a server that can be cut, between a program and a process of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

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
}

/// Takes connections at an address of its own and leads them to a server.
pub struct Way {
    /// Address, at [`PORT`].
    pub address: String,
    cut: watch::Sender<Cut>,
    lost: Arc<AtomicUsize>,
}

impl Way {
    /// A way to the server at this address, nothing of it cut.
    pub async fn to(server: &str) -> Self {
        let address = format!("127.2.{}.{}", std::process::id() % 250, NEXT.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((address.as_str(), PORT)).await.unwrap();
        let (cut, seen) = watch::channel(Cut::Nothing);
        let lost = Arc::new(AtomicUsize::new(0));
        let (server, counted) = (server.to_owned(), Arc::clone(&lost));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() != Cut::Connections
                    && let Ok(upstream) = TcpStream::connect((server.as_str(), PORT)).await
                {
                    tokio::spawn(lead(client, upstream, seen.clone(), Arc::clone(&counted)));
                }
            }
        });
        Self { address, cut, lost }
    }

    /// Cuts this from now on, and nothing else.
    pub fn cut(&self, what: Cut) {
        self.cut.send_replace(what);
    }

    /// Bytes of the server that were lost so far.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Leads one connection until it ends or is cut.
async fn lead(client: TcpStream, server: TcpStream, mut cut: watch::Receiver<Cut>, lost: Arc<AtomicUsize>) {
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
                lost.fetch_add(count, Ordering::Relaxed);
            } else if to_client.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut.wait_for(|cut| *cut == Cut::Connections) => {}
    }
}
