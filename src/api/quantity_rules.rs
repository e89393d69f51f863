//! Rules of admission for quantities and durations: what is wrong with a value is told where it is written, with the value and
//! what to write instead.
//!
//! A value that is no quantity must be refused when it is written: Kubernetes stores it otherwise, and each later comparison with
//! it fails. A rule that compares with the old value lets a bad one be replaced.

/// A duration as Go writes it, which is what Kubernetes' CEL reads.
const DURATION: &str = "'^[-+]?(0|([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+)$'";

/// More than any machine has, and less than what overflows when it is multiplied.
const MOST_BYTES: &str = "64Ti";
/// The smallest volume of a data node. A smaller one is a number without its unit.
pub(crate) const LEAST_VOLUME: &str = "64Mi";

/// The rule for an amount of bytes, of which there are at least `least`.
pub(crate) fn is_bytes(least: &str) -> String {
    format!(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0 && quantity(string(self)).compareTo(quantity('{MOST_BYTES}')) <= 0"
    )
}

/// What to write as the limit of memory, at the defaults. `validate` says the exact number where something else is declared.
pub(crate) const ENOUGH_MEMORY: &str = "73Mi or more, for purpose Cache 92Mi or more";
/// Of a value below the least: `NUMBER has no unit …`.
pub(crate) const HAS_NO_UNIT: &str = "has no unit such as Mi or Gi: write";
/// Of one that has a unit.
pub(crate) const IS_TOO_SMALL: &str = "is too small: write";

/// What is said of a value that breaks [`is_bytes`]; `enough`: what to write instead of one below `least`.
pub(crate) fn bytes_message(field: &str, least: &str, enough: &str) -> String {
    format!(
        "'{field}: \"' + string(self) + '\" ' + (isQuantity(string(self)) \
         ? (quantity(string(self)).compareTo(quantity('{least}')) < 0 \
         ? (string(self).matches('^[0-9.]+m?$') ? '{HAS_NO_UNIT} {enough}' : '{IS_TOO_SMALL} {enough}') \
         : 'is more than {MOST_BYTES}') \
         : 'is not a quantity: write ' + (string(self).matches('^[0-9.]+[mMgGtT][bB]$') \
         ? string(self).upperAscii().replace('B', '') + ' or ' + string(self).upperAscii().replace('B', 'i') \
         : 'a number with M, G, Mi or Gi, such as 10Gi'))"
    )
}

/// The rule for a share of processors. No machine has as many as the most.
pub(crate) const IS_PROCESSORS: &str = "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1m')) >= 0 && quantity(string(self)).compareTo(quantity('1000')) <= 0";

/// What is said of a value that breaks [`IS_PROCESSORS`].
pub(crate) const PROCESSORS_MESSAGE: &str = "'cpu: \"' + string(self) + '\" is not a quantity of processors from 1m to 1000: write 500m for half a processor, or 2'";

/// The rule for an amount of bytes that cannot be changed. One that is no quantity can be.
pub(crate) const BYTES_STAY: &str = "!isQuantity(string(oldSelf)) || !isQuantity(string(self)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) == 0";

/// The rule for a duration from `least` to `most`.
pub(crate) fn is_duration(least: &str, most: &str) -> String {
    format!(
        "{} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
        is_written_as_duration("self")
    )
}

/// Whether `value` can be read as a duration. Other rules that compare durations ask this first: otherwise they fail instead of
/// saying what is wrong.
pub(crate) fn is_written_as_duration(value: &str) -> String {
    format!("{value}.matches({DURATION})")
}

/// What is said of a value that breaks [`is_duration`].
pub(crate) fn duration_message(field: &str, least: &str, most: &str, example: &str) -> String {
    format!(
        "{} ? '{field} must be from {least} to {most}, such as {example}' : '{field}: \"' + self + '\" is not a duration: write h, m or s behind each number, such as {example}'",
        is_written_as_duration("self")
    )
}

/// The rule that of two optional durations of an object `lesser` is not above `greater`; both are fields' names.
pub(crate) fn is_not_above(lesser: &str, greater: &str) -> String {
    let [is_lesser, is_greater] = [lesser, greater].map(|field| is_written_as_duration(&format!("self.{field}")));
    format!(
        "!has(self.{lesser}) || !has(self.{greater}) || !{is_lesser} || !{is_greater} || duration(self.{lesser}) <= duration(self.{greater})"
    )
}

/// The rule that a volume of the data holds as much as `memory.limit`, for the specification of a layer that is called `spec` in it. The
/// files are twice as large as `maxmemory` while they are rewritten, and that is the limit where nothing is said of percentages.
/// `validate` knows the exact number.
pub(crate) fn volume_holds_the_data(spec: &str) -> String {
    let size = format!("string({spec}.persistence.volume.size)");
    let limit = format!("({})", limit_of(spec));
    format!(
        "!has({spec}.persistence) || !has({spec}.persistence.volume) || !has({spec}.persistence.volume.size) \
         || !(has({spec}.persistence.appendOnly) ? {spec}.persistence.appendOnly : !(has({spec}.purpose) && {spec}.purpose in ['Cache', 'RateLimits'])) \
         || (has({spec}.memory) && has({spec}.memory.maxmemoryPercent) && {spec}.memory.maxmemoryPercent < 50) \
         || !isQuantity({size}) || quantity({size}).compareTo(quantity('{LEAST_VOLUME}')) < 0 || !isQuantity{limit} || quantity({size}).compareTo(quantity{limit}) >= 0"
    )
}

/// What is said of a volume that does not.
pub(crate) fn volume_message() -> String {
    format!(
        "'persistence.volume.size: \"' + string(self.persistence.volume.size) + '\" is less than memory.limit, ' + ({}) \
         + ': the files of the data are twice as large as maxmemory while they are rewritten'",
        limit_of("self")
    )
}

fn limit_of(spec: &str) -> String {
    format!("has({spec}.memory) && has({spec}.memory.limit) ? string({spec}.memory.limit) : '256Mi'")
}
