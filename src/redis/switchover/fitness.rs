//! Who may act in a planned move, and who may take over: asked of the servers just before it begins.

use tokio::time::{Instant, sleep};

use super::request::{Candidate, Error, POLL_EVERY, SEEN_WITHIN, Step, Switchover};
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Role};
use crate::redis::connection::{Connection, Endpoint};
use crate::redis::error::Error as CommandError;
use crate::redis::{info_window, sentinel, server};

/// The replicas that are online and linked, of which one at least is electable. One that is not yet, right after its full sync,
/// catches up and is pointed to the new primary like the others. One that answers but is not fit gets priority 0, so that the
/// Sentinels pass it over.
pub(super) async fn fit_candidates(
    request: &Switchover,
    from: &Connection,
    watch: &impl AsyncFn(Step),
) -> Result<Vec<Candidate>, Error> {
    let info = server::replication(from).await?;
    if info.role() != Some(Role::Primary) {
        return Err(Error::NotPrimary(request.from.0.clone()));
    }
    let online: Vec<Address> =
        info.replicas().into_iter().filter(|replica| replica.online).map(|replica| replica.address).collect();
    let (mut fit, mut is_one_electable) = (Vec::new(), false);
    for (address, endpoint) in &request.others {
        let Ok(connection) = Connection::open(endpoint).await else { continue };
        let Ok(info) = server::replication(&connection).await else { continue };
        let stays = online.contains(address) && !request.terminating.contains(address);
        let link = info.primary_link().filter(|link| stays && link.up && !link.syncing);
        if let Some(link) = link {
            let is_passed_over = request.to.as_ref().is_some_and(|to| to != address);
            is_one_electable |= link.priority > 0 && !is_passed_over;
            fit.push(Candidate { address: address.clone(), endpoint: endpoint.clone(), connection, is_passed_over });
        } else {
            match server::config_set(&connection, "replica-priority", "0").await {
                Ok(()) => watch(Step::UnfitMarked(address.clone())).await,
                // A Sentinel that might elect it all the same is not told to act: see `objection`.
                Err(error) => tracing::warn!(replica = %address, %error, "not marked as unfit"),
            }
        }
    }
    if !is_one_electable {
        return Err(Error::NoFitReplica(request.from.0.clone()));
    }
    Ok(fit)
}

/// A Sentinel that sees the primary where it is, healthy, with no failover under way, and that would elect no replica but
/// the fit ones.
pub(super) async fn fit_sentinel(
    request: &Switchover,
    candidates: &[Candidate],
    watch: &impl AsyncFn(Step),
) -> Result<Connection, Error> {
    let (mut reasons, mut asked, mut newest_epoch) = (Vec::new(), Vec::new(), 0);
    for endpoint in &request.sentinels {
        match ask(request, endpoint).await {
            Ok((connection, epoch)) => {
                newest_epoch = newest_epoch.max(epoch);
                asked.push((endpoint, connection));
            }
            Err(Unfit::FailsOver) => return Err(Error::FailoverUnderWay(endpoint.name())),
            Err(Unfit::Silent) => reasons.push(format!("{} is silent", endpoint.name())),
        }
    }
    for (endpoint, connection) in asked {
        match objection_after_a_poll(request, candidates, newest_epoch, &connection, watch).await {
            Ok(None) => return Ok(connection),
            Ok(Some(Objection::OfItself(reason) | Objection::OfReplicas(reason))) => {
                reasons.push(format!("{} {reason}", endpoint.name()));
            }
            // Where a Kubernetes node is drained, a Sentinel on it ends while its primary looks for one: there are others.
            Err(error) => reasons.push(format!("{} ended while it was asked ({error})", endpoint.name())),
        }
    }
    Err(Error::NoFitSentinel(reasons.join(", ")))
}

/// As [`objection`]; a Sentinel that objects to a replica is made to look at it now, since what it saw last may be old. What keeps a
/// replica from being elected that another is preferred to is set before each poll, because its agent undoes it.
async fn objection_after_a_poll(
    request: &Switchover,
    candidates: &[Candidate],
    newest_epoch: u64,
    connection: &Connection,
    watch: &impl AsyncFn(Step),
) -> Result<Option<Objection>, CommandError> {
    let asked_at = Instant::now();
    let mut paced = false;
    let objection = loop {
        for address in pass_over(candidates).await {
            watch(Step::PassedOver(address)).await;
        }
        match objection(request, candidates, newest_epoch, connection).await {
            Ok(Some(Objection::OfReplicas(_))) if asked_at.elapsed() < SEEN_WITHIN => {
                if !paced && sentinel::set_info_period(connection, info_window::EACH_TICK).await.is_ok() {
                    paced = true;
                    watch(Step::InfoPaced).await;
                }
                sleep(POLL_EVERY).await;
            }
            other => break other,
        }
    };
    if paced {
        // It would find every replica unfit a moment later: see `info_window`.
        sentinel::set_info_period(connection, info_window::PERIOD).await?;
    }
    objection
}

/// Keeps the Sentinels from electing replicas that another is preferred to, until their agents undo it; those that took it.
pub(super) async fn pass_over(candidates: &[Candidate]) -> Vec<Address> {
    let mut passed_over = Vec::new();
    for candidate in candidates.iter().filter(|candidate| candidate.is_passed_over) {
        match server::config_set(&candidate.connection, "replica-priority", "0").await {
            Ok(()) => passed_over.push(candidate.address.clone()),
            Err(error) => tracing::warn!(replica = %candidate.address, %error, "not passed over"),
        }
    }
    passed_over
}

/// A Sentinel that is not asked any further.
enum Unfit {
    /// It fails over: another order would get the epoch of that failover, and of two promotions with one epoch each is believed
    /// by those that heard of it first.
    FailsOver,
    Silent,
}

/// Opens a connection and asks what the newest knowledge of this Sentinel is; 0: it watches nothing.
async fn ask(request: &Switchover, endpoint: &Endpoint) -> Result<(Connection, u64), Unfit> {
    let connection = Connection::open(endpoint).await.map_err(|_| Unfit::Silent)?;
    let master = sentinel::master(&connection, &request.master_name).await.map_err(|_| Unfit::Silent)?;
    if master.as_ref().is_some_and(SentinelMaster::is_failing_over) {
        return Err(Unfit::FailsOver);
    }
    Ok((connection, master.map_or(0, |master| master.config_epoch)))
}

/// Why a Sentinel should not act.
enum Objection {
    /// For what it is or believes.
    OfItself(String),
    /// For what it saw of the replicas, which its next `INFO` may change.
    OfReplicas(String),
}

/// Why this Sentinel should not act; `None`: it may.
async fn objection(
    request: &Switchover,
    candidates: &[Candidate],
    newest_epoch: u64,
    connection: &Connection,
) -> Result<Option<Objection>, CommandError> {
    let of_itself = |reason: String| Ok(Some(Objection::OfItself(reason)));
    let of_replicas = |reason: String| Ok(Some(Objection::OfReplicas(reason)));
    if sentinel::is_in_tilt(connection).await? {
        return of_itself("is in TILT".to_owned());
    }
    let Some(master) = sentinel::master(connection, &request.master_name).await? else {
        return of_itself("monitors nothing".to_owned());
    };
    if master.address != request.from.0 {
        return of_itself(format!("names {}", master.address));
    }
    if master.config_epoch < newest_epoch {
        return of_itself("has not heard of the last failover".to_owned());
    }
    if let Some(flag) = master.trouble() {
        return of_itself(format!("says {flag}"));
    }
    let electable = sentinel::electable_replicas(connection, &request.master_name).await?;
    let may_lead = |address: &Address| {
        candidates.iter().any(|candidate| candidate.address == *address && !candidate.is_passed_over)
    };
    if let Some(address) = electable.iter().find(|address| !may_lead(address)) {
        return of_replicas(format!("might elect {address}, which is not to take over"));
    }
    if electable.is_empty() {
        return of_replicas("knows no fit replica yet".to_owned());
    }
    Ok(None)
}
