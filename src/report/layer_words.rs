//! What a use is told of its layer.

use super::draft::ConditionKind;
use crate::api::data_layer_status::DataLayerStatus;

/// Why a layer is not Ready, as its own status says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCause {
    /// One word; part of the API.
    pub reason: String,
    /// For people; names the layer.
    pub message: String,
    /// Whether it does not end by waiting.
    pub is_trouble: bool,
    /// Whether the layer was never Ready.
    pub is_new: bool,
}

impl LayerCause {
    /// Of a layer with this status: what degrades it, or else what is missing; `is_new`: it was never Ready. `None`: it is
    /// Ready.
    pub fn of(status: &DataLayerStatus, is_new: bool) -> Option<Self> {
        let find = |kind: ConditionKind| status.conditions.iter().find(|known| known.type_ == kind);
        let missing = find(ConditionKind::Ready).filter(|ready| ready.status != "True")?;
        let trouble = find(ConditionKind::Degraded).filter(|degraded| degraded.status == "True");
        let said = trouble.unwrap_or(missing);
        let (reason, message) = (said.reason.clone(), said.message.clone());
        Some(Self { reason, message, is_trouble: trouble.is_some(), is_new })
    }
}

/// What keeps changes from a layer that serves all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerNote {
    /// `spec.paused` is set.
    Paused,
    /// Its newest specification is refused, for these reasons; one that was accepted before is in force.
    Refused(String),
    /// Its object cannot be read; the specification that was accepted last is in force.
    Unreadable,
}

impl LayerNote {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Paused => "LayerPaused",
            Self::Refused(_) => "LayerRefused",
            Self::Unreadable => "LayerUnreadable",
        }
    }

    pub(super) fn sentence(&self, layer: &str) -> String {
        match self {
            Self::Paused => format!("layer {layer} is paused: a change waits until its spec.paused is false"),
            Self::Refused(_) => format!(
                "the newest specification of layer {layer} is refused: it serves as it was accepted before, and its condition Accepted \
                 says why"
            ),
            Self::Unreadable => {
                format!("DataLayer {layer} cannot be read: it serves as it was accepted before, until it is corrected")
            }
        }
    }
}
