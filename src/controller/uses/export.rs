//! The Secret that a gateway's rate limit service reads: kept next to the binding, and removed with it.

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;

use super::super::context::Context;
use super::binding::{CACHED_FOR, is_owned_by};
use super::served::ServedUse;
use crate::act::{Applied, StepOutcome};
use crate::api::names;
use crate::telemetry::Chain;
use crate::validate::uses::ValidatedUse;

impl ServedUse {
    /// Name of the Secret for a rate limit service that was told last.
    pub(super) fn reported_export(&self) -> Option<String> {
        self.object.status()?.export.as_ref().map(|export| export.name.clone())
    }

    /// Writes the Secret for a rate limit service, which shows what the binding shows, or removes one that is not declared any more.
    /// `is_there`: whether there was one before. Answers its name.
    pub(super) async fn keep_export(
        &self,
        context: &Context,
        wanted: Option<KubernetesSecret>,
        is_there: bool,
    ) -> Result<Option<String>, String> {
        let ValidatedUse { namespace, name, uid, .. } = self.accepted();
        let name = names::export(name);
        if wanted.is_none() && !is_there {
            return Ok(None);
        }
        let read = context.secrets.read(&context.client, namespace, &name, CACHED_FOR).await;
        let live = read.map_err(|error| Chain(&error).to_string())?.filter(|secret| is_owned_by(secret, uid));
        let outcome = match &wanted {
            Some(secret) => context.secrets.apply(&context.writer, secret, live.as_ref()).await,
            None => match &live {
                Some(secret) => context
                    .writer
                    .delete::<KubernetesSecret>(namespace, &name, secret.metadata.uid.as_deref())
                    .await
                    .map(|()| {
                        context.secrets.forget(namespace, &name);
                        Applied::Unchanged
                    }),
                None => Ok(Applied::Unchanged),
            },
        };
        match outcome {
            Ok(Applied::Deleting) => return Err("its predecessor is still being deleted".to_owned()),
            Ok(Applied::Written(_) | Applied::Unchanged) => {}
            Err(error) => {
                context.secrets.forget(namespace, &name);
                return Err(StepOutcome::of(&error).detail().to_owned());
            }
        }
        Ok(wanted.map(|_| name))
    }
}
