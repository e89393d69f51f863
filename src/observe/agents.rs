//! What an agent says that waits for a person: data that is kept aside, and data that cannot be used.

use std::time::Duration;

use tokio::time::timeout;

use crate::answers;
use crate::model::lineage::{Aside, AsideReason, LineageAnswer};

/// An agent answers from memory. One that is silent has nothing to say in this pass, and makes none longer that hurries.
const ANSWERS_WITHIN: Duration = Duration::from_millis(150);

/// Asks the agent at a pod's address. Sentences for a person; none is the usual case.
pub async fn ask(address: &str) -> Vec<String> {
    let answer = timeout(ANSWERS_WITHIN, answers::fetch(address)).await.ok().flatten();
    answer.map(|answer| words(&answer)).unwrap_or_default()
}

fn words(answer: &LineageAnswer) -> Vec<String> {
    answer.unusable.iter().cloned().chain(answer.aside.iter().map(of_aside)).collect()
}

fn of_aside(kept: &Aside) -> String {
    let why = match kept.reason {
        AsideReason::Damaged => "the engine did not load it, and the node was filled from another",
        AsideReason::Replaced => "the primary that the node follows is not known to have all of it",
        AsideReason::LossAccepted => "a person chose which node's data to go on with",
    };
    let Aside { folder, bytes, .. } = kept;
    format!(
        "/data/aside/{folder} holds {bytes} bytes of data: {why}; once it is not needed, name it in redoubt.dev/drop-aside"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lineage::{Activity, Ancestry};

    #[test]
    fn a_person_is_told_the_folder_and_what_to_do() {
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
        };
        assert_eq!(words(&answer), [""; 0]);
        (answer.aside, answer.unusable) = (vec![kept], Some("DataUnloadable: mend it".to_owned()));
        let told = words(&answer).join(" ");
        for part in ["DataUnloadable", "/data/aside/20261128T062033Z-replaced", "redoubt.dev/drop-aside"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
