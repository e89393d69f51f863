//! The init container's work: our own binary into a folder that the engine's container sees.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Error, Result};

/// Copies the running binary to `DIRECTORY/redoubt`, in one rename, so that a half copy is never run.
pub(crate) fn install(directory: &Path) -> Result<()> {
    let (part, target) = (directory.join(".redoubt.part"), directory.join("redoubt"));
    let failed = |verb: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source| Error::File { verb, path, source }
    };
    fs::copy("/proc/self/exe", &part).map_err(failed("copy the agent to", &part))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).map_err(failed("make executable", &part))?;
    fs::rename(&part, &target).map_err(failed("move the agent to", &target))
}
