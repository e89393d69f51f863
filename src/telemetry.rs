//! Logs: structured lines of JSON on standard error, filtered by `RUST_LOG`. (The engine's own log is on standard output.)
//!
//! Knows nothing of layers. Fields carry the facts; messages stay constant, so that they can be searched for.

use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: our own words at `info`, the libraries' warnings.
const DEFAULT_FILTER: &str = "warn,redoubt=info";

/// Starts logging; a second call has no effect.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// An error with all its causes on one line, for logs, conditions and events.
pub struct Chain<'error>(pub &'error (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
