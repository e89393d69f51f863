//! Files and folders of a dataset: linked, copied, measured.

use std::fs;
use std::path::Path;

/// A hard link of a file, or one of each file in a folder; a copy where the volume takes no links.
pub(super) fn link_or_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    each_file(from, to, &|from, to| fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)))
}

pub(super) fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    each_file(from, to, &|from, to| fs::hard_link(from, to))
}

fn each_file(from: &Path, to: &Path, take: &dyn Fn(&Path, &Path) -> std::io::Result<()>) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            each_file(&entry.path(), &to.join(entry.file_name()), take)?;
        }
        return Ok(());
    }
    match take(from, to) {
        // The engine removed it between the list and the link.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        taken => taken,
    }
}

pub(super) fn size(path: &Path) -> u64 {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
        }
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}
