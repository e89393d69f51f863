//! A job that removes the keys of a cache that begin alike: how it is written in the cache's hash of jobs. The function
//! `redoubt_cache_invalidate_prefix` writes it, the agent of the primary carries it out, and the operator reads how far it is.

/// What the key of the hash has behind the cache's prefix.
pub(crate) const JOBS: &str = "{@jobs}";
/// Jobs of one cache at most. Functions keep fewer; a hash with more was written by others and is not read.
pub(crate) const MOST_JOBS: usize = 200;
/// Bytes of a beginning at most: no key of the functions is longer.
pub(crate) const LONGEST_BEGINNING: usize = 1024;
/// How long a hash of jobs is kept after the last change, milliseconds.
pub(crate) const KEPT_MS: u64 = 604_800_000;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// No agent has begun.
    Waiting,
    /// An agent is at it, or was when the primary changed.
    Running,
    /// Every key that was there when it was asked for is gone.
    Done,
}

impl JobState {
    /// The word in the job's entry in Redis.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

/// A job that removes keys by a prefix, as the server stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixJob {
    /// How far it is.
    pub state: JobState,
    /// Keys removed so far.
    pub removed: u64,
    /// What the keys begin with; begins with the cache's prefix.
    pub beginning: Vec<u8>,
}

impl PrefixJob {
    /// Reads `STATE REMOVED BEGINNING`. `None`: it is no job of the cache with this prefix, whose user may write anything there.
    pub fn read(prefix: &str, text: &[u8]) -> Option<Self> {
        let mut words = text.splitn(3, |byte| *byte == b' ');
        let (state, removed, beginning) = (words.next()?, words.next()?, words.next()?);
        let states = [JobState::Waiting, JobState::Running, JobState::Done];
        let state = states.into_iter().find(|known| known.word().as_bytes() == state)?;
        let removed = std::str::from_utf8(removed).ok()?.parse().ok()?;
        let is_of_the_cache = beginning.starts_with(prefix.as_bytes()) && beginning.len() <= LONGEST_BEGINNING;
        is_of_the_cache.then(|| Self { state, removed, beginning: beginning.to_vec() })
    }

    /// The entry as it is in Redis: state, number of removed keys, beginning.
    pub(crate) fn text(&self) -> Vec<u8> {
        [format!("{} {} ", self.state.word(), self.removed).as_bytes(), &self.beginning].concat()
    }

    pub(crate) fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::with_capacity(self.beginning.len() + 1);
        for byte in &self.beginning {
            if b"*?[]\\".contains(byte) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        pattern.push(b'*');
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_is_written_with_any_bytes_in_its_beginning() {
        for beginning in [&b"web:"[..], b"web:{0}a b \xff*"] {
            for state in [JobState::Waiting, JobState::Running, JobState::Done] {
                let job = PrefixJob { state, removed: 7, beginning: beginning.to_vec() };
                assert_eq!(PrefixJob::read("web:", &job.text()), Some(job));
            }
        }
        assert_eq!(PrefixJob::read("web:", b"waiting 0 web:{0}").unwrap().state, JobState::Waiting);
    }

    #[test]
    fn what_is_no_job_of_the_cache_is_left_alone() {
        let long = [b"waiting 0 web:".to_vec(), vec![b'x'; LONGEST_BEGINNING]].concat();
        for text in [
            &b""[..],
            b"waiting",
            b"waiting 0",
            b"waiting 0 ",
            b"waiting 0 api:x",
            b"waiting 0 we",
            b"waiting -1 web:",
            b"waiting x web:",
            b"Waiting 0 web:",
            b"late 0 web:",
            &long,
        ] {
            assert_eq!(PrefixJob::read("web:", text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn no_byte_of_a_beginning_means_anything_in_the_pattern() {
        let job = PrefixJob { state: JobState::Waiting, removed: 0, beginning: b"web:a*[b]?\\-^".to_vec() };
        assert_eq!(job.pattern(), b"web:a\\*\\[b\\]\\?\\\\-^*");
    }
}
