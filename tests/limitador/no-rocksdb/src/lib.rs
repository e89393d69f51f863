//! Stands in for RocksDB. Limitador 0.14 compiles its Redis storage only together with its disk storage, whose library takes a quarter
//! of an hour to compile. No call here ever succeeds.

use std::fmt;
use std::path::Path;

/// What every call answers.
#[derive(Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("there is no RocksDB here")
    }
}

impl std::error::Error for Error {}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[derive(PartialEq, Eq)]
pub enum ErrorKind {
    TimedOut,
    TryAgain,
    Other,
}

pub enum CompactionDecision {
    Keep,
    Remove,
}

pub enum DBCompressionType {
    Bz2,
    None,
}

pub enum IteratorMode {
    Start,
}

pub struct MultiThreaded;

#[derive(Default)]
pub struct Options;

impl Options {
    pub fn set_compression_type(&mut self, _: DBCompressionType) {}
    pub fn set_compaction_filter(&mut self, _: &str, _: impl Fn(u32, &[u8], &[u8]) -> CompactionDecision) {}
    pub fn set_merge_operator_associative(&mut self, _: &str, _: impl Fn(&[u8], Option<&[u8]>, Vec<&[u8]>) -> Option<Vec<u8>>) {}
    pub fn create_if_missing(&mut self, _: bool) {}
}

pub struct DBWithThreadMode<T>(std::marker::PhantomData<T>);

pub type DB = DBWithThreadMode<MultiThreaded>;

type Entry = Result<(Box<[u8]>, Box<[u8]>), Error>;

impl<T> DBWithThreadMode<T> {
    pub fn open(_: &Options, _: impl AsRef<Path>) -> Result<Self, Error> {
        Err(Error)
    }

    pub fn get(&self, _: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        Err(Error)
    }

    pub fn merge(&self, _: impl AsRef<[u8]>, _: impl AsRef<[u8]>) -> Result<(), Error> {
        Err(Error)
    }

    pub fn delete(&self, _: impl AsRef<[u8]>) -> Result<(), Error> {
        Err(Error)
    }

    pub fn iterator(&self, _: IteratorMode) -> std::iter::Empty<Entry> {
        std::iter::empty()
    }

    pub fn prefix_iterator(&self, _: impl AsRef<[u8]>) -> std::iter::Empty<Entry> {
        std::iter::empty()
    }
}
