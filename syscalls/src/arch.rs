//! What differs between architectures: numbers and layouts, nothing else.

pub mod x86_64;
