//! The planned move of the primary: gathers the connections that the switchover needs and hands over to it.

use super::step::Means;
use super::{Ending, Error};
use crate::plan::Step;

/// Moves the primary as the step says.
pub async fn switch(_means: Means<'_>, _step: &Step) -> Result<Ending, Error> {
    Ok(Ending::Refused("this build cannot move a primary".to_owned()))
}
