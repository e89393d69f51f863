//! A snapshot that holds functions and no keys.

/// The oldest version of the format that holds functions: each newer engine reads it.
const HEADER: &[u8] = b"REDIS0010";
/// A function library follows (`RDB_OPCODE_FUNCTION2`).
const LIBRARY: u8 = 0xF5;
/// Nothing follows but the checksum, of which zeros say that there is none.
const END: [u8; 9] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 0];
/// What an answer of `FUNCTION DUMP` ends with: the version of the format, and a checksum.
const TRAILER: usize = 10;

/// The snapshot of the libraries of these sources.
pub(super) fn of_sources(sources: &[String]) -> Vec<u8> {
    let mut libraries = Vec::new();
    for source in sources {
        libraries.push(LIBRARY);
        length(&mut libraries, source.len());
        libraries.extend(source.as_bytes());
    }
    of_libraries(&libraries)
}

/// The snapshot of the libraries in an answer of `FUNCTION DUMP`; `None`: it is none, or has no library.
pub(super) fn of_dump(dump: &[u8]) -> Option<Vec<u8>> {
    let libraries = &dump[..dump.len().checked_sub(TRAILER)?];
    (libraries.first() == Some(&LIBRARY)).then(|| of_libraries(libraries))
}

fn of_libraries(libraries: &[u8]) -> Vec<u8> {
    [HEADER, libraries, &END].concat()
}

/// A length as the format has it: six bits, fourteen bits, or 32.
fn length(bytes: &mut Vec<u8>, length: usize) {
    let [_, _, _, _, a, b, c, d] = (length as u64).to_be_bytes();
    match length {
        0..0x40 => bytes.push(d),
        0x40..0x4000 => bytes.extend([0x40 | c, d]),
        _ => bytes.extend([0x80, a, b, c, d]),
    }
}

/// Bytes of a snapshot that tell whether it is one of ours.
pub(super) const HEAD: u64 = (HEADER.len() + END.len() + 1) as u64;

/// Whether a snapshot that begins so is one of ours: an engine writes fields about itself before anything else.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    bytes.len() > HEADER.len()
        && bytes.starts_with(b"REDIS")
        && (bytes[HEADER.len()] == LIBRARY || bytes.ends_with(&END) && bytes.len() == HEADER.len() + END.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_the_format_has_them() {
        let written = |number: usize| {
            let mut bytes = Vec::new();
            length(&mut bytes, number);
            bytes
        };
        assert_eq!(written(0x3F), [0x3F]);
        assert_eq!(written(0x40), [0x40, 0x40]);
        assert_eq!(written(0x3FFF), [0x7F, 0xFF]);
        assert_eq!(written(0x4000), [0x80, 0, 0, 0x40, 0]);
        assert_eq!(written(0x0012_3456), [0x80, 0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn only_a_snapshot_of_functions_is_ours() {
        assert!(is_ours(&of_sources(&["#!lua name=a\n".to_owned()])));
        assert!(is_ours(&of_sources(&[])));
        // An engine's begins with fields about itself.
        assert!(!is_ours(b"REDIS0010\xFA\x09redis-ver\x067.0.15"));
        assert!(!is_ours(b"") && !is_ours(b"REDIS0010") && !is_ours(b"something else entirely"));
    }

    #[test]
    fn a_dump_is_a_snapshot_without_its_trailer() {
        let sources = ["#!lua name=a\n".to_owned()];
        let snapshot = of_sources(&sources);
        let libraries = &snapshot[HEADER.len()..snapshot.len() - END.len()];
        assert_eq!(of_dump(&[libraries, &[12; TRAILER]].concat()), Some(snapshot.clone()));
        for dump in [&b""[..], &[LIBRARY], &[12; TRAILER], &[12; TRAILER + 1]] {
            assert_eq!(of_dump(dump), None);
        }
    }
}
