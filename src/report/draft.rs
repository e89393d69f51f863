//! Conditions before they have a time, and the reasons that others look for.

use std::borrow::Cow;
use std::fmt;

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

/// The conditions that a status can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionKind {
    /// The specification is valid, and its layer takes a use.
    Accepted,
    /// A use's user may do what it should, and no more.
    AccessProven,
    /// The Secret of a use is written.
    BindingWritten,
    /// Something is wrong that does not end by waiting.
    Degraded,
    /// The layer's eviction policy suits a use.
    EvictionSuits,
    /// The primary answers for every function library.
    FunctionsLoaded,
    /// Any one node may be lost.
    HighlyAvailable,
    /// Every data node has the planned `maxmemory`.
    MemoryBounded,
    /// Every data node writes its files as declared.
    Persisted,
    /// A change is under way, or waits.
    Progressing,
    /// It serves.
    Ready,
    /// As `kstatus` knows it: it is there only while it is true.
    Reconciling,
    /// Every directive was read back as declared.
    SettingsApplied,
    /// As `kstatus` knows it: it is there only while it is true.
    Stalled,
    /// Every server has the user of a use.
    UserInPlace,
    /// Every server has exactly the declared users.
    UsersInPlace,
}

impl ConditionKind {
    /// The condition's `type`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::AccessProven => "AccessProven",
            Self::BindingWritten => "BindingWritten",
            Self::Degraded => "Degraded",
            Self::EvictionSuits => "EvictionSuits",
            Self::FunctionsLoaded => "FunctionsLoaded",
            Self::HighlyAvailable => "HighlyAvailable",
            Self::MemoryBounded => "MemoryBounded",
            Self::Persisted => "Persisted",
            Self::Progressing => "Progressing",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::SettingsApplied => "SettingsApplied",
            Self::Stalled => "Stalled",
            Self::UserInPlace => "UserInPlace",
            Self::UsersInPlace => "UsersInPlace",
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// So that the `type` of a condition in a status is compared with none that is misspelt.
impl PartialEq<ConditionKind> for String {
    fn eq(&self, kind: &ConditionKind) -> bool {
        self == kind.name()
    }
}

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionDraft {
    pub kind: ConditionKind,
    /// Whether it holds; `None`: unknown.
    pub holds: Option<bool>,
    /// One word; part of the API.
    pub reason: Cow<'static, str>,
    /// For people; may change with each version.
    pub message: String,
}

impl ConditionDraft {
    pub(crate) fn new(
        kind: ConditionKind,
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
