//! Paths: a place in the mount tree.

/// A mount and a dentry in it.
#[derive(Clone)]
pub struct Path {}
