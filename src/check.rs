//! Asking an HTTP port, for a test pod that has no other program than this one.
//!
//! Knows HTTP and nothing of what is served.

use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};

/// Time for the answer: what is asked is served from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long [`check_soon`] goes on asking. A name that was asked for before its Service existed is remembered as unknown by
/// cluster DNS for up to 30 s.
const SOON: Duration = Duration::from_secs(40);
/// Between two questions of it.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why the answer is not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No server answered.
    #[error("cannot get {url}")]
    Get {
        url: Uri,
        /// Of the connection; tried again until the time is over.
        source: hyper_util::client::legacy::Error,
    },
    /// No server answered in time.
    #[error("no answer within {ANSWER_WITHIN:?} from {0}")]
    Silent(Uri),
    /// Another answer than 200.
    #[error("{url} answers {status}")]
    Status { url: Uri, status: StatusCode },
}

/// Asks until the answer is 200, for [`SOON`] at most; the last failure otherwise.
pub(crate) async fn check_soon(url: &Uri) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        match check(url).await {
            Err(_) if began.elapsed() < SOON => sleep(RETRY_AFTER).await,
            last => return last,
        }
    }
}

/// Asks once; a success is an answer of 200.
pub(crate) async fn check(url: &Uri) -> Result<(), Error> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = timeout(ANSWER_WITHIN, client.get(url.clone())).await.map_err(|_| Error::Silent(url.clone()))?;
    match answer.map_err(|source| Error::Get { url: url.clone(), source })?.status() {
        StatusCode::OK => Ok(()),
        status => Err(Error::Status { url: url.clone(), status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_port_that_stays_closed_is_a_failure_in_the_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let page = format!("http://{}/", listener.local_addr().unwrap()).parse::<Uri>().unwrap();
        drop(listener);
        let began = Instant::now();
        assert!(check_soon(&page).await.is_err());
        assert!((SOON..SOON + ANSWER_WITHIN).contains(&began.elapsed()));
    }

    #[tokio::test]
    async fn only_an_answer_of_200_is_a_success() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let page = |name: &str| format!("http://{address}/{name}").parse::<Uri>().unwrap();
        assert!(matches!(check(&page("healthz")).await, Err(Error::Get { .. })));
        let serving = tokio::spawn(crate::metrics::serve(Metrics::new().unwrap(), address));
        while let Err(Error::Get { .. }) = check(&page("healthz")).await {
            assert!(!serving.is_finished());
            tokio::task::yield_now().await;
        }
        assert!(check(&page("metrics")).await.is_ok());
        assert!(check_soon(&page("metrics")).await.is_ok());
        let not_yet = check(&page("readyz")).await;
        assert!(matches!(not_yet, Err(Error::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. })), "{not_yet:?}");
    }
}
