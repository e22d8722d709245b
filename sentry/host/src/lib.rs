#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod rule;

pub use rule::Rule;

/// Returns every host system call that the functions of this crate make, module by module. The
/// sentry's seccomp filter is built from this list and from nothing else.
pub fn rules() -> Vec<Rule> {
    Vec::new()
}
