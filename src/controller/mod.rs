//! The only place where the steps meet: what is watched, when a pass is made, and what follows from its end.

pub mod backoff;
