//! What Kubernetes says of a StatefulSet that has no pod, of a pod that does not start, or of its volume claim: its newest event.
//!
//! Quotas, LimitRanges, Pod Security and admission webhooks refuse pods and claims to the StatefulSet controller, the kubelet fails to
//! mount volumes, and a storage class is not there: none of it is a field of an object, all are events. They are asked for only while
//! something is amiss.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::failure::{Request, request};

/// Events of one object that are read; one has a handful, counted and not repeated.
const MOST: u32 = 50;

/// The object whose events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A StatefulSet or a pod, by its UID.
    Uid(String),
    /// A volume claim, by its name: no watch shows claims.
    Claim(String),
}

/// Why Kubernetes does not do what it should for the object; `None`: it does not say.
pub(crate) async fn words(client: &Client, namespace: &str, about: &About) -> Result<Option<String>, Request> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let (fields, object) = match about {
        About::Uid(uid) => (format!("involvedObject.uid={uid}"), format!("the object {uid}")),
        About::Claim(name) => (
            format!("involvedObject.kind=PersistentVolumeClaim,involvedObject.name={name}"),
            format!("PersistentVolumeClaim {name}"),
        ),
    };
    let parameters = ListParams::default().fields(&fields).limit(MOST);
    let found =
        request("list", &format!("the events of {object} in namespace {namespace}"), api.list(&parameters)).await?;
    Ok(match about {
        About::Uid(_) => newest_complaint(&found.items),
        About::Claim(_) => newest_warning(&found.items),
    })
}

/// The newest warning. A claim that waits has others between, which end nothing: that it waits for its provisioner.
fn newest_warning(events: &[Event]) -> Option<String> {
    let warnings: Vec<Event> =
        events.iter().filter(|event| event.type_.as_deref() == Some("Warning")).cloned().collect();
    newest_complaint(&warnings)
}

/// The newest event, if it is a warning: one that was followed by a success is over.
pub(crate) fn newest_complaint(events: &[Event]) -> Option<String> {
    let is_warning = |event: &Event| event.type_.as_deref() == Some("Warning");
    let newest = events.iter().max_by_key(|event| (at(event), is_warning(event)))?;
    let (reason, note) = (newest.reason.as_deref().unwrap_or_default(), newest.message.as_deref().unwrap_or_default());
    is_warning(newest).then(|| format!("{reason}: {}", one_line(note)))
}

/// When an event happened last.
fn at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.into_iter().chain(last).chain(first).max()
}

/// Without line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, reason: &str, note: &str, second: u8) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": note,
            "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_event_counts_and_a_success_ends_a_complaint() {
        let refused = event("Warning", "FailedCreate", "create Pod web-redis-0-0 failed:\n exceeded quota: small", 2);
        let claimed = event("Normal", "SuccessfulCreate", "create Claim data-web-redis-0-0 success", 1);
        let words = Some("FailedCreate: create Pod web-redis-0-0 failed: exceeded quota: small".to_owned());
        assert_eq!(newest_complaint(&[refused.clone(), claimed.clone()]), words);
        let made = event("Normal", "SuccessfulCreate", "create Pod web-redis-0-0 successful", 3);
        assert_eq!(newest_complaint(&[refused.clone(), claimed, made]), None);
        let at_once = event("Normal", "SuccessfulCreate", "create Claim data-web-redis-0-0 success", 2);
        assert_eq!(newest_complaint(&[at_once, refused]), words);
        assert_eq!(newest_complaint(&[]), None);
    }

    #[test]
    fn a_claim_that_waits_says_why_whatever_else_is_said_between() {
        let failed = event("Warning", "ProvisioningFailed", "storageclass.storage.k8s.io \"fast\" not found", 1);
        let waits = event("Normal", "ExternalProvisioning", "Waiting for a volume to be created", 2);
        let words = Some("ProvisioningFailed: storageclass.storage.k8s.io \"fast\" not found".to_owned());
        assert_eq!(newest_warning(&[failed, waits.clone()]), words);
        assert_eq!(newest_warning(&[waits]), None);
    }

    /// As the kubelet and the attach controller write them for a pod that was scheduled.
    #[test]
    fn a_volume_that_is_not_mounted_is_reported_in_the_words_of_the_kubelet() {
        let scheduled = event("Normal", "Scheduled", "Successfully assigned shop/web-redis-0-0 to node-1", 1);
        for (reason, note) in [
            ("FailedMount", "MountVolume.SetUp failed for volume \"pvc-1\" : rpc error: code = Internal"),
            ("FailedAttachVolume", "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) other-0"),
        ] {
            let failed = event("Warning", reason, note, 20);
            let told = Some(format!("{reason}: {note}"));
            assert_eq!(newest_complaint(&[scheduled.clone(), failed.clone()]), told);
            let attached = event("Normal", "SuccessfulAttachVolume", "AttachVolume.Attach succeeded", 30);
            assert_eq!(newest_complaint(&[scheduled.clone(), failed, attached]), None, "{reason}: it is over");
        }
    }
}
