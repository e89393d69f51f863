//! Links to the node's dataset as it is. They keep the files where something overwrites the dataset.

use std::fs;
use std::path::Path;

use super::files::{link, size};
use super::folders::{self, FILES, LINKS, finish, has_room, note, root, write_note};
use crate::agent::append_files::Sizes;
use crate::agent::config::Environment;
use crate::agent::{Result, durable, lineage_file};
use crate::model::lineage::{Aside, AsideReason, Lineage};

/// Links that were made, and are not known yet to be of the data that they are taken for.
const RENEWED: &str = ".renewed";

/// The record of the data that the links hold. `None`: there are none.
pub(crate) fn links_record(environment: &Environment) -> Option<Lineage> {
    let text = fs::read_to_string(root(environment).join(LINKS).join("redoubt/lineage.json")).ok()?;
    lineage_file::parse(&text).ok()
}

/// Makes the links those of the files as they are. Only while the engine is off: see [`link_files`].
pub(crate) fn renew_links(environment: &Environment, record: &Lineage) -> Result<()> {
    link_files(environment)?;
    take_links(environment, record)
}

/// Makes links of the files as they are, next to the ones before; none where those are links to the same files. A running server may
/// replace its files meanwhile, so the caller asks it afterwards whose data it has, and then calls [`take_links`].
pub(crate) fn link_files(environment: &Environment) -> Result<()> {
    let part = root(environment).join(RENEWED);
    let _ = fs::remove_dir_all(&part);
    let links = root(environment).join(LINKS);
    let is_empty = FILES[..3].iter().all(|name| !environment.data.join(name).exists());
    if is_empty || (links.exists() && is_current(environment)) {
        return Ok(());
    }
    fs::create_dir_all(part.join("redoubt")).map_err(durable::failed("make", &part))?;
    for name in &FILES[..3] {
        let (from, to) = (environment.data.join(name), part.join(name));
        // Links only: a copy of the dataset for each rewrite would cost as much as the rewrite.
        if from.exists() {
            link(&from, &to).map_err(durable::failed("link", &from))?;
        }
    }
    Ok(())
}

/// Puts the links that [`link_files`] made in the place of the ones before. `record`: of their data, which is not always the record
/// on the volume: that one is written at other times.
pub(crate) fn take_links(environment: &Environment, record: &Lineage) -> Result<()> {
    let (links, part) = (root(environment).join(LINKS), root(environment).join(RENEWED));
    if part.exists() {
        write_record(&part, record)?;
        let _ = fs::remove_dir_all(&links);
        return fs::rename(&part, &links).map_err(durable::failed("move to", &links));
    }
    note_links(environment, record)
}

/// Writes of which data the links are, without touching them. Where there are none, nothing is written.
pub(crate) fn note_links(environment: &Environment, record: &Lineage) -> Result<()> {
    let links = root(environment).join(LINKS);
    if links.exists() { write_record(&links, record) } else { Ok(()) }
}

/// Not flushed: links that a power cut takes are made again at the next start.
fn write_record(folder: &Path, record: &Lineage) -> Result<()> {
    let path = folder.join(FILES[3]);
    let text = lineage_file::render(record).map_err(|error| durable::failed("render", &path)(error.into()))?;
    let part = path.with_extension("part");
    fs::write(&part, text).map_err(durable::failed("write", &part))?;
    fs::rename(&part, &path).map_err(durable::failed("move to", &path))
}

/// Whether commands were appended to the files that the links hold. A record that counts no keys may be older than they are.
pub(crate) fn links_have_commands(environment: &Environment) -> bool {
    let links = root(environment).join(LINKS);
    let is_appended = |path: &Path| path.extension().is_some_and(|end| end == "aof") && size(path) > 0;
    let entries = fs::read_dir(links.join(FILES[0])).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).chain([links.join(FILES[1])]).any(|path| is_appended(&path))
}

/// Bytes of the append-only files that the links hold, without the manifest: as a server counts them (`aof_current_size`).
pub(crate) fn links_appended(environment: &Environment) -> u64 {
    let entries = fs::read_dir(root(environment).join(LINKS).join(FILES[0])).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end != "manifest"));
    files.map(|path| size(&path)).sum()
}

/// Whether the links are to the files as they are. The record is replaced once a second; what it speaks of is in the others.
pub(crate) fn is_current(environment: &Environment) -> bool {
    let links = root(environment).join(LINKS);
    FILES[..3].iter().all(|name| inodes(&environment.data.join(name)) == inodes(&links.join(name)))
}

/// Makes the links free for files that were put in the place of those that they hold, which become a kept folder. Files
/// without a record may be such files.
///
/// # Errors
/// As [`super::folders::keep`]; the links are still there then.
pub(crate) fn free_links(environment: &Environment) -> Result<()> {
    match links_record(environment) {
        Some(earlier) if !is_current(environment) => keep_links(environment, AsideReason::Replaced, &earlier).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Moves the node's files away as [`folders::move_away`] does. Links to these very files go: they would become a second folder of the same.
///
/// # Errors
/// As there; the links are still there then.
pub(crate) fn move_away(
    environment: &Environment,
    reason: AsideReason,
    lineage: Option<&Lineage>,
) -> Result<Option<Aside>> {
    let are_linked = is_current(environment);
    let moved = folders::move_away(environment, reason, lineage)?;
    if moved.is_some() && are_linked {
        let _ = fs::remove_dir_all(root(environment).join(LINKS));
    }
    Ok(moved)
}

fn inodes(path: &Path) -> Vec<(std::ffi::OsString, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = fs::metadata(path) else { return Vec::new() };
    if !found.is_dir() {
        return vec![(std::ffi::OsString::new(), found.ino())];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut inodes: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.ino()))).collect();
    inodes.sort();
    inodes
}

/// Turns the links into a kept folder. `None`: there are none.
///
/// # Errors
/// As [`super::folders::keep`]; the links are still there then.
pub(crate) fn keep_links(environment: &Environment, reason: AsideReason, lineage: &Lineage) -> Result<Option<Aside>> {
    let links = root(environment).join(LINKS);
    let bytes = FILES[..3].iter().map(|name| size(&links.join(name))).sum();
    if bytes == 0 {
        return Ok(None);
    }
    // The room that they take is taken already.
    has_room(environment, 0)?;
    let note = note(environment, reason, Some(lineage), bytes);
    write_note(&links, &note)?;
    finish(environment, &links, &note)?;
    Ok(Some(note))
}

/// Puts the files that the links hold in the place of the dataset, with their record. Only while the engine is off. `false`:
/// there are none.
pub(crate) fn restore_links(environment: &Environment, lineage: &Lineage) -> Result<bool> {
    let links = root(environment).join(LINKS);
    if FILES[..3].iter().all(|name| !links.join(name).exists()) {
        return Ok(false);
    }
    for name in &FILES[..3] {
        let (from, to) = (links.join(name), environment.data.join(name));
        let removed = if to.is_dir() { fs::remove_dir_all(&to) } else { fs::remove_file(&to) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(durable::failed("remove", &to)(error));
            }
            Ok(()) | Err(_) => {}
        }
        if from.exists() {
            fs::rename(&from, &to).map_err(durable::failed("move", &from))?;
        }
    }
    lineage_file::write_with(environment, lineage, Sizes::default(), None)?;
    let _ = fs::remove_dir_all(&links);
    Ok(true)
}
