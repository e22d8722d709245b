#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod auxv;
pub mod clock;
pub mod control;
pub mod cpu;
pub mod file;
pub mod filter;
pub mod forward;
pub mod inet;
pub mod membarrier;
pub mod memfd;
pub mod memory_info;
pub mod nic;
pub mod packet;
pub mod poll;
pub mod random;
pub mod rule;
mod runtime;
pub mod schedule;
pub mod startup;
pub mod stream;
pub mod text;
pub mod usage;
pub mod window;

use syscalls::Errno;

pub use rule::Rule;

/// The list of each module, by its name.
const MODULES: &[(&str, &[Rule])] = &[
    ("runtime", runtime::RULES),
    ("clock", clock::RULES),
    ("random", random::RULES),
    ("poll", poll::RULES),
    ("stream", stream::RULES),
    ("memory_info", memory_info::RULES),
    ("membarrier", membarrier::RULES),
    ("control", control::RULES),
    ("file", file::RULES),
    ("memfd", memfd::RULES),
    ("packet", packet::RULES),
    ("cpu", cpu::RULES),
    ("schedule", schedule::RULES),
];

/// Returns every host system call that the functions of this crate make, module by module. The
/// sentry's seccomp filter is built from this list and from nothing else.
pub fn rules() -> Vec<Rule> {
    MODULES.iter().flat_map(|(_, rules)| rules.iter().copied()).collect()
}

/// Returns the `errno` of the call that has just failed.
pub(crate) fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::MODULES;

    /// A call that two modules make is in the list of the more general one.
    #[test]
    fn rules_hold_no_entry_that_another_makes_redundant() {
        let all: Vec<_> = MODULES
            .iter()
            .flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule)))
            .collect();
        for (index, (name, rule)) in all.iter().enumerate() {
            for (other_name, other) in
                all.iter().skip(index + 1).filter(|(_, other)| other.number == rule.number)
            {
                let redundant = rule.conditions.is_empty()
                    || other.conditions.is_empty()
                    || rule.conditions == other.conditions;
                assert!(
                    !redundant,
                    "call {} is in `{name}` and again in `{other_name}`",
                    rule.number
                );
            }
        }
    }
}
