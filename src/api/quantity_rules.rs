//! Rules of admission for quantities and durations: what is wrong with a value is told where it is written, with the value and
//! what to write instead.
//!
//! A value that is no quantity must be refused when it is written: Kubernetes stores it otherwise, and each later comparison with
//! it fails. A rule that compares with the old value lets a bad one be replaced.

/// A duration as Go writes it, which is what Kubernetes' CEL reads.
const DURATION: &str = "'^[-+]?(0|([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+)$'";

/// The rule for an amount of bytes, of which there are at least `least`.
pub fn is_bytes(least: &str) -> String {
    format!("isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0")
}

/// What is said of a value that breaks [`is_bytes`].
pub fn bytes_message(field: &str, least: &str) -> String {
    format!(
        "'{field}: \"' + string(self) + '\" ' + (isQuantity(string(self)) \
         ? 'is less than {least}: write Mi or Gi behind the number' \
         : 'is not a quantity: write ' + (string(self).matches('^[0-9.]+[mMgGtT][bB]$') \
         ? string(self).upperAscii().replace('B', '') + ' or ' + string(self).upperAscii().replace('B', 'i') \
         : 'a number with M, G, Mi or Gi, such as 10Gi'))"
    )
}

/// The rule for a share of processors.
pub const IS_PROCESSORS: &str = "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) >= 0";

/// What is said of a value that breaks [`IS_PROCESSORS`].
pub const PROCESSORS_MESSAGE: &str =
    "'cpu: \"' + string(self) + '\" is not a quantity of processors: write 500m for half a processor, or 2'";

/// The rule for an amount of bytes that cannot be changed. One that is no quantity can be.
pub const BYTES_STAY: &str = "!isQuantity(string(oldSelf)) || !isQuantity(string(self)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) == 0";

/// The rule for a duration from `least` to `most`.
pub fn is_duration(least: &str, most: &str) -> String {
    format!(
        "{} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
        is_written_as_duration("self")
    )
}

/// Whether `value` can be read as a duration. Other rules that compare durations ask this first: otherwise they fail instead of
/// saying what is wrong.
pub fn is_written_as_duration(value: &str) -> String {
    format!("{value}.matches({DURATION})")
}

/// What is said of a value that breaks [`is_duration`].
pub fn duration_message(field: &str, least: &str, most: &str, example: &str) -> String {
    format!(
        "{} ? '{field} must be from {least} to {most}, such as {example}' : '{field}: \"' + self + '\" is not a duration: write h, m or s behind each number, such as {example}'",
        is_written_as_duration("self")
    )
}

/// The rule that of two optional durations of an object `lesser` is not above `greater`; both are fields' names.
pub fn is_not_above(lesser: &str, greater: &str) -> String {
    let [is_lesser, is_greater] = [lesser, greater].map(|field| is_written_as_duration(&format!("self.{field}")));
    format!(
        "!has(self.{lesser}) || !has(self.{greater}) || !{is_lesser} || !{is_greater} || duration(self.{lesser}) <= duration(self.{greater})"
    )
}
