//! What to make of an error: one word that drives the retry and labels the metric.
//!
//! Knows Kubernetes' answers and nothing of layers. It is a support module: `observe`, `act` and `controller` share it.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

/// How long one request to the Kubernetes API may take; an API server that needs longer is as good as absent, and the pass
/// is repeated anyway.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Classes of errors, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Goes away by itself: repeat with growing pauses.
    Transient,
    /// Another process was faster: look again soon.
    Conflict,
    /// The object is wrong: nothing helps until it is changed.
    Invalid,
    /// We lack a right, or a policy forbids it: repeat slowly.
    Forbidden,
    /// We did something that cannot be right.
    Bug,
}

impl Class {
    /// The class as a metric label.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::Bug => "bug",
        }
    }
}

/// What a request met. The API server's answer is one sentence: its words, without the object that they came in.
#[derive(Debug)]
pub struct Answer(pub kube::Error);

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            kube::Error::Api(status) if !status.message.is_empty() => formatter.write_str(&status.message),
            other => other.fmt(formatter),
        }
    }
}

impl std::error::Error for Answer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            kube::Error::Api(_) => None,
            other => other.source(),
        }
    }
}

/// A request to the Kubernetes API that failed.
#[derive(Debug, thiserror::Error)]
pub enum Request {
    /// The API server answered with an error, or could not be reached.
    #[error("cannot {verb} {object}")]
    Failed {
        /// What we wanted to do.
        verb: &'static str,
        /// Kind, namespace and name.
        object: String,
        /// Status of the API server, or the error of the connection.
        source: Box<Answer>,
    },
    /// It did not answer in time.
    #[error("no answer within {limit:?} to: {verb} {object}")]
    Timeout {
        /// How long it had.
        limit: Duration,
        /// What we wanted to do.
        verb: &'static str,
        /// Kind, namespace and name.
        object: String,
    },
}

impl Request {
    /// What to make of it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Failed { source, .. } => match &source.0 {
                kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Class::Conflict,
                kube::Error::Api(status) if status.is_forbidden() => Class::Forbidden,
                kube::Error::Api(status) if status.is_invalid() || status.code == 400 => Class::Invalid,
                kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Bug,
                _ => Class::Transient,
            },
            Self::Timeout { .. } => Class::Transient,
        }
    }

    /// Whether the object was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if matches!(&source.0, kube::Error::Api(status) if status.is_not_found()))
    }
}

/// Does one request with a limit on its time.
pub(crate) async fn request<T>(
    verb: &'static str,
    object: &str,
    doing: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Request> {
    request_within(REQUEST_LIMIT, verb, object, doing).await
}

/// The same with another limit.
pub(crate) async fn request_within<T>(
    limit: Duration,
    verb: &'static str,
    object: &str,
    doing: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Request> {
    match timeout(limit, doing).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Request::Failed { verb, object: object.to_owned(), source: Box::new(Answer(source)) }),
        Err(_) => Err(Request::Timeout { limit, verb, object: object.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16, reason: &str) -> Request {
        let status = Status::failure("no", reason).with_code(code);
        Request::Failed {
            verb: "apply",
            object: "Service a/b".to_owned(),
            source: Box::new(Answer(kube::Error::Api(status.boxed()))),
        }
    }

    #[test]
    fn an_answer_is_reported_in_its_own_words() {
        assert_eq!(crate::telemetry::Chain(&answered(422, "Invalid")).to_string(), "cannot apply Service a/b: no");
    }

    #[test]
    fn answers_are_sorted_by_what_helps() {
        assert_eq!(answered(409, "Conflict").class(), Class::Conflict);
        assert_eq!(answered(403, "Forbidden").class(), Class::Forbidden);
        assert_eq!(answered(422, "Invalid").class(), Class::Invalid);
        assert_eq!(answered(503, "ServiceUnavailable").class(), Class::Transient);
        assert_eq!(answered(500, "InternalError").class(), Class::Transient);
    }
}
