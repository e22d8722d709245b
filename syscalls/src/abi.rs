//! `#[repr(C)]` structures and flags, one file per family of uapi headers.
