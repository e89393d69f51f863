//! What the caches' functions answer, written down once more and as plainly as can be: entries, leases and generations of one group
//! of a namespace, with a clock of the test's and without chance.

use std::collections::BTreeMap;

use redoubt::model::cache_policy::CachePolicy;

/// Milliseconds in microseconds.
const MS: i64 = 1_000;

#[derive(Clone)]
struct Entry {
    /// `None`: known to be absent.
    value: Option<String>,
    is_tombstone: bool,
    version: i64,
    /// Milliseconds on the clock: its last fresh one, and its last one.
    fresh_until: i64,
    ends: i64,
    tags: Vec<(String, i64)>,
}

#[derive(Clone)]
struct Lease {
    /// The number of the call that got it; `None`: the source is down.
    token: Option<usize>,
    /// Milliseconds on the clock: its last one.
    ends: i64,
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub enum Call {
    Get,
    Check,
    GetReadOnly,
    /// `token`: of the call of this number; `None`: a plain set.
    Set {
        token: Option<usize>,
        value: String,
        tags: Vec<String>,
    },
    SetIfVersion {
        version: i64,
        value: String,
        tags: Vec<String>,
    },
    Negative {
        token: Option<usize>,
    },
    Fail {
        token: usize,
        retry: i64,
    },
    Invalidate,
    InvalidateTag(String),
    /// The server forgets a generation.
    Evict(String),
}

/// What a call answers: of a reading one the verdict, the value, whether there is a token, and the milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Read(i64, Option<String>, bool, i64),
    Number(i64),
}

/// A group of a namespace.
pub struct Model {
    policy: CachePolicy,
    entries: BTreeMap<usize, Entry>,
    leases: BTreeMap<usize, Lease>,
    generations: BTreeMap<String, i64>,
    /// When any tag was invalidated last.
    invalidated: i64,
    /// When each token was given.
    tokens: BTreeMap<usize, i64>,
}

impl Model {
    pub fn new(policy: CachePolicy) -> Self {
        Self {
            policy,
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            generations: BTreeMap::new(),
            invalidated: 0,
            tokens: BTreeMap::new(),
        }
    }

    fn lease(&self, key: usize, now: i64) -> Option<Lease> {
        self.leases.get(&key).filter(|lease| lease.ends >= now / MS).cloned()
    }

    fn stored(&self, key: usize, now: i64) -> Option<Entry> {
        self.entries.get(&key).filter(|entry| entry.ends >= now / MS).cloned()
    }

    /// Takes the lease, unless another has it.
    fn take(&mut self, key: usize, now: i64, call: usize) -> Result<i64, Lease> {
        if let Some(lease) = self.lease(key, now) {
            return Err(lease);
        }
        let lasts = i64::try_from(self.policy.lease_ms).unwrap();
        self.leases.insert(key, Lease { token: Some(call), ends: now / MS + lasts });
        self.tokens.insert(call, now);
        Ok(lasts)
    }

    fn read(&mut self, key: usize, now: i64, call: usize, leases: bool, is_whole: bool) -> Reply {
        let entry = self.stored(key, now).filter(|entry| {
            let holds = |(tag, generation): &(String, i64)| self.generations.get(tag) == Some(generation);
            !entry.is_tombstone && entry.tags.iter().all(holds)
        });
        if let Some(entry) = entry {
            let value = entry.value.clone().filter(|_| is_whole);
            let is_fresh = entry.fresh_until > now / MS;
            let has_stale = entry.ends > entry.fresh_until;
            match (is_fresh, has_stale) {
                (true, _) => return Reply::Read(if entry.value.is_some() { 1 } else { 4 }, value, false, 0),
                (false, true) if !leases => return Reply::Read(2, value, false, 0),
                (false, true) => {
                    return match self.take(key, now, call) {
                        Ok(lasts) => Reply::Read(3, value, true, lasts),
                        Err(lease) => Reply::Read(2, value, false, (lease.ends - now / MS).max(1)),
                    };
                }
                (false, false) => {}
            }
        }
        if !leases {
            return Reply::Read(0, None, false, 0);
        }
        match self.take(key, now, call) {
            Ok(lasts) => Reply::Read(0, None, true, lasts),
            Err(lease) => {
                let verdict = if lease.token.is_some() { -1 } else { -2 };
                Reply::Read(verdict, None, false, (lease.ends - now / MS).max(1))
            }
        }
    }

    /// The generations of tags for an entry; `None`: one of them was invalidated since the computation began.
    fn tagged(&mut self, now: i64, began: Option<i64>, tags: &[String]) -> Option<Vec<(String, i64)>> {
        let lasts = i64::try_from(self.policy.lease_ms).unwrap() * MS;
        let mut all = Vec::new();
        for tag in tags {
            let generation = match self.generations.get(tag) {
                Some(generation) if began.is_some_and(|began| *generation >= began) => return None,
                Some(generation) => *generation,
                None if began.is_some_and(|began| began <= self.invalidated) => return None,
                None => (self.invalidated + 1).max(now - lasts),
            };
            self.generations.insert(tag.clone(), generation);
            all.push((tag.clone(), generation));
        }
        Some(all)
    }

    fn store(&mut self, key: usize, now: i64, token: Option<usize>, entry: Entry, tags: &[String]) -> Reply {
        let mut began = None;
        if let Some(token) = token {
            if self.lease(key, now).is_none_or(|lease| lease.token != Some(token)) {
                return Reply::Number(0);
            }
            began = self.tokens.get(&token).copied();
        }
        let tags = self.tagged(now, began, tags);
        self.leases.remove(&key);
        let Some(tags) = tags else { return Reply::Number(0) };
        let version = entry.version.max(self.stored(key, now).map_or(0, |stored| stored.version));
        self.entries.insert(key, Entry { version, tags, ..entry });
        Reply::Number(1)
    }

    fn entry(&self, now: i64, value: Option<String>, version: i64) -> Entry {
        let CachePolicy { ttl_ms, stale_ms, negative_ms, .. } = self.policy;
        let (fresh, stale) = if value.is_some() { (ttl_ms, stale_ms) } else { (negative_ms, 0) };
        let fresh_until = now / MS + i64::try_from(fresh).unwrap();
        let ends = fresh_until + i64::try_from(stale).unwrap();
        Entry { value, is_tombstone: false, version, fresh_until, ends, tags: vec![] }
    }

    /// What the call of this number, about the entry `key`, answers at this moment.
    pub fn answer(&mut self, call: usize, key: usize, now: i64, asked: &Call) -> Reply {
        match asked {
            Call::Get => self.read(key, now, call, true, true),
            Call::Check => self.read(key, now, call, true, false),
            Call::GetReadOnly => self.read(key, now, call, false, true),
            Call::Set { token, value, tags } => {
                self.store(key, now, *token, self.entry(now, Some(value.clone()), 0), tags)
            }
            Call::SetIfVersion { version, value, tags } => {
                if self.stored(key, now).is_some_and(|stored| stored.version >= *version) {
                    return Reply::Number(0);
                }
                self.store(key, now, None, self.entry(now, Some(value.clone()), *version), tags)
            }
            Call::Negative { token } => self.store(key, now, *token, self.entry(now, None, 0), &[]),
            Call::Fail { token, retry } => {
                if self.lease(key, now).is_none_or(|lease| lease.token != Some(*token)) {
                    return Reply::Number(0);
                }
                self.leases.insert(key, Lease { token: None, ends: now / MS + retry });
                Reply::Number(1)
            }
            Call::Invalidate => {
                self.leases.remove(&key);
                let Some(stored) = self.stored(key, now) else { return Reply::Number(0) };
                if stored.version > 0 && stored.ends > now / MS {
                    self.entries.insert(key, Entry { is_tombstone: true, tags: vec![], ..stored.clone() });
                } else {
                    self.entries.remove(&key);
                }
                Reply::Number(i64::from(!stored.is_tombstone))
            }
            Call::InvalidateTag(tag) => {
                self.invalidated = now;
                self.generations.insert(tag.clone(), now);
                Reply::Number(1)
            }
            Call::Evict(tag) => Reply::Number(i64::from(self.generations.remove(tag).is_some())),
        }
    }
}
