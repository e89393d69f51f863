//! Removes keys of the own server for a small part of its time, whatever their sizes.

use std::time::Duration;

use tokio::time::sleep;

use crate::model::audit::pause_after;
use crate::redis::keys::{self, Removal};
use crate::redis::{Connection, Result};

/// The longest pause: a command that took so long was held up by others.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Removes keys, given with their bytes: few and small ones together, and a pause after each command, so that they take at most
/// `percent` of the server's time. How many were there.
pub(super) async fn remove(
    connection: &Connection,
    sized: &[(&[u8], u64)],
    percent: u32,
    removal: Removal,
) -> Result<u64> {
    let mut removed = 0;
    for part in keys::removed_together(sized, removal) {
        let mut meter = keys::Meter::default();
        removed += keys::remove(connection, &mut meter, &part, removal).await?;
        sleep(pause_after(meter.busy, percent).min(LONGEST_PAUSE)).await;
    }
    Ok(removed)
}
