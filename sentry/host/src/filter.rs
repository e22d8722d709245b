//! The sentry's seccomp filter: made from lists of [`Rule`]s and from nothing else.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::{Errno, SysResult};

use crate::Rule;

/// What happens to a host call that is in no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The sentry dies of SIGSYS, and with it the sandbox.
    Kill,
    /// The host's audit log says so and the call is made: for developers who look for the call
    /// that is missing in a list. No jail.
    Log,
}

/// Restricts every thread of this process, for good, to what `rules` permit. Calls by any other
/// architecture's entry always end the process.
///
/// # Errors
/// `EINVAL` for a rule that cannot be expressed, otherwise those of `seccomp(2)`.
pub fn install(rules: &[Rule], violation: Violation) -> SysResult<()> {
    let program = compile(rules, violation)?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => {
            Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
        }
        _ => Errno::EINVAL,
    })
}

fn compile(rules: &[Rule], violation: Violation) -> SysResult<BpfProgram> {
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let unconditional =
        |number| rules.iter().any(|rule| rule.number == number && rule.conditions.is_empty());
    for rule in rules {
        // An empty list permits every argument; no condition may then be beside it.
        let alternatives = table.entry(rule.number).or_default();
        if !unconditional(rule.number) {
            alternatives.push(conditions(rule)?);
        }
    }
    let otherwise = match violation {
        Violation::Kill => SeccompAction::KillProcess,
        Violation::Log => SeccompAction::Log,
    };
    SeccompFilter::new(table, otherwise, SeccompAction::Allow, TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .map_err(|_| Errno::EINVAL)
}

fn conditions(rule: &Rule) -> SysResult<SeccompRule> {
    let condition = |&(index, mask, value): &(u8, u64, u64)| {
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
    };
    rule.conditions
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>, _>>()
        .and_then(SeccompRule::new)
        .map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::{Violation, compile};
    use crate::Rule;

    #[test]
    fn compile_accepts_the_whole_list() {
        assert!(compile(&crate::rules(), Violation::Kill).is_ok_and(|program| !program.is_empty()));
    }

    #[test]
    fn compile_lets_an_unconditional_rule_win() {
        let narrow = Rule::when(libc::SYS_clone, &[(0, 1, 1)]);
        let wide = Rule::any(libc::SYS_clone);
        let both = compile(&[narrow, wide], Violation::Kill).unwrap();
        assert_eq!(both, compile(&[wide], Violation::Kill).unwrap());
        assert_ne!(both, compile(&[narrow], Violation::Kill).unwrap());
    }
}
