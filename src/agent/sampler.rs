//! How long the append-only files are at an offset, by the server's own word, and the offsets that its data passed.
//!
//! `INFO` tells both numbers of one moment. It does not tell which files they are of, and a rewrite replaces them without a word. So the
//! name of the first file counts only where the server said before it was read, and says afterwards, that no rewrite came in between.

use tokio::time::Instant;

use super::append_files::Sizes;
use super::held::{self, Sample};
use crate::model::lineage::Lineage;
use crate::model::position::{Position, TrailPoint};
use crate::model::{ReplicationId, Role};
use crate::redis::info::Info;

/// Points of a trail that are kept: the older half becomes thinner where there are more.
const POINTS: usize = 64;
/// Points that are told of a history that ended.
const TOLD: usize = 12;

/// What is followed of the append-only files.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    boot: String,
    /// Rewrites that the server had begun when none ran, and since when it has said so.
    settled: Option<(u64, Instant)>,
    /// The first file, and the rewrites that had begun by then.
    base: Option<(u64, String)>,
    trail: Trail,
}

/// A history of which the server had more and more.
#[derive(Clone, Debug, Default)]
struct Trail {
    /// Where it was at the last poll.
    end: Option<Position>,
    points: Vec<TrailPoint>,
    ended: Option<(Position, Vec<TrailPoint>)>,
}

impl Sampler {
    /// Of an engine that is being started.
    pub(super) fn new() -> Self {
        Self { boot: held::boot(), ..Self::default() }
    }

    /// Notes the result of a poll. `measured`: the files as they were at a time. Answers how long they are, where that is known.
    /// `is_whole`: the append-only file has all data.
    pub(super) fn note(
        &mut self,
        now: Instant,
        info: &Info,
        is_whole: bool,
        measured: Option<&(Instant, Sizes)>,
    ) -> Option<Sample> {
        match info.rewrites() {
            (Some(count), false) => {
                let (settled, since) = *self.settled.get_or_insert((count, now));
                if settled != count {
                    self.settled = Some((count, now));
                }
                if self.base.as_ref().is_some_and(|(of, _)| *of != count) {
                    self.base = None;
                }
                if self.base.is_none()
                    && settled == count
                    && let Some((_, sizes)) = measured.filter(|(at, _)| *at > since)
                {
                    self.base = sizes.base().map(|base| (count, base.clone()));
                }
            }
            // Until it ends the files of before are there, and go on.
            (Some(count), true) => {
                self.settled = None;
                self.base = self.base.take().filter(|(of, _)| *of == count || of.checked_add(1) == Some(count));
            }
            (None, _) => self.base = None,
        }
        let (_, base) = self.base.as_ref().filter(|_| is_whole)?;
        let led = info.role() == Some(Role::Primary);
        Some(Sample { base: base.clone(), bytes: info.append_only_bytes()?, led, boot: self.boot.clone() })
    }

    /// Whether the files are to be measured: which ones they are is not known.
    pub(super) fn is_to_measure(&self) -> bool {
        self.settled.is_some() && self.base.is_none()
    }

    /// Notes how far the server is in its history.
    pub(super) fn follow(&mut self, record: &Lineage, sample: Option<&Sample>) {
        let trail = &mut self.trail;
        let end = record.recorded_position();
        if let Some(before) = trail.end.replace(end.clone())
            && before.replication_id != end.replication_id
        {
            trail.ended = Some((before, std::mem::take(&mut trail.points)));
        }
        let Some(sample) = sample else {
            trail.points.clear();
            return;
        };
        match trail.points.last() {
            Some(last) if last.1 > sample.bytes || last.0 > end.offset => trail.points.clear(),
            Some(last) if last.0 == end.offset => return,
            Some(_) | None => {}
        }
        trail.points.push(TrailPoint(end.offset, sample.bytes));
        if trail.points.len() > POINTS {
            let mut index = 0;
            trail.points.retain(|_| {
                index += 1;
                index > POINTS / 2 || index % 2 == 1
            });
        }
    }

    /// Where the server was in this history when it was seen in it last, and the way to there. `None`: it was not.
    pub(super) fn ended(&self, history: &ReplicationId) -> Option<(&Position, Vec<TrailPoint>)> {
        let (end, points) = self.trail.ended.as_ref().filter(|(end, _)| end.replication_id == *history)?;
        Some((end, thinned(points)))
    }
}

/// The last points, and fewer and fewer of those before.
fn thinned(points: &[TrailPoint]) -> Vec<TrailPoint> {
    let mut told: Vec<TrailPoint> = (0..TOLD)
        .map(|index| if index < 4 { index } else { 4 << (index - 4) })
        .filter_map(|back| points.get(points.len().checked_sub(back + 1)?).copied())
        .collect();
    told.extend(points.first().filter(|first| told.last() != Some(first)).copied());
    told.reverse();
    told
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Offset;

    fn info(rewrites: u64, runs: u8, bytes: u64) -> Info {
        Info::parse(&format!(
            "role:master\nmaster_replid:a\naof_enabled:1\naof_rewrites:{rewrites}\naof_rewrite_in_progress:{runs}\n\
             aof_current_size:{bytes}\naof_buffer_length:7\n"
        ))
    }

    /// The files are measured between two polls. After a rewrite its size was taken with the name of the file that it replaced.
    #[test]
    fn a_size_counts_only_with_the_name_of_its_own_file() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let files = |milliseconds, base: &str| (at(milliseconds), Sizes::of([(format!("{base}.base.rdb"), 1)]));
        let mut sampler = Sampler::new();
        let mut poll = |milliseconds, info: &Info, measured: &(Instant, Sizes)| {
            let sample = sampler.note(at(milliseconds), info, true, Some(measured));
            (sample.map(|sample| (sample.base, sample.bytes)), sampler.is_to_measure())
        };
        let (first, second) = (files(100, "1"), files(1_100, "2"));
        let of = |base: &str, bytes| (Some((format!("{base}.base.rdb"), bytes)), false);
        assert_eq!(poll(0, &info(0, 0, 50), &files(0, "0")), (None, true), "measured before it was asked");
        assert_eq!(poll(250, &info(0, 0, 60), &first), of("1", 67));
        assert_eq!(poll(500, &info(1, 1, 70), &first), of("1", 77), "a rewrite runs");
        assert_eq!(poll(750, &info(1, 0, 20), &first), (None, true), "it ended");
        assert_eq!(poll(1_000, &info(1, 0, 25), &first), (None, true), "measured before");
        assert_eq!(poll(1_250, &info(1, 0, 30), &second), of("2", 37));
        assert_eq!(poll(1_500, &info(3, 0, 30), &second), (None, true), "two rewrites between two polls");
        assert_eq!(poll(1_750, &info(4, 1, 30), &second), (None, false), "of files that are not known");
    }

    #[test]
    fn a_trail_becomes_thinner_with_its_age_and_ends_with_its_history() {
        let mut sampler = Sampler::new();
        let sample = |bytes| Sample { base: "1".to_owned(), bytes, led: false, boot: String::new() };
        let record = |id: &str, offset| {
            let text = format!(
                r#"{{"format":1,"layerUid":"uid","epoch":3,"term":2,"role":"Replica","replicationId":"{id}","previousReplicationId":null,
                "offset":{offset},"synced":true,"linkUp":true,"keys":1,"cleanStop":false}}"#
            );
            crate::agent::lineage_file::parse(&text).unwrap()
        };
        for step in 0..500 {
            sampler.follow(&record("a", step * 10), Some(&sample(step * 8)));
        }
        sampler.follow(&record("b", 5_000), Some(&sample(4_000)));
        let (end, points) = sampler.ended(&ReplicationId("a".to_owned())).unwrap();
        assert_eq!((end.offset, end.epoch, end.term), (Offset(4_990), 3, 2));
        assert_eq!(points.last(), Some(&TrailPoint(Offset(4_990), 3_992)));
        assert!(points.len() > 6 && points.len() <= TOLD && points[0].0.0 == 0, "{points:?}");
        assert!(points.is_sorted_by_key(|point| point.0));
        assert!(sampler.ended(&ReplicationId("b".to_owned())).is_none());
    }
}
