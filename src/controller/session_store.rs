//! One pass over one session store: its dedicated layer, and what is told of it while no layer serves it. All else is done by
//! its layer's pass ([`super::uses`]), so each part of the status has one writer at a time.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::Api;

use super::context::Context;
use super::data_layer::Error;
use super::publish;
use crate::act::Ending;
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::session_store::SessionStore;
use crate::api::session_store_status::LayerReference;
use crate::build::session_store::dedicated_layer;
use crate::failure::{Class, request};
use crate::report::session_store::{pending, refused};
use crate::validate::session_store::{Refusal, admit, is_dedicated, layer_of, validate};

/// Pause while a layer serves the store, or somebody has to change something: what that depends on wakes us.
const AT_REST: Duration = Duration::from_mins(5);
/// Pause while the layer is being made.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Pause while somebody else's object is in the way, which no watch shows.
const REFUSED: Duration = Duration::from_secs(15);

/// Makes one pass; answers how long to wait for the next.
pub async fn pass(context: &Context, store: &SessionStore) -> Result<Duration, Error> {
    let (namespace, name) = layer_of(store);
    if context.is_unreadable(&namespace, &name) {
        return Ok(AT_REST);
    }
    // More replicas than any layer has: whether they are enough, its layer says.
    if let Err(faults) = validate(store, u16::MAX) {
        let message = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return refuse(context, store, &Refusal { reason: "Invalid", message }).await;
    }
    let found = context.layer(&namespace, &name);
    let uid = store.uid().unwrap_or_default();
    if is_dedicated(store)
        && let Err(error) = context.writer.apply(&dedicated_layer(store), found.as_ref()).await
    {
        let ending = Ending::of(&error);
        let message = ending.detail().to_owned();
        return match (&ending, error.class()) {
            (Ending::NameTaken(_), _) => refuse(context, store, &Refusal { reason: "NameTaken", message }).await,
            // What the API server says of `dedicated` is the answer to whoever wrote it. A layer that is there runs on.
            (_, Class::Invalid) if found.is_none() => {
                refuse(context, store, &Refusal { reason: "LayerRefused", message }).await
            }
            (_, Class::Invalid) => {
                context.uses.layer_change(&uid, Some(message));
                Ok(REFUSED)
            }
            _ => Err(Error::Act(error)),
        };
    }
    context.uses.layer_change(&uid, None);
    let reference = || LayerReference { namespace: namespace.clone(), name: name.clone() };
    let Some(layer) = found.filter(|layer| layer.metadata.deletion_timestamp.is_none()) else {
        if is_dedicated(store) {
            let generation = store.metadata.generation.unwrap_or_default();
            let status = pending(generation, reference(), &store.status.clone().unwrap_or_default(), publish::now());
            publish::publish_store(context, store, &status).await?;
            return Ok(UNDER_WAY);
        }
        let message =
            format!("there is no DataLayer {namespace}/{name}: create it, or leave layer out for one of your own");
        return refuse(context, store, &Refusal { reason: "LayerNotFound", message }).await;
    };
    match refusal_of(context, store, &layer) {
        Some(refusal) => refuse(context, store, &refusal).await,
        None => Ok(AT_REST),
    }
}

/// Why the layer does not serve the store; `None`: it does.
fn refusal_of(context: &Context, store: &SessionStore, layer: &DataLayer) -> Option<Refusal> {
    let labels = |namespace: &str| context.labels_of(namespace);
    let watched = context.session_stores.state();
    let mut admissions = admit(layer, watched.iter().filter_map(|store| store.0.as_ref().ok()), &labels);
    admissions.refused.remove(&store.uid()?)
}

/// Takes the binding away and says why.
async fn refuse(context: &Context, store: &SessionStore, refusal: &Refusal) -> Result<Duration, Error> {
    let (namespace, uid) = (store.namespace().unwrap_or_default(), store.uid().unwrap_or_default());
    let name = names::session_binding(&store.name_any());
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let found = request("read", &format!("Secret {namespace}/{name}"), api.get_opt(&name)).await?;
    if let Some(secret) = found
        && secret.owner_references().iter().any(|owner| owner.uid == uid)
    {
        context.writer.delete::<Secret>(&namespace, &name, secret.uid().as_deref()).await.map_err(Error::Act)?;
    }
    context.uses.forget_binding(&uid);
    let generation = store.metadata.generation.unwrap_or_default();
    let old = store.status.clone().unwrap_or_default();
    let status = refused(generation, refusal.reason, &refusal.message, None, &old, publish::now());
    publish::publish_store(context, store, &status).await?;
    Ok(REFUSED)
}
