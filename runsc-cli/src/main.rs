//! `runsc`: the OCI command line.
fn main() {}
