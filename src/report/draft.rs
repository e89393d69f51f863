//! Conditions before they have a time, and the reasons that others look for.

use std::borrow::Cow;

/// The reason of `Degraded` while a node waits for what only a person ends.
pub(crate) const NEEDS_PERSON: &str = "NeedsPerson";

/// The reason of `Ready=False` while only the record is missing that the layer was initialised.
pub(crate) const RECORDING: &str = "Recording";

/// The reason of `Ready=True` when everything that is declared is proven and nothing is left to do.
pub const PROVEN: &str = "Proven";

/// The reason of `Ready=True` while the layer serves and something is still to be done, or is wrong.
pub(crate) const SERVING: &str = "Serving";

/// The reason of `Accepted=True` where directives are unknown to this version. It is a warning.
pub(crate) const UNKNOWN_DIRECTIVES: &str = "UnknownDirectives";

/// The reason of `FunctionsLoaded=True` where the sources of the functions are too long for the layer's Secret.
pub(crate) const NOT_IN_SECRET: &str = "NotInSecret";

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionDraft {
    pub kind: &'static str,
    /// Whether it holds; `None`: unknown.
    pub holds: Option<bool>,
    /// One word.
    pub reason: Cow<'static, str>,
    /// A sentence.
    pub message: String,
}

impl ConditionDraft {
    /// Puts it together.
    pub(crate) fn said(
        kind: &'static str,
        holds: Option<bool>,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, holds, reason: reason.into(), message: message.into() }
    }
}

/// The conditions of an accepted layer, each by itself.
#[derive(Clone, Debug)]
pub(crate) struct Drafts {
    pub(super) accepted: ConditionDraft,
    pub(super) memory_bounded: ConditionDraft,
    pub(super) persisted: ConditionDraft,
    pub(super) functions_loaded: ConditionDraft,
    pub(super) users_in_place: ConditionDraft,
    pub(super) settings_applied: ConditionDraft,
    pub(super) highly_available: ConditionDraft,
    pub(super) degraded: ConditionDraft,
    pub(super) progressing: ConditionDraft,
}
