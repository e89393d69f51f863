//! What the functions of a kind of use count.

/// What the rows of a kind hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// What of a use has a row of its own, in one word; `None`: a use has one row.
    pub part: Option<&'static str>,
    /// Name of each column in the order of a row, and what it counts.
    pub names: &'static [(&'static str, &'static str)],
    /// Which of them are reads that may find nothing; `None`: none are.
    pub reads: Option<ReadColumns>,
}

/// Columns that count reads, by what the reads found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadColumns {
    /// Names of the columns of reads that found something.
    pub found: &'static [&'static str],
    /// Names of the columns of reads that found nothing.
    pub absent: &'static [&'static str],
}
