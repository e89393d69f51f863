//! The only place where the steps meet: what is watched, when a pass is made, and what follows from its end.

pub mod backoff;

/// Why the operator ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Runs the operator until it is told to stop.
pub async fn operate(_arguments: crate::cli::OperatorArguments) -> Result<(), Error> {
    Ok(())
}
