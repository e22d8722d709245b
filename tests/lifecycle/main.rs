//! The life of containers as managers drive it: every case gives the same under runc and on each platform.
//!
//! A case returns what can be seen, as lines; runc's are what is expected.

#[cfg(test)]
mod acl;
#[cfg(test)]
mod case;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod held;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod submounts;
#[cfg(test)]
mod watches;
