//! Logs: structured lines of JSON on standard error, filtered by `RUST_LOG`. (The engine's own log is on standard output.)
//!
//! Knows nothing of layers. Fields carry the facts; messages stay constant, so that they can be searched for.

use tracing::{Span, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is logged unless `RUST_LOG` says otherwise: our own words at `info`, the libraries' warnings.
const DEFAULT_FILTER: &str = "warn,redoubt=info";

/// Starts logging; a second call has no effect.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let _ = tracing::subscriber::set_global_default(lines(filter, std::io::stderr));
}

/// What writes the lines. Each has the fields of the span that it is in, under `span`.
fn lines<W>(filter: EnvFilter, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(to)
        .finish()
}

/// The span of the work for one layer: every line in it says for which. It is there at every level, or warnings alone would not.
pub(crate) fn span_of_layer(namespace: &str, layer: &str) -> Span {
    tracing::error_span!("layer", namespace, layer)
}

pub(crate) fn span_of_use(namespace: &str, kind: &str, name: &str) -> Span {
    tracing::error_span!("use", namespace, kind, name)
}

/// An error with all its causes on one line, for logs, conditions and events.
pub(crate) struct Chain<'error>(pub &'error (dyn std::error::Error + 'static));

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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(filter: &str, what: impl FnOnce()) -> Vec<Value> {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(lines(EnvFilter::new(filter), move || writer.clone()), what);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_of_a_step_says_namespace_layer_and_node() {
        let told = lines_of(DEFAULT_FILTER, || {
            span_of_layer("shop", "web").in_scope(|| tracing::info!(step = "RestartPod", node = "redis-1", "step"));
        });
        assert_eq!(told.len(), 1);
        let line = &told[0];
        assert_eq!((&line["span"]["namespace"], &line["span"]["layer"]), (&"shop".into(), &"web".into()), "{line}");
        assert_eq!((&line["step"], &line["node"]), (&"RestartPod".into(), &"redis-1".into()), "{line}");
        assert!(line["spans"].is_null(), "{line}");
    }

    #[test]
    fn a_warning_says_its_layer_where_only_warnings_are_logged() {
        let told = lines_of("warn", || {
            span_of_layer("shop", "web").in_scope(|| {
                tracing::info!("not told");
                tracing::warn!("told");
            });
            span_of_use("shop", "SessionStore", "web").in_scope(|| tracing::warn!("told"));
        });
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|line| line["span"]["namespace"] == "shop" && line["message"] == "told"), "{told:?}");
        assert_eq!(told[1]["span"]["kind"], "SessionStore");
    }
}
