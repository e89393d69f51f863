//! What a test does to the requests of one client: its API server is slow, cut off, or answers with an error; its watches end; it
//! gets no answer after its n-th write.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Method, Request, Response};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are served.
    None,
    /// They are served after this time.
    Slow(Duration),
    /// No connection comes about.
    Cut,
    /// They are answered with this HTTP status: 409 only what writes, each other one all.
    Answers(u16),
}

#[derive(Debug)]
struct State {
    fault: watch::Sender<Fault>,
    /// Counts how often all watches were ended.
    ended: watch::Sender<usize>,
    requests: AtomicUsize,
    writes: AtomicUsize,
    changes: AtomicUsize,
    /// Writes after which no request is answered.
    last_write: AtomicUsize,
    /// End of the paths of which nothing can be read.
    unreadable: Mutex<Option<String>>,
    /// End of the paths at which each write is served after this time.
    delayed: Mutex<Option<(String, Duration)>>,
    /// End of the paths at which the answer to each write arrives this time after it was served.
    late: Mutex<Option<(String, Duration)>>,
}

/// The faults of one client. Clones are the same.
#[derive(Clone, Debug)]
pub struct Faults(Arc<State>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(State {
            fault: watch::channel(Fault::None).0,
            ended: watch::channel(0).0,
            requests: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            last_write: AtomicUsize::new(usize::MAX),
            unreadable: Mutex::default(),
            delayed: Mutex::default(),
            late: Mutex::default(),
        }))
    }
}

impl Faults {
    /// No request is answered after the `n`-th write.
    pub fn ending_after(n: usize) -> Self {
        let faults = Self::default();
        faults.0.last_write.store(n, Ordering::SeqCst);
        faults
    }

    /// Requests that begin from now on meet this.
    pub fn set(&self, fault: Fault) {
        self.0.fault.send_replace(fault);
    }

    /// Objects whose path ends so cannot be read from now on; `None`: all can.
    pub fn refuse_reads(&self, path: Option<&str>) {
        *self.0.unreadable.lock().unwrap() = path.map(str::to_owned);
    }

    /// What writes objects whose path ends so is served after this time from now on.
    pub fn delay_writes(&self, path: &str, delay: Duration) {
        *self.0.delayed.lock().unwrap() = Some((path.to_owned(), delay));
    }

    /// What writes objects whose path ends so is served, and answered this time later from now on.
    pub fn delay_answers(&self, path: &str, delay: Duration) {
        *self.0.late.lock().unwrap() = Some((path.to_owned(), delay));
    }

    /// Ends every watch that is open.
    pub fn end_watches(&self) {
        self.0.ended.send_modify(|count| *count += 1);
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Requests so far that write, events and Leases left out.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// Requests so far that change something: as [`Self::writes`], and what only reports in a status left out.
    pub fn changes(&self) -> usize {
        self.0.changes.load(Ordering::SeqCst)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }
}

/// A client's service with faults.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

/// Body of an answer.
pub type AnswerBody = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>>;

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error = BoxError> + Send + Unpin + 'static,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.faults.0);
        let path = request.uri().path().to_owned();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let is_write = *request.method() != Method::GET && !path.contains("/leases") && !path.contains("/events");
        state.requests.fetch_add(1, Ordering::SeqCst);
        if is_write && !path.ends_with("/status") {
            state.changes.fetch_add(1, Ordering::SeqCst);
        }
        let before =
            if is_write { state.writes.fetch_add(1, Ordering::SeqCst) } else { state.writes.load(Ordering::SeqCst) };
        if before >= state.last_write.load(Ordering::SeqCst) {
            return futures::future::pending().boxed();
        }
        let unreadable = state.unreadable.lock().unwrap().clone();
        if *request.method() == Method::GET && unreadable.is_some_and(|end| path.ends_with(&end)) {
            return async { Ok(failure(500)) }.boxed();
        }
        let fault = *state.fault.borrow();
        match fault {
            Fault::Cut => return async { Err("the API server is cut off".into()) }.boxed(),
            Fault::Answers(code) if code != 409 || is_write => return async move { Ok(failure(code)) }.boxed(),
            Fault::None | Fault::Slow(_) | Fault::Answers(_) => {}
        }
        let of_path = |delay: &Mutex<Option<(String, Duration)>>| {
            delay.lock().unwrap().clone().filter(|(end, _)| is_write && path.ends_with(end))
        };
        let (delayed, late) = (of_path(&state.delayed), of_path(&state.late));
        let answer = self.inner.call(request);
        async move {
            if let Fault::Slow(delay) = fault {
                tokio::time::sleep(delay).await;
            }
            if let Some((_, delay)) = delayed {
                tokio::time::sleep(delay).await;
            }
            let mut ended = state.ended.subscribe();
            let answered = answer.await?;
            if let Some((_, delay)) = late {
                tokio::time::sleep(delay).await;
            }
            let (parts, body) = answered.into_parts();
            let frames = BodyStream::new(body);
            let frames = if is_watch {
                frames.take_until(async move { ended.changed().await.ok() }).boxed()
            } else {
                frames.boxed()
            };
            Ok(Response::from_parts(parts, StreamBody::new(frames)))
        }
        .boxed()
    }
}

fn failure(code: u16) -> Response<AnswerBody> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "Injected", "message": format!("a fault of the test: {code}"),
    });
    let frame = Ok(Frame::data(Bytes::from(status.to_string())));
    let body = StreamBody::new(futures::stream::iter([frame]).boxed());
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
