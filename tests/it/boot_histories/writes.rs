//! A set of writes, one bit each: a world copies it many times a second.

use std::fmt;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Writes(Vec<u64>);

impl Writes {
    pub fn insert(&mut self, id: usize) {
        if self.0.len() <= id / 64 {
            self.0.resize(id / 64 + 1, 0);
        }
        self.0[id / 64] |= 1 << (id % 64);
    }

    pub fn add(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word |= other;
        }
    }

    /// Those that are in both.
    pub fn and(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(word, other)| word & other).collect())
    }

    /// Those that are in this one alone.
    pub fn without(&self, others: &Self) -> Self {
        let word_of = |index: usize| others.0.get(index).copied().unwrap_or(0);
        Self(self.0.iter().enumerate().map(|(index, word)| word & !word_of(index)).collect())
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Writes {
    /// As runs: `1..=70 72..=72`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |id: usize| self.0.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 == 1);
        let mut first = None;
        for id in 0..=self.0.len() * 64 {
            match (has(id), first) {
                (true, None) => first = Some(id),
                (false, Some(from)) => {
                    write!(formatter, "{from}..={} ", id - 1)?;
                    first = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
        Ok(())
    }
}
