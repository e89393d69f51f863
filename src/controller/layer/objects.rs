//! The objects that need no order: Secrets, Services of roles, disruption budgets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::super::context::Context;
use super::build::LayerBuild;
use super::facts::{AcceptedLayer, LayerFacts};
use super::specification;
use crate::act::kube::Object;
use crate::act::{self, Applied, StepOutcome};
use crate::api::names;
use crate::failure::Class;
use crate::model::NodeId;
use crate::plan::{Plan, Step};
use crate::report::StepFailure;

/// Applies the objects that need no order. One that fails stops no other.
pub(super) async fn apply_static(
    context: &Context,
    facts: &LayerFacts,
    accepted: &AcceptedLayer,
    build: &LayerBuild,
    plan: &Plan,
) -> Vec<StepFailure> {
    let (objects, children, secrets) = (&build.built, &facts.children, &facts.secrets);
    let mut undone = Vec::new();
    let uid_of = |secret: &Secret| secret.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default();
    for secret in &objects.secrets {
        let mut secret = secret.clone();
        if let Some(key) = context.passwords.root_key_of(&uid_of(&secret), &build.passwords) {
            secret.annotations_mut().insert(names::ANNOTATION_ROOT_KEY.to_owned(), key);
        }
        if secret.name_any() == names::system_secret(&accepted.layer.identity.name) {
            let text = specification::text(&accepted.object.spec);
            secret.annotations_mut().insert(names::ANNOTATION_ACCEPTED_SPECIFICATION.to_owned(), text);
        }
        let applied = context.secrets.apply(&context.writer, &secret, secrets.live(&secret.name_any())).await;
        if let Err(error) = applied {
            undone.extend(not_done(None, &StepOutcome::of(&error)));
        }
    }
    let layer = &accepted.layer;
    let bindings =
        [(&secrets.application, layer.application_access), (&secrets.administrator, layer.administrator.is_some())];
    for binding in bindings.into_iter().filter(|(_, is_wanted)| !is_wanted).filter_map(|(binding, _)| binding.as_ref())
    {
        undone.extend(remove_binding(context, accepted, binding).await);
    }
    // Every replica of the operator points the primary's Service (see `routing`), which is a step.
    let is_pointed = plan.steps.iter().any(|step| matches!(step, Step::PointService { .. }));
    for service in (!is_pointed).then_some(&objects.primary_service).into_iter().chain(&objects.services) {
        let live = children.services.get(&service.name_any()).map(Arc::as_ref);
        undone.extend(ended(context.writer.apply_as_seen(service, live).await));
    }
    // Services without an address yet are the planner's to order.
    let addressed = |node: &NodeId| facts.observed.nodes.get(node).is_some_and(|seen| seen.address.is_some());
    let nodes = objects.node_services.iter().filter(|(node, _)| addressed(node)).map(|(_, service)| service);
    for service in nodes {
        undone.extend(apply(context, service, children.services.get(&service.name_any()).map(Arc::as_ref)).await);
    }
    for budget in &objects.budgets {
        undone.extend(apply(context, budget, children.budgets.get(&budget.name_any()).map(Arc::as_ref)).await);
    }
    undone
}

/// Removes the binding of a user that the layer has no more: its password is dead.
async fn remove_binding(context: &Context, accepted: &AcceptedLayer, binding: &Secret) -> Option<StepFailure> {
    let layer = &accepted.layer;
    if !binding.owner_references().iter().any(|owner| owner.uid == layer.identity.uid) {
        return None;
    }
    let (name, uid) = (binding.name_any(), binding.uid());
    context.secrets.forget(&layer.identity.namespace, &name);
    let error = context.writer.delete::<Secret>(&layer.identity.namespace, &name, uid.as_deref()).await.err()?;
    not_done(None, &StepOutcome::of(&error))
}

async fn apply<K: Object>(context: &Context, desired: &K, live: Option<&K>) -> Option<StepFailure> {
    ended(context.writer.apply(desired, live).await)
}

fn ended<K>(applied: Result<Applied<K>, act::Error>) -> Option<StepFailure> {
    not_done(None, &StepOutcome::of(&applied.err()?))
}

/// What a step or an object came to, if it was not done.
pub(super) fn not_done(step: Option<Step>, outcome: &StepOutcome) -> Option<StepFailure> {
    let passes = match outcome {
        StepOutcome::Done => return None,
        StepOutcome::Dropped(_) => true,
        StepOutcome::Refused(_) | StepOutcome::NameTaken(_) => false,
        StepOutcome::Failed { class, .. } => matches!(class, Class::Transient | Class::Conflict),
    };
    let name_taken = matches!(outcome, StepOutcome::NameTaken(_));
    Some(StepFailure { step, why: outcome.detail().to_owned(), passes, name_taken })
}
