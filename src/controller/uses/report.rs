//! What is told of the uses of a layer: those that it serves and those that it refuses alike.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::observation::LayerPass;
use super::super::publish;
use super::super::watches::WatchedUse;
use super::binding::{BindingOutcome, UsesOutcome};
use super::counts;
use super::of_layer::{TOGETHER, Uses};
use super::rotation::Rotation;
use super::served::ServedUse;
use super::tenants::Applicants;
use crate::api::data_layer::DataLayer;
use crate::api::use_status::{LayerReference, UseStatus};
use crate::report::uses::{LayerCause, LayerNote, UseFacts, refused, status};
use crate::telemetry::Chain;
use crate::validate::uses::is_dedicated;

/// What a layer's uses tell of it.
pub(in crate::controller) struct LayerWords {
    /// What keeps changes from it.
    pub(in crate::controller) note: Option<LayerNote>,
    /// Why it is not Ready.
    pub(in crate::controller) cause: Option<LayerCause>,
}

/// What is told of one use.
pub(in crate::controller) struct UseReport {
    object: Arc<WatchedUse>,
    status: UseStatus,
    /// Whether something is under way for it.
    is_busy: bool,
}

impl Uses {
    /// What is told of each use.
    pub(in crate::controller) fn report(
        &self,
        context: &Context,
        pass: LayerPass<'_>,
        layer: &LayerWords,
        rotations: &[Rotation],
        outcome: UsesOutcome,
        proofs: Vec<Option<Vec<String>>>,
    ) -> Vec<UseReport> {
        let mut reports = Vec::new();
        for ((watched, refusal), is_withdrawn) in self.refused.iter().zip(outcome.withdrawn) {
            if let (true, Ok(declared)) = (is_withdrawn, &watched.0) {
                let generation = declared.metadata.generation.unwrap_or_default();
                let old = declared.status.clone().unwrap_or_default();
                let (reason, message) = (refusal.reason, &refusal.message);
                let layer = watched.layer().map(|(namespace, name)| LayerReference::new(namespace, name));
                let status = refused(declared.kind(), generation, reason, message, layer, &old, publish::now());
                reports.push(UseReport { object: Arc::clone(watched), status, is_busy: false });
            }
        }
        for (((it, rotation), written), violations) in
            self.served.iter().zip(rotations).zip(outcome.written).zip(proofs)
        {
            let (mut facts, is_busy) = match it.library {
                Some(_) => it.library_facts(context, pass),
                None => it.user_facts(context, pass, *rotation, written, violations),
            };
            let Some(declared) = it.object() else { continue };
            let old = declared.status.clone().unwrap_or_default();
            facts.layer_note.clone_from(&layer.note);
            facts.layer_cause.clone_from(&layer.cause);
            if let (Some(LayerNote::Refused(why)), true) = (&layer.note, is_dedicated(declared)) {
                // What its layer refuses is what the use itself declares.
                let refused =
                    || format!("layer.dedicated is refused, and its layer serves as it was accepted before: {why}");
                facts.change_refused.get_or_insert_with(refused);
            }
            facts.primary = pass.primary.map(|node| node.to_string());
            facts.earlier_policy = old
                .functions
                .as_ref()
                .filter(|_| pass.has_library(&facts.functions.library))
                .map(|functions| functions.digest.clone());
            let status = status(&facts, &old, publish::now());
            reports.push(UseReport { object: Arc::clone(&it.object), status, is_busy });
        }
        reports
    }
}

impl ServedUse {
    /// What is told of a use with a user, and whether something is still under way.
    fn user_facts(
        &self,
        context: &Context,
        pass: LayerPass<'_>,
        Rotation { now, next }: Rotation,
        written: BindingOutcome,
        violations: Option<Vec<String>>,
    ) -> (UseFacts, bool) {
        let wanted = self.accepted().rotation;
        let placement = self.user_placement(pass, now.shown.unwrap_or(wanted));
        let mut facts = self.facts(pass.object);
        facts.user_missing = placement.missing;
        facts.silent = placement.unreachable;
        facts.unreached = placement.unreached;
        facts.binding = written.name;
        facts.binding_trouble = written.trouble;
        facts.name_taken = written.name_taken;
        facts.has_primary = pass.primary.is_some();
        facts.functions_loaded = facts.has_primary && self.is_loaded(context, pass, &facts.functions.digest);
        facts.violations = violations;
        facts.export = written.export;
        facts.audit = pass.audit.cloned();
        let accepted = self.accepted();
        facts.counters = counts::of(context, &pass.layer.identity.uid, accepted.kind, accepted.policy.owner());
        facts.invalidation = written.invalidation;
        facts.user = next.shown.map(|rotation| self.user(rotation));
        facts.rotation = if written.is_as_planned { next } else { now }.status();
        facts.change_refused = context.uses.refusal(&self.accepted().uid);
        facts.previous_user = next.previous.map(|rotation| self.user(rotation));
        // The end of a grace is nothing to look for twice a second, nor is a write that failed.
        let is_rotating = next.shown != Some(wanted) && next.previous.is_none();
        let is_unproven = facts.has_primary && facts.violations.is_none();
        let is_busy = facts.binding_trouble.is_none() && (next != now || is_rotating || is_unproven);
        (facts, is_busy)
    }
}

/// Writes what differs from what was told before. One that fails stops no other, nor the layer. Answers whether something is under
/// way.
pub(in crate::controller) async fn publish(context: &Context, reports: Vec<UseReport>) -> bool {
    let mut writes = Vec::new();
    for UseReport { object, status, is_busy } in reports {
        writes.push(
            async move {
                let Ok(declared) = &object.0 else { return false };
                match publish::publish_use(context, declared, &status).await {
                    Ok(()) => is_busy,
                    Err(error) => {
                        let (kind, name, namespace) = (declared.kind().words().kind, object.name_any(), object.namespace());
                        tracing::warn!(kind, name, namespace, error = %Chain(&error), "the next pass tells of this use");
                        false
                    }
                }
            }
            .boxed(),
        );
    }
    let busy: Vec<bool> = stream::iter(writes).buffered(TOGETHER).collect().await;
    busy.contains(&true)
}

/// Tells every use that names the layer that it cannot be worked with.
pub(in crate::controller) async fn report_layer_not_accepted(context: &Context, layer: &DataLayer, trouble: &str) {
    let place = (layer.namespace().unwrap_or_default(), layer.name_any());
    for declared in Applicants::of(context, &place, &[]).objects() {
        if declared.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let old = declared.status.clone().unwrap_or_default();
        let facts = UseFacts {
            kind: declared.kind(),
            generation: declared.metadata.generation.unwrap_or_default(),
            layer: place.clone(),
            layer_trouble: Some(trouble.to_owned()),
            functions: old.functions.clone().unwrap_or_default(),
            binding: old.binding.clone().map(|binding| binding.name),
            export: old.export.clone().map(|export| export.name),
            user: old.user.clone(),
            rotation: old.rotation.clone(),
            invalidation: old.invalidation.clone(),
            ..UseFacts::default()
        };
        if let Err(error) = publish::publish_use(context, declared, &status(&facts, &old, publish::now())).await {
            tracing::warn!(name = declared.name_any(), error = %Chain(&error), "cannot tell a use of its layer");
        }
    }
}
