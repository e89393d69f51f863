//! Files that a crash leaves whole: the old text or the new one, never half of one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::{Error, Result};

/// Replaces a file: written next to it, flushed to the disk, renamed into its place, and the folder flushed too, without
/// which the name may still be the old file's after a power cut.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let part = path.with_extension("part");
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let mut file = File::create(&part).map_err(failed("create", &part))?;
    file.write_all(text.as_ref()).map_err(failed("write", &part))?;
    file.sync_all().map_err(failed("flush", &part))?;
    fs::rename(&part, path).map_err(failed("move to", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", folder))
}

/// Reads a file as text, with a sign in place of bytes that are none. `None`: there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    Ok(read_bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads a file. `None`: there is no such file.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

/// Keeps a damaged file for a person to look at, and lets work go on without it.
pub(crate) fn set_aside(path: &Path, problem: &str) {
    let aside = path.with_extension("damaged");
    tracing::error!(path = %path.display(), problem, kept_as = %aside.display(), "a damaged file is not believed");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(%error, "it stays where it is");
    }
}

/// The error of a file operation, with the file's name.
pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { verb, path, source }
}
