//! Data files that are about to be overwritten and that only this node may have: kept in a folder of their own on the volume.
//!
//! A kept folder is `/data/aside/TIME-REASON`. It holds the files that the engine loads, the record, and a note ([`Aside`]). Files are
//! kept by hard links: a link costs nothing and is whole at once. The engine goes on appending to the last append-only file, so a link to
//! it may grow; the note has the length at the time. Nothing here removes a folder by itself: a person says so, or the layer proved that it has the data.

mod files;
mod folders;
mod links;

#[cfg(test)]
pub(super) use folders::tests;
pub(crate) use folders::{keep, list, remove};
pub(crate) use links::{
    free_links, is_current, keep_links, link_files, links_appended, links_have_commands, links_record, move_away,
    note_links, renew_links, restore_links, take_links,
};
