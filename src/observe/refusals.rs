//! What Kubernetes says of a StatefulSet that has no pod, or of a pod that does not start: its newest event.
//!
//! Quotas, LimitRanges, Pod Security and admission webhooks refuse pods and claims to the StatefulSet controller, and the kubelet
//! fails to mount volumes: neither is a field of an object, both are events. They are asked for by UID, and only while something
//! is amiss.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::failure::{Request, request};

/// Events of one object that are read; one has a handful, counted and not repeated.
const MOST: u32 = 50;

/// Why Kubernetes does not do what it should for the object with this UID; `None`: it does not say.
pub(crate) async fn words(client: &Client, namespace: &str, uid: &str) -> Result<Option<String>, Request> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(MOST);
    let object = format!("the events of the object {uid} in namespace {namespace}");
    let found = request("list", &object, api.list(&parameters)).await?;
    Ok(newest_complaint(&found.items))
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
