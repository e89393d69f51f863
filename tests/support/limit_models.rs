//! What each algorithm should decide, computed in another way than the functions do: from everything that was admitted, in whole
//! numbers of microseconds times quota, so without a rounded interval where the algorithm has none.

use std::collections::BTreeMap;

use redoubt::model::limit_policy::{Algorithm, Limit};

/// What a model decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub fits: bool,
    pub remaining: i64,
    /// Microseconds.
    pub reset: i64,
}

/// A limit of one subject, and all that it ever admitted: the moments in microseconds, with their costs.
pub struct Model {
    limit: Limit,
    admitted: Vec<(i64, i64)>,
    /// Of a bucket: its level in microseconds of filling, at the moment beside it.
    level: (i64, i64),
    /// Of a shaper: when what was admitted begins, with its cost.
    started: Vec<(i64, i64)>,
    /// Of a window from the first hit: that hit, if its window is not over.
    first_hit: Option<i64>,
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

impl Model {
    /// A limit of which nothing is used.
    pub fn new(limit: &Limit) -> Self {
        Self { limit: limit.clone(), admitted: Vec::new(), level: (i64::MAX, 0), started: Vec::new(), first_hit: None }
    }

    fn window(&self) -> i64 {
        whole(self.limit.window_milliseconds) * 1_000
    }

    /// Decides about a cost of at least 1 at a moment that is not before the last one.
    pub fn decide(&mut self, now: i64, cost: i64) -> Verdict {
        let verdict = match self.limit.algorithm {
            Algorithm::Gcra { burst } | Algorithm::TokenBucket { burst } | Algorithm::LeakyMeter { burst } => {
                self.bucket(now, cost, whole(burst))
            }
            Algorithm::LeakyShaper { burst } => {
                let before = self.bucket(now, 0, whole(burst)).reset;
                let verdict = self.bucket(now, cost, whole(burst));
                if verdict.fits {
                    self.begin(now + before, cost);
                }
                verdict
            }
            Algorithm::SlidingLog { .. } => {
                let window = self.window();
                self.counted(now, cost, |at| at > now - window, |newest| newest + window - now)
            }
            Algorithm::FixedWindow => {
                let index = now.div_euclid(self.window());
                let (window, begin) = (self.window(), index * self.window());
                self.counted(now, cost, |at| at >= begin, |_| begin + window - now)
            }
            Algorithm::FixedWindowFromFirstHit => {
                // The server knows the end to the millisecond.
                let left_at = |begin: i64, now: i64| {
                    begin.div_euclid(1_000) + whole(self.limit.window_milliseconds) - now.div_euclid(1_000)
                };
                let begin = self.first_hit.filter(|begin| left_at(*begin, now) > 0).unwrap_or(now);
                let left = left_at(begin, now) * 1_000;
                let verdict = self.counted(now, cost, |at| at >= begin, |_| left);
                if verdict.fits {
                    self.first_hit = Some(begin);
                }
                verdict
            }
            Algorithm::SlidingCounter => self.counter(now, cost),
        };
        if verdict.fits {
            self.admitted.push((now, cost));
        }
        verdict
    }

    /// A bucket that holds `burst` and fills by one each interval.
    fn bucket(&mut self, now: i64, cost: i64, burst: i64) -> Verdict {
        let interval = whole(self.limit.interval_microseconds());
        let (level, at) = self.level;
        let full = burst * interval;
        let level = level.saturating_add(now - at).min(full);
        let fits = level >= cost * interval;
        let level = if fits { level - cost * interval } else { level };
        self.level = (level, now);
        Verdict { fits, remaining: level / interval, reset: full - level }
    }

    /// Work of a shaper begins when what was admitted before it is done.
    fn begin(&mut self, start: i64, cost: i64) {
        let interval = whole(self.limit.interval_microseconds());
        if let Some((last, of)) = self.started.last() {
            assert!(start >= last + of * interval, "begun {} µs too early", last + of * interval - start);
        }
        self.started.push((start, cost));
    }

    /// A quota over what was admitted at the moments that count, all of which end together with the newest.
    fn counted(&self, now: i64, cost: i64, counts: impl Fn(i64) -> bool, ends: impl Fn(i64) -> i64) -> Verdict {
        let quota = whole(self.limit.quota);
        let used: i64 = self.admitted.iter().rev().take_while(|(at, _)| counts(*at)).map(|(_, cost)| cost).sum();
        let fits = used + cost <= quota;
        let used = if fits { used + cost } else { used };
        let newest = if fits { Some(now) } else { self.admitted.last().map(|(at, _)| *at) };
        let reset = newest.filter(|_| used > 0).map_or(0, ends);
        Verdict { fits, remaining: (quota - used).max(0), reset }
    }

    /// Two windows of the clock, the older one as far as it overlaps the one that ends now: in units of 1 / window.
    fn counter(&self, now: i64, cost: i64) -> Verdict {
        let (quota, window) = (i128::from(self.limit.quota), i128::from(self.window()));
        let index = i128::from(now).div_euclid(window);
        let mut by_window: BTreeMap<i128, i128> = BTreeMap::new();
        for (at, cost) in self.admitted.iter().rev() {
            let of = i128::from(*at).div_euclid(window);
            if of + 1 < index {
                break;
            }
            *by_window.entry(of).or_default() += i128::from(*cost);
        }
        let of = |index: i128| by_window.get(&index).copied().unwrap_or_default();
        let left = (index + 1) * window - i128::from(now);
        let before = of(index - 1) * left;
        let fits = before + (of(index) + i128::from(cost)) * window <= quota * window;
        let current = of(index) + if fits { i128::from(cost) } else { 0 };
        let remaining = ((quota - current) * window - before).div_euclid(window).max(0);
        let reset = match (current, of(index - 1)) {
            (1.., _) => left + window,
            (_, 1..) => left,
            _ => 0,
        };
        let short = |number: i128| i64::try_from(number).unwrap();
        Verdict { fits, remaining: short(remaining), reset: short(reset) }
    }

    /// The cost that was admitted within the fullest span of one window, wherever it begins.
    pub fn fullest_window(&self) -> i64 {
        fullest(&self.admitted, self.window())
    }

    /// Of a shaper: the cost that began within the fullest span of one window.
    pub fn fullest_window_of_starts(&self) -> i64 {
        fullest(&self.started, self.window())
    }
}

/// The cost within the fullest span of this length, of costs at moments in their order.
fn fullest(costs: &[(i64, i64)], window: i64) -> i64 {
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, cost) in costs {
        sum += cost;
        while costs[first].0 <= at - window {
            sum -= costs[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}
