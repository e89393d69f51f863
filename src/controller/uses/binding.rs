//! The binding Secrets of the uses: read before the uses are judged, written as it was planned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::error::Error;
use super::super::observation::LayerPass;
use super::super::watches::WatchedUse;
use super::functions::library_of;
use super::of_layer::{TOGETHER, Uses};
use super::rotation::Rotation;
use super::served::{Binding, ServedUse};
use crate::act::{Applied, StepOutcome};
use crate::api::names;
use crate::api::use_status::InvalidationStatus;
use crate::api::uses::DeclaredUse;
use crate::build::uses::{BindingCredentials, binding, export};
use crate::dataplane::Library;
use crate::report::uses::LibraryTrouble;
use crate::telemetry::Chain;

/// How long a binding that was read is believed where Secrets are not watched: shorter than the pause of a layer at rest, so that
/// each pass finds one that was edited.
pub(super) const CACHED_FOR: Duration = Duration::from_secs(2);
/// How long the binding of a use that is not served is believed where Secrets are not watched.
const REFUSED_CACHED_FOR: Duration = Duration::from_secs(30);
/// Bindings that are read again in one pass at most where Secrets are not watched.
const MOST_READS: usize = 25;

/// What the API server has of the uses besides their own objects, by UID.
#[derive(Default)]
pub(super) struct RelatedObjects {
    pub(super) bindings: BTreeMap<String, Binding>,
    /// Of function libraries: what is to be loaded, or why nothing is.
    pub(super) libraries: BTreeMap<String, Result<Library, LibraryTrouble>>,
}

/// What belongs to one use.
enum RelatedObject {
    Binding(Binding),
    Library(Result<Library, LibraryTrouble>),
}

impl RelatedObjects {
    /// Reads what belongs to these uses.
    pub(super) async fn read(context: &Context, uses: &[Arc<WatchedUse>]) -> Self {
        let mut allowance = MOST_READS;
        let mut reads = Vec::new();
        for declared in uses.iter().filter_map(|watched| watched.0.as_ref().ok()) {
            let uid = declared.uid().unwrap_or_default();
            if !declared.kind().has_user() {
                reads.push(
                    async move { (uid, library_of(context, declared).await.map(RelatedObject::Library)) }.boxed(),
                );
                continue;
            }
            let (namespace, name) = place_of(declared);
            let former = declared.former_binding_name();
            let known = context.secrets.known(&namespace, &name, CACHED_FOR);
            // What was never read must be: without it, which credentials are valid is unknown.
            let spared = known.filter(|(_, holds)| !holds && allowance == 0).map(|(secret, _)| secret);
            allowance = allowance.saturating_sub(usize::from(spared.is_none()));
            reads.push(
                async move {
                    let secret = match spared {
                        Some(secret) => Ok(secret),
                        None => context.secrets.read(&context.client, &namespace, &name, CACHED_FOR).await,
                    };
                    let ours = |secret: Option<KubernetesSecret>| secret.filter(|secret| is_owned_by(secret, &uid));
                    let secret = match (secret.map(ours), former) {
                        // Which credentials are shown is what the Secret of the former name says, until there is one of the new.
                        (Ok(None), Some(former)) => {
                            context.secrets.read(&context.client, &namespace, &former, CACHED_FOR).await.map(ours)
                        }
                        (secret, _) => secret,
                    };
                    let binding = match secret {
                        Ok(secret) => Binding::Read(secret.map(Box::new)),
                        Err(error) => Binding::Unreadable(Chain(&error).to_string()),
                    };
                    (uid, Some(RelatedObject::Binding(binding)))
                }
                .boxed(),
            );
        }
        let mut related = Self::default();
        for (uid, of_use) in stream::iter(reads).buffered(TOGETHER).collect::<Vec<_>>().await {
            match of_use {
                Some(RelatedObject::Binding(binding)) => _ = related.bindings.insert(uid, binding),
                Some(RelatedObject::Library(library)) => {
                    related.bindings.insert(uid.clone(), Binding::Read(None));
                    related.libraries.insert(uid, library);
                }
                None => {}
            }
        }
        related
    }
}

/// Namespace and name of a use's binding.
fn place_of(declared: &DeclaredUse) -> (String, String) {
    (declared.namespace().unwrap_or_default(), declared.binding_name())
}

/// Whether a Secret belongs to the object with this UID.
pub(super) fn is_owned_by(secret: &KubernetesSecret, uid: &str) -> bool {
    secret.owner_references().iter().any(|owner| owner.uid == uid)
}

/// What became of the bindings in one pass.
pub(in crate::controller) struct UsesOutcome {
    /// Of each use that is served.
    pub(super) written: Vec<BindingOutcome>,
    /// Of each use that is refused: whether it has none any more, and is told here.
    pub(super) withdrawn: Vec<bool>,
}

/// What became of one binding.
#[derive(Debug, Default)]
pub(super) struct BindingOutcome {
    /// Its name, where there is one.
    pub(super) name: Option<String>,
    /// Whether it says what was planned for it.
    pub(super) is_as_planned: bool,
    /// Why one of the use's Secrets could not be written.
    pub(super) trouble: Option<String>,
    /// Whether its name belongs to another.
    pub(super) name_taken: bool,
    /// Name of the Secret for a rate limit service, as far as there is one.
    pub(super) export: Option<String>,
    /// Of a cache: keys that are to be removed.
    pub(super) invalidation: Option<InvalidationStatus>,
}

impl Uses {
    /// Writes the bindings of the uses that are served, and removes those of the uses that are refused.
    pub(in crate::controller) async fn act(
        &self,
        context: &Context,
        pass: LayerPass<'_>,
        rotations: &[Rotation],
    ) -> UsesOutcome {
        let mut withdrawals = Vec::new();
        for (watched, refusal) in &self.refused {
            withdrawals.push(
                async move {
                    let Ok(declared) = &watched.0 else { return false };
                    // The use's own pass tells of a dedicated layer's name that is taken.
                    if refusal.reason == "NameTaken" {
                        return false;
                    }
                    let withdrawn = withdraw(context, declared).await;
                    if let Err(error) = &withdrawn {
                        let name = declared.name_any();
                        tracing::warn!(name, error = %Chain(error), "cannot remove the binding of a use that is refused");
                    }
                    withdrawn.is_ok()
                }
                .boxed(),
            );
        }
        let writes = self.served.iter().zip(rotations).map(|(it, rotation)| it.write(context, pass, *rotation).boxed());
        let writes: Vec<_> = writes.collect();
        UsesOutcome {
            withdrawn: stream::iter(withdrawals).buffered(TOGETHER).collect().await,
            written: stream::iter(writes).buffered(TOGETHER).collect().await,
        }
    }
}

/// Removes the binding of a use that is not served, and the Secret for a rate limit service.
pub(super) async fn withdraw(context: &Context, declared: &DeclaredUse) -> Result<(), Error> {
    if !declared.kind().has_user() {
        return Ok(());
    }
    let ((namespace, name), uid) = (place_of(declared), declared.uid().unwrap_or_default());
    remove(context, &namespace, &name, &uid).await?;
    if let Some(former) = declared.former_binding_name() {
        remove(context, &namespace, &former, &uid).await?;
    }
    if declared.status.as_ref().is_some_and(|status| status.export.is_some()) {
        remove(context, &namespace, &names::export(&declared.name_any()), &uid).await?;
    }
    Ok(())
}

/// Removes a Secret of the use with this UID.
async fn remove(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
    let found = context.secrets.read(&context.client, namespace, name, REFUSED_CACHED_FOR).await?;
    if let Some(secret) = found.filter(|secret| is_owned_by(secret, uid)) {
        let uid = secret.uid();
        context.writer.delete::<KubernetesSecret>(namespace, name, uid.as_deref()).await.map_err(Error::Act)?;
        context.secrets.forget(namespace, name);
    }
    Ok(())
}

impl ServedUse {
    /// Writes what the use's own objects show, and asks for the keys that it wants removed.
    async fn write(&self, context: &Context, pass: LayerPass<'_>, rotation: Rotation) -> BindingOutcome {
        let mut written = self.write_binding(context, pass, rotation).await;
        written.is_as_planned = written.trouble.is_none() && !pass.desired.paused;
        written.export = self.reported_export();
        let shown = rotation.next.shown.filter(|_| written.trouble.is_none() && !pass.desired.paused);
        if let Some(shown) = shown.filter(|_| self.accepted().kind.has_user()) {
            let wanted =
                self.with_credentials(context, rotation, shown, |shown| export(self.accepted(), pass.layer, shown));
            match self.keep_export(context, wanted, written.export.is_some()).await {
                Ok(name) => written.export = name,
                Err(why) => {
                    written.trouble = Some(format!("Secret {}: {why}", names::export(&self.accepted().name)));
                }
            }
        }
        written.invalidation = self.invalidation(context, pass).await;
        written
    }

    /// What is made of the credentials of a rotation.
    fn with_credentials<T>(
        &self,
        context: &Context,
        rotation: Rotation,
        shown: u32,
        make: impl FnOnce(BindingCredentials<'_>) -> T,
    ) -> T {
        let (user, password, next) = (self.user(shown), self.password(context, shown), rotation.next);
        make(BindingCredentials {
            user: &user,
            password: password.reveal(),
            rotation: shown,
            previous: next.previous,
            rotated_at: next.rotated_at,
        })
    }

    /// Writes the binding, if it is to show credentials.
    async fn write_binding(&self, context: &Context, pass: LayerPass<'_>, rotation: Rotation) -> BindingOutcome {
        if let Binding::Unreadable(why) = &self.binding {
            return BindingOutcome { trouble: Some(why.clone()), ..BindingOutcome::default() };
        }
        let next = rotation.next;
        let Some(shown) = next.shown.filter(|_| !pass.desired.paused) else {
            return BindingOutcome {
                name: self.binding().map(kube::ResourceExt::name_any),
                ..BindingOutcome::default()
            };
        };
        let (accepted, password) = (self.accepted(), self.password(context, shown));
        let mut secret = self.with_credentials(context, rotation, shown, |shown| binding(accepted, pass.layer, shown));
        if let Some(key) = context.passwords.root_key_of_use(accepted.kind, &accepted.uid, shown, &password) {
            secret.annotations_mut().insert(names::ANNOTATION_ROOT_KEY.to_owned(), key);
        }
        // One of a former name stays until this one is written.
        let former = self.binding().map(kube::ResourceExt::name_any).filter(|name| *name != accepted.binding_name);
        let live = self.binding().filter(|_| former.is_none());
        match context.secrets.apply(&context.writer, &secret, live).await {
            Ok(Applied::Unchanged | Applied::Written(_)) => self.moved(context).await,
            Ok(Applied::Deleting) => {
                let trouble = Some("its predecessor is still being deleted".to_owned());
                BindingOutcome { name: former, trouble, ..BindingOutcome::default() }
            }
            Err(error) => {
                let outcome = StepOutcome::of(&error);
                let name_taken = matches!(outcome, StepOutcome::NameTaken(_));
                BindingOutcome {
                    name: former,
                    trouble: Some(outcome.detail().to_owned()),
                    name_taken,
                    ..BindingOutcome::default()
                }
            }
        }
    }

    /// Removes the binding of a former name, now that the one of the present name is written. Until it is removed the status names it.
    async fn moved(&self, context: &Context) -> BindingOutcome {
        let accepted = self.accepted();
        let name = Some(accepted.binding_name.clone());
        let Some(former) = self.object().and_then(DeclaredUse::former_binding_name) else {
            return BindingOutcome { name, ..BindingOutcome::default() };
        };
        match remove(context, &accepted.namespace, &former, &accepted.uid).await {
            Ok(()) => BindingOutcome { name, ..BindingOutcome::default() },
            Err(error) => {
                let trouble = format!("cannot remove Secret {former}, which was the binding before: {}", Chain(&error));
                BindingOutcome { name: Some(former), trouble: Some(trouble), ..BindingOutcome::default() }
            }
        }
    }
}
