//! The `redoubt` binary: parses arguments and hands over.
fn main() {}
