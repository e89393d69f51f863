//! When a pass is made, and what follows from its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tracing::{Instrument as _, Span};

use super::context::{Context, Duty};
use super::error::Error;
use super::layer::{self, routing};
use super::publish;
use super::uses::{dedicated, reconcile as use_pass};
use super::watches::{WatchedLayer, WatchedUse};
use crate::failure::Class;
use crate::telemetry::{Chain, span_of_layer, span_of_use};

/// Pause while the watches are still filling after a start: a list takes some 10 ms.
const WATCHES_INCOMPLETE: Duration = Duration::from_millis(50);

/// Pause while the use of a dedicated layer was not looked at yet, if that does not wake the layer before.
const USE_NOT_LOOKED_AT: Duration = Duration::from_secs(2);

/// One pass over one layer.
pub(super) async fn reconcile(watched: Arc<WatchedLayer>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(_turn) = context.turn(watched.meta()).await else { return Ok(Action::await_change()) };
    // It may have changed meanwhile.
    let Some(watched) = context.layers.get(&ObjectRef::from_obj(&*watched)) else { return Ok(Action::await_change()) };
    let object = match &watched.0 {
        Ok(object) => object,
        Err(invalid) => {
            if context.duty == Duty::Lead && context.unreadable.is_news(&invalid.metadata) {
                let meanwhile = "the layer is kept as it was accepted last until it is corrected";
                warn_unreadable(watched.object_ref(&()), &context, &invalid.error, meanwhile).await;
            }
            return Box::pin(go_on_unread(&context, &invalid.metadata)).await;
        }
    };
    if object.metadata.deletion_timestamp.is_some() {
        // Owner references do the rest.
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    if let Err(rest) = context.begin(&object.metadata) {
        return Ok(Action::requeue(rest));
    }
    let object = match context.duty {
        Duty::Lead => dedicated::without_edits(&context, object),
        Duty::Route => Some(Cow::Borrowed(object)),
    };
    let Some(object) = object.as_deref() else { return Ok(Action::requeue(USE_NOT_LOOKED_AT)) };
    let started = Instant::now();
    let span = span_of(&object.metadata);
    // Boxed: so what waits for its turn takes little memory.
    let result = match context.duty {
        Duty::Lead => Box::pin(layer::pass(&context, object).instrument(span)).await,
        Duty::Route => Box::pin(routing::pass(&context, &object.metadata, Some(object)).instrument(span)).await,
    };
    let outcome = result.as_ref().map_or_else(|error| error.class().word(), |_| "ok");
    context.metrics.pass(outcome, started.elapsed());
    Ok(Action::requeue(result?))
}

/// What each line of a pass says of its layer.
fn span_of(metadata: &ObjectMeta) -> Span {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    span_of_layer(&text(&metadata.namespace), &text(&metadata.name))
}

/// A pass over a layer whose object cannot be read: it goes on as it was accepted last.
async fn go_on_unread(context: &Context, metadata: &ObjectMeta) -> Result<Action, Error> {
    if metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    if let Err(rest) = context.begin(metadata) {
        return Ok(Action::requeue(rest));
    }
    if context.duty == Duty::Route {
        let pass = routing::pass(context, metadata, None).instrument(span_of(metadata));
        return Ok(Action::requeue(pass.await?));
    }
    let pass = layer::pass_unreadable(context, metadata).instrument(span_of(metadata));
    Ok(pass.await?.map_or_else(Action::await_change, Action::requeue))
}

/// An object that no longer parses is told of; what runs goes on running.
async fn warn_unreadable(object: ObjectReference, context: &Context, words: &str, meanwhile: &str) {
    tracing::warn!(
        kind = object.kind,
        namespace = object.namespace,
        name = object.name,
        error = words,
        "cannot read the object"
    );
    let note = format!("the stored object cannot be read; {meanwhile}: {words}");
    publish::warn(context, &object, "Unreadable", "Read", &note).await;
}

/// How long a layer is left alone after a failed pass.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's controller calls")]
pub(super) fn after_failure(watched: Arc<WatchedLayer>, error: &Error, context: Arc<Context>) -> Action {
    let pause = context.backoff.failed(&watched.uid().unwrap_or_default(), error.class(), rand::random());
    let (layer, namespace) = (watched.name_any(), watched.namespace().unwrap_or_default());
    if error.class() == Class::Conflict {
        tracing::debug!(layer, namespace, error = %Chain(error), "another writer was faster");
    } else {
        tracing::warn!(layer, namespace, class = error.class().word(), error = %Chain(error), "pass failed");
    }
    Action::requeue(pause)
}

/// One pass over one use.
pub(super) async fn reconcile_use(watched: Arc<WatchedUse>, context: Arc<Context>) -> Result<Action, Error> {
    if context.duty == Duty::Route {
        return Ok(Action::await_change());
    }
    let Some(_turn) = context.use_turn().await else { return Ok(Action::await_change()) };
    let kind = watched.kind();
    let Some(watched) =
        context.declared.get(&kind).and_then(|store| store.get(&ObjectRef::from_obj_with(&*watched, kind)))
    else {
        return Ok(Action::await_change());
    };
    let declared = match &watched.0 {
        Ok(declared) => declared,
        Err(invalid) => {
            if context.unreadable.is_news(&invalid.metadata) {
                let meanwhile =
                    "its layer keeps its user, its policy and its functions as they are until it is corrected";
                warn_unreadable(watched.object_ref(&invalid.kind), &context, &invalid.error, meanwhile).await;
            }
            return Ok(Action::await_change());
        }
    };
    if declared.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    let (namespace, name) = (declared.namespace().unwrap_or_default(), declared.name_any());
    let span = span_of_use(&namespace, declared.kind().words().kind, &name);
    let pause = Box::pin(use_pass::pass(&context, declared).instrument(span)).await?;
    context.backoff.succeeded(&declared.uid().unwrap_or_default());
    Ok(Action::requeue(pause))
}

/// How long a use is left alone after a failed pass.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's controller calls")]
pub(super) fn after_use_failure(watched: Arc<WatchedUse>, error: &Error, context: Arc<Context>) -> Action {
    let pause = context.backoff.failed(&watched.uid().unwrap_or_default(), error.class(), rand::random());
    let (name, namespace) = (watched.name_any(), watched.namespace().unwrap_or_default());
    let (kind, class) = (watched.kind().words().kind, error.class().word());
    tracing::warn!(kind, name, namespace, class, error = %Chain(error), "pass over a use failed");
    Action::requeue(pause)
}
