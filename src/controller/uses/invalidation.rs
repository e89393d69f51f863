//! Keys of a cache that a person wants gone: asked for by an annotation, handed to the functions as a job that the agent of the primary
//! carries out.

use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::observation::LayerPass;
use super::served::ServedUse;
use crate::api::names::ANNOTATION_INVALIDATE_PREFIX;
use crate::api::use_status::{InvalidationState, InvalidationStatus};
use crate::build::revision;
use crate::model::prefix_job::{JobState, LONGEST_BEGINNING, PrefixJob};
use crate::redis::{Connection, prefix_jobs};
use crate::telemetry::Chain;

impl ServedUse {
    /// What the annotation asks for and how far that is; `None`: it asks for nothing.
    pub(super) async fn invalidation(&self, context: &Context, pass: LayerPass<'_>) -> Option<InvalidationStatus> {
        let policy = &self.accepted().policy;
        policy.channel()?;
        let object = self.object()?;
        let beginning = object.annotations().get(ANNOTATION_INVALIDATE_PREFIX)?;
        let told = object.status.as_ref().and_then(|status| status.invalidation.clone());
        let told = told.filter(|told| told.beginning == *beginning);
        if told.as_ref().is_some_and(|told| told.state == InvalidationState::Done) {
            return told;
        }
        if !beginning.starts_with(policy.prefix()) || beginning.len() > LONGEST_BEGINNING {
            return Some(InvalidationStatus::of(beginning, None, InvalidationState::Refused, 0));
        }
        let is_loaded = self.is_loaded(context, pass, &revision::digest(&policy.json()));
        let connection = pass.primary.and_then(|node| pass.seen.connections.get(&node));
        let connection = connection.filter(|_| is_loaded && !pass.desired.paused);
        let Some(connection) = connection else {
            return told.or_else(|| Some(InvalidationStatus::of(beginning, None, InvalidationState::Waiting, 0)));
        };
        match ask_or_read(connection, policy.prefix(), beginning, told.as_ref()).await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(name = policy.owner(), error = %Chain(&error), "what is to be invalidated is asked for again");
                told.or_else(|| Some(InvalidationStatus::of(beginning, None, InvalidationState::Waiting, 0)))
            }
        }
    }
}

/// How far the job is that was asked for before. One that is lost, because the primary changed before it was replicated, is asked for
/// again: it removes nothing twice.
async fn ask_or_read(
    connection: &Connection,
    prefix: &str,
    beginning: &str,
    told: Option<&InvalidationStatus>,
) -> crate::redis::Result<InvalidationStatus> {
    let Some((told, id)) = told.and_then(|told| Some((told, told.job.as_ref()?))) else {
        let id = prefix_jobs::ask(connection, prefix, beginning).await?;
        return Ok(InvalidationStatus::of(beginning, Some(id), InvalidationState::Waiting, 0));
    };
    match prefix_jobs::read(connection, prefix, id).await? {
        Some(job) => Ok(so_far(told, &job)),
        None => Ok(after_loss(told, prefix_jobs::ask(connection, prefix, beginning).await?)),
    }
}

/// What is told of a job that the primary has.
fn so_far(told: &InvalidationStatus, job: &PrefixJob) -> InvalidationStatus {
    let state = match job.state {
        JobState::Waiting => InvalidationState::Waiting,
        JobState::Running => InvalidationState::Running,
        JobState::Done => InvalidationState::Done,
    };
    InvalidationStatus { state, removed: i64::try_from(job.removed).unwrap_or(i64::MAX), ..told.clone() }
}

/// What is told once a job that was lost was asked for again under this id.
fn after_loss(told: &InvalidationStatus, id: String) -> InvalidationStatus {
    let lost = Some(told.lost.unwrap_or_default().saturating_add(1));
    InvalidationStatus { lost, ..InvalidationStatus::of(&told.beginning, Some(id), InvalidationState::Waiting, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_runs_is_reported_and_one_that_was_lost_is_counted_until_the_end() {
        let job = |state, removed| PrefixJob { state, removed, beginning: b"web:{0}".to_vec() };
        let asked = InvalidationStatus::of("web:{0}", Some("7".to_owned()), InvalidationState::Waiting, 0);
        let running = so_far(&asked, &job(JobState::Running, 512));
        assert_eq!((running.state, running.removed, running.lost), (InvalidationState::Running, 512, None));
        let again = after_loss(&running, "8".to_owned());
        assert_eq!((again.state, again.removed, again.lost), (InvalidationState::Waiting, 0, Some(1)));
        assert_eq!((again.beginning.as_str(), again.job.as_deref()), ("web:{0}", Some("8")));
        let again = after_loss(&so_far(&again, &job(JobState::Running, 3)), "9".to_owned());
        let done = so_far(&again, &job(JobState::Done, 600));
        assert_eq!((done.state, done.removed, done.lost), (InvalidationState::Done, 600, Some(2)));
    }
}
