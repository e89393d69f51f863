//! The sources of function libraries as a Secret has them: a list in JSON, compressed where it is long.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Bytes of them at most, in the Secret: it holds 1 MiB together with the users, of which 500 take half.
const MOST: usize = 400_000;
/// Bytes of a list at most that is read: more than any Secret holds unless it was made to grow.
const MOST_READ: u64 = 64 << 20;
/// What compressed bytes begin with, and no JSON does.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Why there are no sources in what was read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It begins as compressed bytes do and is none, or it is too long.
    #[error("cannot uncompress the sources of the functions")]
    Uncompress(#[source] std::io::Error),
    /// It is no list in JSON.
    #[error("cannot parse the sources of the functions")]
    Parse(#[source] serde_json::Error),
}

/// The sources as a Secret has them; `None`: they are too long for one. The same sources are the same bytes.
pub fn pack(sources: &[&str]) -> Option<Vec<u8>> {
    let text = serde_json::json!(sources).to_string().into_bytes();
    let packed = if text.len() <= MOST { text } else { compressed(&text)? };
    (packed.len() <= MOST).then_some(packed)
}

fn compressed(text: &[u8]) -> Option<Vec<u8>> {
    // It writes to memory, which takes all.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

/// The sources that are in such bytes.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<String>, Error> {
    if !bytes.starts_with(&GZIP) {
        return serde_json::from_slice(bytes).map_err(Error::Parse);
    }
    let mut text = Vec::new();
    GzDecoder::new(bytes).take(MOST_READ).read_to_end(&mut text).map_err(Error::Uncompress)?;
    serde_json::from_slice(&text).map_err(Error::Parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_back_as_they_were_however_long_they_are() {
        let long = "-- a limit like the one before\n".repeat(40_000);
        for sources in [vec![], vec!["#!lua name=a\n", ""], vec![long.as_str(), "#!lua name=\"ü\"\n"]] {
            let packed = pack(&sources).unwrap();
            assert!(packed.len() <= MOST);
            assert_eq!(unpack(&packed).unwrap(), sources);
            assert_eq!(pack(&sources).unwrap(), packed);
        }
        assert!(
            pack(&[&long]).unwrap().starts_with(&GZIP),
            "what is short can be read in the Secret, and this is long"
        );
    }

    #[test]
    fn what_no_secret_holds_is_not_packed() {
        // Digits of a generator that no compression makes short.
        let mut state = 1_u64;
        let random: String = (0..1_500_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'0' + u8::try_from((state >> 33) % 10).unwrap())
            })
            .collect();
        assert_eq!(pack(&[&random]), None);
    }

    #[test]
    fn bytes_that_are_no_sources_are_an_error() {
        let packed = pack(&["x".repeat(500_000).as_str()]).unwrap();
        for bytes in [&b"no JSON"[..], b"", &packed[..packed.len() / 2], &GZIP] {
            assert!(unpack(bytes).is_err());
        }
    }
}
