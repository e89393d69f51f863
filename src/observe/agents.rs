//! What an agent says: what its node waits for that only a person ends, data that is kept aside, and what is in the keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use crate::answers;
use crate::model::audit::AuditReport;
use crate::model::counters::CounterRows;
use crate::model::lineage::{Aside, LineageAnswer};

/// An agent answers from memory. One that is silent has nothing to say in this pass, and makes none longer that hurries.
const ANSWERS_WITHIN: Duration = Duration::from_millis(150);

/// How long an agent may take to read what its server counted.
const COUNTS_WITHIN: Duration = Duration::from_secs(1);

/// What the servers at these addresses counted; without those whose agent does not answer.
pub(crate) async fn counted<K: Ord>(addresses: impl IntoIterator<Item = (K, String)>) -> BTreeMap<K, CounterRows> {
    let asking = addresses.into_iter().map(async |(key, address)| {
        Some((key, timeout(COUNTS_WITHIN, answers::counted(&address)).await.ok().flatten()?))
    });
    join_all(asking).await.into_iter().flatten().collect()
}

/// Sentences for a person; none is the usual case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentNotes {
    /// Why the node waits, where only a person ends that.
    pub waits: Vec<String>,
    /// Whether the engine does not load the node's files, and no other node has them.
    pub loads_nothing: bool,
    /// What it keeps aside on its volume; `None`: the agent did not answer.
    pub aside: Option<Vec<Aside>>,
    /// What was done about its server.
    pub notices: Vec<String>,
}

/// Asks the agent at a pod's address. `known`: what it told last of the keys, which is asked for only when that changed.
pub(crate) async fn ask(address: &str, known: Option<Arc<AuditReport>>) -> (AgentNotes, Option<Arc<AuditReport>>) {
    let Some(answer) = timeout(ANSWERS_WITHIN, answers::fetch(address)).await.ok().flatten() else {
        return (AgentNotes::default(), known);
    };
    let report = match &answer.audit {
        None => None,
        Some(mark) if mark.fingerprint.is_empty() => None,
        Some(mark) => match known {
            Some(known) if known.fingerprint() == mark.fingerprint => Some(if known.finished == mark.finished {
                known
            } else {
                Arc::new(AuditReport { finished: mark.finished, ..known.as_ref().clone() })
            }),
            known => timeout(ANSWERS_WITHIN, answers::fetch_audit(address))
                .await
                .ok()
                .flatten()
                .map_or(known, |report| Some(Arc::new(report))),
        },
    };
    (notes(&answer), report)
}

fn notes(answer: &LineageAnswer) -> AgentNotes {
    let decision = answer.needs_person.as_deref().map(of_decision);
    AgentNotes {
        waits: decision.into_iter().chain(answer.unusable.clone()).collect(),
        loads_nothing: answer.unusable.as_deref().is_some_and(|why| why.starts_with("DataUnloadable")),
        aside: Some(answer.aside.clone()),
        notices: answer.notices.clone(),
    }
}

/// `why`: the boot rule's word, as `Unrelated`. An agent of an earlier version says `Wait(Unrelated)`.
fn of_decision(why: &str) -> String {
    let reason = why.strip_prefix("Wait(").unwrap_or(why);
    let reason = reason.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or(reason);
    format!("{reason}: it waits for a person to choose whose data to go on with, by redoubt.dev/accept-loss")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::boot::WaitReason;
    use crate::model::lineage::{Activity, Ancestry, AsideReason};

    #[test]
    fn what_a_node_waits_for_and_what_it_keeps_are_told_apart() {
        let kept = Aside {
            folder: "20261128T062033Z-replaced".to_owned(),
            reason: AsideReason::Replaced,
            at: 1,
            bytes: 7,
            lineage: None,
        };
        let mut answer = LineageAnswer {
            layer_uid: "uid".to_owned(),
            ordinal: 0,
            activity: Activity::Serving,
            initialised: true,
            accepting: false,
            needs_person: None,
            lineage: None,
            loaded: true,
            ancestry: Ancestry::default(),
            aside: Vec::new(),
            unusable: None,
            audit: None,
            view: None,
            notices: Vec::new(),
        };
        assert_eq!(notes(&answer), AgentNotes { aside: Some(Vec::new()), ..AgentNotes::default() });
        (answer.aside, answer.unusable) = (vec![kept.clone()], Some("DataUnloadable: mend it".to_owned()));
        answer.needs_person = Some(WaitReason::SeveralPrimaries.word().to_owned());
        let AgentNotes { waits, loads_nothing, aside, notices } = notes(&answer);
        assert!(loads_nothing);
        assert!(
            waits[0].starts_with("SeveralPrimaries: ") && waits[0].contains("redoubt.dev/accept-loss"),
            "{waits:?}"
        );
        assert!(waits[1].contains("DataUnloadable"), "{waits:?}");
        assert_eq!((aside, notices), (Some(vec![kept]), Vec::new()));
        answer.notices = vec!["its server was ended".to_owned()];
        assert_eq!(notes(&answer).notices, answer.notices);
        answer.needs_person = Some("AskForFailover".to_owned());
        assert!(notes(&answer).waits[0].starts_with("AskForFailover: "));
    }
}
