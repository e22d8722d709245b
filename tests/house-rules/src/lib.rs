//! Rules over the source tree, as tests.
#![doc = include_str!("../README.md")]

#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod files;
#[cfg(test)]
mod ratchets;
#[cfg(test)]
mod served_calls;
#[cfg(test)]
mod tree;
