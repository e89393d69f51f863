//! Leadership among the operator's replicas, by a `coordination.k8s.io/v1` Lease.
//!
//! Knows the Lease and nothing of layers. A Lease is coordination, not a lock: what protects a layer from a late step of
//! the loser is that step's own precondition. What this module promises is that the loser has stopped before another may
//! begin: it gives up after [`Timing::renew_deadline`], which is shorter than [`Timing::duration`] by more than
//! [`Timing::stop_grace`], and drops what has not stopped by then before it says another word to the API server. (Dropping
//! kube's controller aborts the passes that it spawned.) A Lease that was lost is left to end by itself.
//!
//! A process without processor time misses its renewals again and again although no other wants the Lease, and all that it began is
//! dropped each time. So after two losses in a row the Lease that it takes lasts longer, until it has been held for a while.
//!
//! Every write is a replace with the `resourceVersion` that was read, so two candidates can never both win. Expiry is
//! measured by this process's own clock from the moment at which it saw the Lease change (clocks of nodes differ), as
//! client-go does.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::failure::{Request, request_within};
use crate::telemetry::Chain;

/// The times of leadership: shorter than client-go's (15 s, 10 s, 2 s), because a layer waits for all but its Services until a
/// new leader is there. With the default that is by about the time that Sentinels need for a node which is lost, detection +
/// 1 s. What it costs is one small write a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease that is not renewed is respected.
    pub duration: Duration,
    /// How long the leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Pause between attempts, and between renewals.
    pub retry: Duration,
    /// How long the loser's work may take to stop in order before it is dropped.
    pub stop_grace: Duration,
}

impl Timing {
    /// Of a Lease that lasts this long: the leader may miss three renewals, and has stopped when five sixths are over.
    pub(crate) fn lasting(duration: Duration) -> Self {
        Self { duration, renew_deadline: duration * 2 / 3, retry: duration / 6, stop_grace: duration / 6 }
    }

    /// The times after this many losses in a row for want of a renewal: twice as long after two, four times after three or more.
    fn after_losses(self, losses: u32) -> Self {
        let times = 1 << losses.saturating_sub(1).min(2);
        Self {
            duration: self.duration * times,
            renew_deadline: self.renew_deadline * times,
            retry: self.retry * times,
            stop_grace: self.stop_grace * times,
        }
    }
}

/// Once no renewal took longer than the usual pause for this long, the losses before it no longer count.
const HELD_WELL: Duration = Duration::from_mins(5);

/// Which Lease, and who we are.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease: the operator's.
    pub namespace: String,
    /// `metadata.name` of the Lease, the same in each replica of the operator.
    pub name: String,
    /// This process: the pod's name and something that differs after a restart of the container.
    pub identity: String,
    /// Duration of the Lease, pause between renewals, and the deadlines.
    pub timing: Timing,
}

/// A Lease as this process last saw it change.
#[derive(Clone, Debug)]
pub(crate) struct ObservedLease {
    pub lease: Lease,
    /// When its content last changed, by our clock.
    pub(crate) changed_at: Instant,
}

/// What a candidate is to do now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// There is no Lease: create it with this specification.
    Create(LeaseSpec),
    /// It is ours, or free, or expired: replace it with this specification.
    Take(LeaseSpec),
    /// Another process holds it; nothing changes before this much time.
    Wait(Duration),
}

/// Decides what `me` does about the Lease. Pure: `now` is the monotonic clock and `wall` what is written down.
pub(crate) fn decide(seen: Option<&ObservedLease>, me: &str, timing: &Timing, now: Instant, wall: Timestamp) -> Action {
    let Some(seen) = seen else { return Action::Create(specification(None, me, timing, wall)) };
    let current = seen.lease.spec.as_ref();
    let holder = current.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let lasts = current
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(timing.duration, Duration::from_secs);
    let expires = seen.changed_at + lasts;
    if holder.is_empty() || holder == me || expires <= now {
        Action::Take(specification(current, me, timing, wall))
    } else {
        Action::Wait(timing.retry.min(expires - now))
    }
}

/// The Lease with us as its holder; a change of holder counts as a transition.
fn specification(current: Option<&LeaseSpec>, me: &str, timing: &Timing, wall: Timestamp) -> LeaseSpec {
    let ours = current.filter(|spec| spec.holder_identity.as_deref() == Some(me));
    let transitions = current.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(timing.duration.as_secs()).ok(),
        acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(wall))),
        renew_time: Some(MicroTime(wall)),
        lease_transitions: Some(if ours.is_some() || current.is_none() { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

/// Told to the work of a leader: it changes to `true` when the work has to stop.
pub(crate) type Stop = watch::Receiver<bool>;

/// Resolves when the work has to stop (also when the sender is gone).
pub async fn stopped(mut stop: Stop) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Leads whenever this process holds the Lease: calls `work` again each time that it becomes leader, and returns when
/// `shutdown` says so and the Lease is released. Whenever it does not hold the Lease it calls `run_standby`, which is dropped
/// before `work` begins: it may do only what is harmless next to a leader.
pub async fn lead<Work, Working, StandBy, StandingBy>(
    client: Client,
    candidate: Candidate,
    shutdown: Stop,
    mut work: Work,
    run_standby: StandBy,
) where
    Work: FnMut(Stop) -> Working,
    Working: Future<Output = ()>,
    StandBy: Fn(Stop) -> StandingBy,
    StandingBy: Future<Output = ()>,
{
    let api = Api::namespaced(client, &candidate.namespace);
    let timing = candidate.timing;
    let mut holder = Holder { api, candidate, timing, losses: 0, seen: None, deadline: Instant::now() };
    let mut pause = Duration::ZERO;
    loop {
        let standing_by = async {
            run_standby(shutdown.clone()).await;
            // Who has nothing to do has not become the leader.
            std::future::pending::<()>().await;
        };
        let is_ours = tokio::select! {
            is_ours = holder.wait(pause, &shutdown) => is_ours,
            () = standing_by => false,
        };
        if !is_ours {
            return;
        }
        info!(identity = holder.candidate.identity, "became the leader");
        holder.hold(&shutdown, &mut work).await;
        // Another may take what was given up.
        pause = holder.timing.retry;
    }
}

/// A sender that is gone has said so too (see [`stopped`]).
fn has_to_stop(shutdown: &Stop) -> bool {
    *shutdown.borrow() || shutdown.has_changed().is_err()
}

/// Why the work of a leader comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ended,
    /// The process is to stop.
    Shutdown,
    /// No renewal succeeded in time.
    Unrenewed,
    /// Another holds the Lease.
    Taken,
}

/// This process's view of the Lease.
struct Holder {
    api: Api<Lease>,
    candidate: Candidate,
    /// The times that hold now.
    timing: Timing,
    /// Losses in a row for want of a renewal.
    losses: u32,
    seen: Option<ObservedLease>,
    /// While it is ours: until when the work goes on without another renewal.
    deadline: Instant,
}

impl Holder {
    /// Tries after `pause`, and again and again, until the Lease is ours. `false`: `shutdown` came first.
    async fn wait(&mut self, mut pause: Duration, shutdown: &Stop) -> bool {
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = stopped(shutdown.clone()) => {}
            }
            if has_to_stop(shutdown) {
                return false;
            }
            pause = match self.attempt().await {
                Ok(None) => return true,
                Ok(Some(pause)) => pause,
                Err(error) => {
                    warn!(error = %Chain(&error), "cannot become the leader");
                    self.timing.retry
                }
            };
        }
    }

    /// Reads the Lease and takes it if that is right. `None`: it is ours now.
    async fn attempt(&mut self) -> Result<Option<Duration>, Request> {
        // Counted from before the request: the server may have written long before its answer arrives.
        let asked_at = Instant::now();
        self.read().await?;
        let timing = self.timing;
        match decide(self.seen.as_ref(), &self.candidate.identity, &timing, Instant::now(), Timestamp::now()) {
            Action::Wait(pause) => Ok(Some(pause)),
            Action::Create(spec) | Action::Take(spec) => {
                self.write(spec).await?;
                self.deadline = asked_at + timing.renew_deadline;
                Ok(None)
            }
        }
    }

    /// Does the work while renewing; returns when the Lease is lost or `shutdown` is asked for, with the work ended.
    async fn hold<Work, Working>(&mut self, shutdown: &Stop, work: &mut Work)
    where
        Work: FnMut(Stop) -> Working,
        Working: Future<Output = ()>,
    {
        let (stop, stopping) = watch::channel(false);
        let mut working = Box::pin(work(stopping));
        let end = tokio::select! {
            biased;
            () = stopped(shutdown.clone()) => End::Shutdown,
            end = self.renew_until_lost() => end,
            () = &mut working => End::Ended,
        };
        stop.send_replace(true);
        let grace = self.timing.stop_grace;
        // A process that was suspended has no grace left.
        let limit = match end {
            End::Taken => Instant::now(),
            End::Ended | End::Shutdown | End::Unrenewed => (Instant::now() + grace).min(self.deadline + grace),
        };
        if end != End::Ended && timeout_at(limit, &mut working).await.is_err() {
            // Dropping the work cancels it at its next await: at most one request is still on its way.
            warn!("the work did not stop in time and was dropped");
        }
        // Before the next request: it may take longer than the rest of the Lease.
        drop(working);
        match end {
            End::Ended | End::Shutdown => self.release().await,
            End::Unrenewed | End::Taken => warn!(end = ?end, "lost the leadership"),
        }
        if end == End::Unrenewed {
            self.count_losses(self.losses.saturating_add(1));
        }
    }

    fn count_losses(&mut self, losses: u32) {
        self.losses = losses;
        self.timing = self.candidate.timing.after_losses(losses);
    }

    /// Renews; returns once no renewal has succeeded until the deadline, or another process holds the Lease.
    async fn renew_until_lost(&mut self) -> End {
        let mut slow = Instant::now();
        loop {
            if self.losses > 0 && slow.elapsed() >= HELD_WELL {
                self.count_losses(0);
            }
            let deadline = self.deadline;
            sleep_until(deadline.min(Instant::now() + self.timing.retry)).await;
            let asked = Instant::now();
            tokio::select! {
                () = sleep_until(deadline) => return End::Unrenewed,
                attempt = self.attempt() => match attempt {
                    Ok(None) => {}
                    Ok(Some(_)) => return End::Taken,
                    Err(error) => warn!(error = %Chain(&error), "cannot renew the leadership"),
                },
            }
            if asked.elapsed() > self.candidate.timing.retry {
                slow = Instant::now();
            }
        }
    }

    /// Gives the Lease free, so that another needs not wait for its end. Best effort.
    async fn release(&mut self) {
        let me = Some(self.candidate.identity.as_str());
        let ours = self.seen.as_ref().and_then(|seen| seen.lease.spec.clone());
        let Some(mut spec) = ours.filter(|spec| spec.holder_identity.as_deref() == me) else { return };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.write(spec).await {
            warn!(lease = %self.candidate.name, error = %Chain(&error), "cannot release the Lease");
        }
    }

    async fn read(&mut self) -> Result<(), Request> {
        let name = self.candidate.name.clone();
        let found = self.call("read", self.api.get_opt(&name)).await?;
        let now = Instant::now();
        self.seen = found.map(|lease| match self.seen.take() {
            // An edit of its metadata does not prolong it.
            Some(seen) if seen.lease.spec == lease.spec => ObservedLease { lease, ..seen },
            _ => ObservedLease { lease, changed_at: now },
        });
        Ok(())
    }

    async fn write(&mut self, spec: LeaseSpec) -> Result<(), Request> {
        let name = self.candidate.name.clone();
        let parameters = PostParams::default();
        let written = if let Some(seen) = &self.seen {
            let lease = Lease { metadata: seen.lease.metadata.clone(), spec: Some(spec) };
            self.call("replace", self.api.replace(&name, &parameters, &lease)).await?
        } else {
            let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
            self.call("create", self.api.create(&parameters, &Lease { metadata, spec: Some(spec) })).await?
        };
        self.seen = Some(ObservedLease { lease: written, changed_at: Instant::now() });
        Ok(())
    }

    /// One request may take no longer than half of the deadline, so that a second one fits.
    async fn call<T>(
        &self,
        verb: &'static str,
        doing: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Request> {
        let object = format!("Lease {}/{}", self.candidate.namespace, self.candidate.name);
        request_within(self.timing.renew_deadline / 2, verb, &object, doing).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, age: Duration, now: Instant) -> ObservedLease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        };
        ObservedLease {
            lease: Lease { spec: Some(spec), ..Lease::default() },
            changed_at: now.checked_sub(age).unwrap(),
        }
    }

    fn decided(seen: Option<&ObservedLease>, now: Instant) -> Action {
        decide(seen, "me", &Timing::lasting(Duration::from_secs(15)), now, Timestamp::UNIX_EPOCH)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(1000)
    }

    #[test]
    fn a_missing_lease_is_created_with_us_as_holder() {
        let Action::Create(spec) = decided(None, later()) else { panic!("not created") };
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(15), Some(0)));
    }

    #[test]
    fn anothers_lease_is_respected_until_it_ends_by_our_own_clock() {
        let now = later();
        let fresh = seen("other", Duration::from_secs(14), now);
        assert_eq!(decided(Some(&fresh), now), Action::Wait(Duration::from_secs(1)));
        let expired = seen("other", Duration::from_secs(15), now);
        let Action::Take(spec) = decided(Some(&expired), now) else { panic!("not taken") };
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("me"), Some(5)));
    }

    #[test]
    fn our_own_lease_is_renewed_without_a_transition() {
        let now = later();
        let ours = seen("me", Duration::from_secs(3), now);
        let Action::Take(spec) = decided(Some(&ours), now) else { panic!("not renewed") };
        assert_eq!(spec.lease_transitions, Some(4));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let now = later();
        assert!(matches!(decided(Some(&seen("", Duration::ZERO, now)), now), Action::Take(_)));
    }

    #[test]
    fn the_loser_has_stopped_before_the_lease_ends() {
        for seconds in 3..=60 {
            let timing = Timing::lasting(Duration::from_secs(seconds));
            assert!(timing.renew_deadline + timing.stop_grace < timing.duration, "{timing:?}");
            assert!(3 * timing.retry <= timing.renew_deadline, "two renewals may fail: {timing:?}");
        }
    }
}
