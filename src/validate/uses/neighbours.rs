//! What the uses of one layer are to each other beyond their prefixes: whose channel is whose, who may see names of all keys, and
//! whose keys go first when memory is full.

use super::ValidatedUse;
use super::answer::{AdmittedUse, Refusal};
use super::eviction::{Verdict, judge, suitable};
use super::judge::written;
use crate::api::data_layer_status::Tenant;
use crate::api::uses::DeclaredUse;
use crate::model::UseKind;
use crate::model::uses::Advice;

/// What the uses that have their place mean for one that asks.
#[derive(Clone, Copy)]
pub(super) struct Neighbours<'a> {
    pub layer: &'a str,
    pub eviction_policy: &'a str,
    /// Whether it has a user for all keys.
    pub(crate) has_application: bool,
    /// Those that were admitted so far: every one that was asked before.
    pub admitted: &'a [AdmittedUse],
}

impl Neighbours<'_> {
    /// Why the use cannot be served next to the others. `asks`: with the prefix that it would have. `places`: of others, those that
    /// were not admitted too. `tenants`: the uses that have such a place, as they are declared.
    pub(super) fn objection<'a>(
        &self,
        asks: &ValidatedUse,
        is_newcomer: bool,
        places: impl Iterator<Item = &'a Tenant> + Clone,
        tenants: impl Iterator<Item = &'a DeclaredUse>,
    ) -> Option<Refusal> {
        let objection = self.channel(asks, places.clone()).or_else(|| self.tracking(asks, is_newcomer, places));
        objection.or_else(|| is_newcomer.then(|| self.evicts_others(asks, tenants)).flatten())
    }

    /// A channel is one use's own: no other's prefix covers it, because a user may use each channel whose name begins with its prefix.
    fn channel<'a>(&self, asks: &ValidatedUse, mut places: impl Iterator<Item = &'a Tenant>) -> Option<Refusal> {
        let refusal = |message: String| Some(Refusal { reason: "ChannelOverlaps", message });
        let noun = asks.kind.words().noun;
        if let Some(channel) = asks.policy.channel()
            && let Some(other) = places.find(|other| channel.starts_with(&other.prefix))
        {
            return refusal(format!(
                "{}/{} has prefix {}, and so the channel {channel} too; make this {noun} with another invalidation.channel",
                other.namespace, other.store, other.prefix
            ));
        }
        let taken = self.admitted.iter().find(|other| {
            let Some(theirs) = other.accepted.policy.channel() else { return false };
            theirs.starts_with(asks.policy.prefix()) || asks.policy.channel() == Some(theirs)
        })?;
        let theirs = taken.accepted.policy.channel().unwrap_or_default();
        refusal(format!(
            "{} publishes its invalidations on {theirs}, which this {noun} could read and write; make it with another keyPrefix",
            taken.accepted.policy.owner()
        ))
    }

    fn tracking<'a>(
        &self,
        asks: &ValidatedUse,
        is_newcomer: bool,
        mut places: impl Iterator<Item = &'a Tenant>,
    ) -> Option<Refusal> {
        let refusal = |message: String| Some(Refusal { reason: "TrackingShared", message });
        if asks.tracking {
            let others = if self.has_application {
                format!("DataLayer {} has a user for all keys (access.application)", self.layer)
            } else {
                let other = places.next()?;
                format!("DataLayer {} serves {}/{} too", self.layer, other.namespace, other.store)
            };
            return refusal(format!(
                "invalidation.tracking shows the names of all keys of the layer, and {others}: switch it off, or leave layer out for one \
                 of your own"
            ));
        }
        let tracks = self.admitted.iter().find(|other| is_newcomer && other.accepted.tracking)?;
        refusal(format!(
            "{} has invalidation.tracking, which shows it the names of all keys of the layer; name another layer",
            tracks.accepted.policy.owner()
        ))
    }

    /// A cache fills memory, and then other uses' keys go that are still there, although their use is refused by now.
    fn evicts_others<'a>(
        &self,
        asks: &ValidatedUse,
        mut tenants: impl Iterator<Item = &'a DeclaredUse>,
    ) -> Option<Refusal> {
        let policy = self.eviction_policy;
        let other = tenants
            .find(|other| other.kind() != asks.kind && judge(other.kind(), policy).verdict == Verdict::Refused)?;
        let (kind, data) = (other.kind().words().kind, other.kind().words().data);
        let message = format!(
            "DataLayer {} holds {data} of {kind} {}/{} and has eviction policy {policy}, which drops them for entries of this {} ({}); \
             set its memory.evictionPolicy to {}, or leave layer out for one of your own",
            self.layer,
            other.metadata.namespace.as_deref().unwrap_or_default(),
            other.metadata.name.as_deref().unwrap_or_default(),
            asks.kind.words().noun,
            judge(other.kind(), policy).ground,
            suitable(other.kind()),
        );
        Some(Refusal { reason: "Evicts", message })
    }
}

/// What each admitted use should know of the layer's eviction policy, in their order.
pub(super) fn advice(admitted: &[AdmittedUse], eviction_policy: &str) -> Vec<Option<Advice>> {
    let of_one = |it: &AdmittedUse| {
        of_policy(it.accepted.kind, eviction_policy).or_else(|| of_order(it, admitted, eviction_policy))
    };
    admitted.iter().map(of_one).collect()
}

fn of_policy(kind: UseKind, eviction_policy: &str) -> Option<Advice> {
    let judged = judge(kind, eviction_policy);
    (judged.verdict == Verdict::Warned).then(|| Advice {
        reason: "EvictionPolicy",
        message: format!("the layer has eviction policy {eviction_policy}: {}", judged.ground),
    })
}

/// Under `volatile-ttl` a full server drops the keys that end soonest, of whatever use.
fn of_order(it: &AdmittedUse, admitted: &[AdmittedUse], eviction_policy: &str) -> Option<Advice> {
    if eviction_policy != "volatile-ttl" {
        return None;
    }
    let (kind, own) = (it.accepted.kind, it.accepted.policy.idle_lifetime()?);
    let later = admitted.iter().filter(|other| other.accepted.kind.eviction_order() > kind.eviction_order());
    let shorter = later
        .filter_map(|other| Some((other, other.accepted.policy.idle_lifetime()?)))
        .find(|(_, theirs)| *theirs <= own)?;
    let (other, theirs) = shorter;
    Some(Advice {
        reason: "TtlOrder",
        message: format!(
            "{} of this {} live up to {}, and {} of {} only {}: when memory is full, volatile-ttl drops those first",
            kind.words().data,
            kind.words().noun,
            written(own),
            other.accepted.kind.words().data,
            other.accepted.policy.owner(),
            written(theirs),
        ),
    })
}
