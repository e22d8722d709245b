//! `linux.seccomp`: a profile becomes the program that the container's processes start with.
//!
//! The rules mean what they mean to libseccomp, and so to runc: those of one call without conditions count
//! before those with conditions, conditions on different arguments must all hold, several conditions on the
//! same argument make a rule each; a name that this machine does not have is passed over. Like runc, calls
//! newer than all that the profile names fail with `ENOSYS`, so that a C library tries the older one.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use sentry::config::BpfInstruction;
use syscalls::abi::prctl::{
    AUDIT_ARCH_X86_64, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use syscalls::table;

use super::fields::Fields;

/// What `runsc features` says of it.
pub(crate) const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
pub(crate) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
/// What is logged is the host's own, and the other two change nothing about what is allowed.
pub(crate) const FLAGS: [&str; 3] =
    ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"];

/// The error of `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE` where none is given.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const MAX_DATUM: u32 = 0xffff;
/// The longest program.
const MAX_INSTRUCTIONS: usize = 4096;

/// Where `struct seccomp_data` has its fields.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Loads a word.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_EQUAL: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// A comparison of an argument with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    NotEqual,
    Less,
    LessEqual,
    Equal,
    GreaterEqual,
    Greater,
    /// The bits of the mask are those of the value.
    MaskedEqual(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    index: u32,
    value: u64,
    comparison: Comparison,
}

/// A rule of one call.
#[derive(Clone, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    action: u32,
}

/// Translates a profile.
pub(super) fn translate(
    mut profile: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Vec<BpfInstruction>> {
    let default_errno = profile.optional("defaultErrnoRet")?;
    let default: String = profile.required("defaultAction")?;
    let default = action(&default, default_errno).with_context(|| {
        format!("{}: {default:?} is not supported", profile.name("defaultAction"))
    })?;
    let architectures: Vec<String> = profile.optional("architectures")?.unwrap_or_default();
    if let Some(unknown) = architectures.iter().find(|name| !name.starts_with("SCMP_ARCH_")) {
        bail!("{}: unknown architecture {unknown:?}", profile.name("architectures"));
    }
    let flags: Vec<String> = profile.optional("flags")?.unwrap_or_default();
    if let Some(flag) = flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        bail!("{}: {flag:?} is not supported", profile.name("flags"));
    }
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    let mut newest = 0;
    for mut given in profile.objects("syscalls")? {
        let names: Vec<String> = given.required("names")?;
        let name: String = given.required("action")?;
        let errno = given.optional("errnoRet")?;
        let action = action(&name, errno)
            .with_context(|| format!("{}: {name:?} is not supported", given.name("action")))?;
        let mut conditions = Vec::new();
        for argument in given.objects("args")? {
            conditions.push(condition(argument, warnings)?);
        }
        given.finish(warnings);
        for number in names.iter().filter_map(|name| number(name)) {
            newest = newest.max(number);
            // What every call gets anyway is no rule.
            if action != default {
                add(rules.entry(number).or_default(), &conditions, action);
            }
        }
    }
    profile.finish(warnings);
    let fallback = if is_refusal(default) && !rules.is_empty() { Some(newest) } else { None };
    let program = compile(&rules, default, fallback);
    if program.len() > MAX_INSTRUCTIONS {
        bail!("linux.seccomp: too many rules: {} instructions", program.len());
    }
    Ok(program)
}

fn number(name: &str) -> Option<u32> {
    let info = table::ALL.iter().find(|info| info.name == name)?;
    u32::try_from(info.number).ok()
}

/// Returns the value that a filter returns for an action.
fn action(name: &str, errno: Option<u32>) -> Option<u32> {
    let datum = errno.unwrap_or(EPERM) & MAX_DATUM;
    Some(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => SECCOMP_RET_ERRNO | datum,
        "SCMP_ACT_TRACE" => SECCOMP_RET_TRACE | datum,
        "SCMP_ACT_LOG" => SECCOMP_RET_LOG,
        "SCMP_ACT_ALLOW" => SECCOMP_RET_ALLOW,
        _ => return None,
    })
}

/// Returns whether calls that the profile cannot know are to look as if they did not exist.
fn is_refusal(action: u32) -> bool {
    let allows = matches!(action, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG);
    !allows && action != SECCOMP_RET_ERRNO | ENOSYS
}

fn condition(mut argument: Fields, warnings: &mut Vec<String>) -> anyhow::Result<Condition> {
    let index: u32 = argument.required("index")?;
    if index >= 6 {
        bail!("{}: there are six arguments", argument.name("index"));
    }
    let value = argument.required("value")?;
    let second = argument.optional("valueTwo")?.unwrap_or(0);
    let operator: String = argument.required("op")?;
    let condition = match operator.as_str() {
        "SCMP_CMP_NE" => Condition { index, value, comparison: Comparison::NotEqual },
        "SCMP_CMP_LT" => Condition { index, value, comparison: Comparison::Less },
        "SCMP_CMP_LE" => Condition { index, value, comparison: Comparison::LessEqual },
        "SCMP_CMP_EQ" => Condition { index, value, comparison: Comparison::Equal },
        "SCMP_CMP_GE" => Condition { index, value, comparison: Comparison::GreaterEqual },
        "SCMP_CMP_GT" => Condition { index, value, comparison: Comparison::Greater },
        "SCMP_CMP_MASKED_EQ" => {
            Condition { index, value: second, comparison: Comparison::MaskedEqual(value) }
        }
        _ => bail!("{}: unknown operator {operator:?}", argument.name("op")),
    };
    argument.finish(warnings);
    Ok(condition)
}

fn add(rules: &mut Vec<Rule>, conditions: &[Condition], action: u32) {
    let is_alone = |condition: &Condition| {
        conditions.iter().filter(|other| other.index == condition.index).count() == 1
    };
    if conditions.iter().all(is_alone) {
        rules.push(Rule { conditions: conditions.to_vec(), action });
    } else {
        let each = conditions.iter().map(|condition| Rule { conditions: vec![*condition], action });
        rules.extend(each);
    }
}

/// A program under construction: jumps forwards over a length that is known only later.
#[derive(Default)]
struct Code(Vec<BpfInstruction>);

impl Code {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.0.push(BpfInstruction { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, 0, 0, offset);
    }

    fn ret(&mut self, action: u32) {
        self.push(RETURN, 0, 0, action);
    }

    /// Adds `inner`, and before it what skips it where A is not `k`.
    fn block_if_equal(&mut self, k: u32, inner: &Self) {
        let len = u32::try_from(inner.0.len()).unwrap_or(u32::MAX);
        match u8::try_from(len) {
            Ok(len) => self.push(EQUAL, 0, len, k),
            Err(_) => {
                self.push(EQUAL, 1, 0, k);
                self.push(JUMP, 0, 0, len);
            }
        }
        self.0.extend_from_slice(&inner.0);
    }
}

/// Makes the program of a profile. Calls above `newest`, where it is given, do not exist.
fn compile(
    rules: &BTreeMap<u32, Vec<Rule>>,
    default: u32,
    newest: Option<u32>,
) -> Vec<BpfInstruction> {
    let mut code = Code::default();
    code.load(ARCH);
    code.push(EQUAL, 1, 0, AUDIT_ARCH_X86_64);
    code.ret(SECCOMP_RET_KILL_THREAD);
    code.load(NUMBER);
    if let Some(newest) = newest {
        code.push(GREATER, 0, 1, newest);
        code.ret(SECCOMP_RET_ERRNO | ENOSYS);
    }
    // Calls that have the same action without conditions share its return.
    let mut plain: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, rules) in rules {
        match rules.iter().find(|rule| rule.conditions.is_empty()) {
            Some(rule) => plain.entry(rule.action).or_default().push(*number),
            None => {
                let mut inner = Code::default();
                for rule in rules {
                    rule_code(&mut inner, rule);
                }
                inner.ret(default);
                code.block_if_equal(*number, &inner);
            }
        }
    }
    for (action, numbers) in plain {
        for (first, last) in runs(&numbers) {
            // first <= A <= last
            code.push(GREATER_EQUAL, 0, 2, first);
            code.push(GREATER, 1, 0, last);
            code.ret(action);
        }
    }
    code.ret(default);
    code.0
}

/// Returns the first and the last of numbers that follow upon each other; `numbers` are in order.
fn runs(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    runs
}

/// Adds what returns the rule's action where its conditions hold, and falls through where not.
fn rule_code(code: &mut Code, rule: &Rule) {
    let mut checks: Vec<Code> = rule.conditions.iter().map(|it| condition_code(*it)).collect();
    // Each check ends with a jump over what follows, taken where it fails.
    let mut rest = 1;
    for check in checks.iter_mut().rev() {
        for instruction in &mut check.0 {
            if instruction.code == JUMP && instruction.k == FAILURE {
                instruction.k = rest;
            }
        }
        rest += u32::try_from(check.0.len()).unwrap_or(0);
    }
    for check in checks {
        code.0.extend(check.0);
    }
    code.ret(rule.action);
}

/// Stands for the way to the end of a rule until that is known.
const FAILURE: u32 = u32::MAX;

/// Returns code that falls through where a condition holds; its last instruction is the jump for where
/// it does not.
fn condition_code(condition: Condition) -> Code {
    let Condition { index, value, comparison } = condition;
    let (low, high) = halves(value);
    let at = ARGS + 8 * index;
    let mut code = Code::default();
    let mut compare = |op: u16, on_high_greater: bool, on_high_less: bool, holds: bool| {
        // The upper half decides where the two differ.
        code.load(at + 4);
        match op {
            EQUAL => {
                code.push(EQUAL, 0, if holds { 2 } else { 3 }, high);
                code.load(at);
                // Equal: falls through where it is to be so.
                let (yes, no) = if holds { (1, 0) } else { (0, 1) };
                code.push(EQUAL, yes, no, low);
            }
            _ => {
                let yes = |decided: bool| if decided { 4 } else { 3 };
                code.push(GREATER, yes(on_high_greater), 0, high);
                code.push(EQUAL, 0, if on_high_less { 3 } else { 2 }, high);
                code.load(at);
                let (yes, no) = if holds { (1, 0) } else { (0, 1) };
                code.push(op, yes, no, low);
            }
        }
        code.push(JUMP, 0, 0, FAILURE);
    };
    match comparison {
        Comparison::Equal => compare(EQUAL, false, false, true),
        Comparison::NotEqual => compare(EQUAL, false, false, false),
        Comparison::Greater => compare(GREATER, true, false, true),
        Comparison::GreaterEqual => compare(GREATER_EQUAL, true, false, true),
        Comparison::Less => compare(GREATER_EQUAL, false, true, false),
        Comparison::LessEqual => compare(GREATER, false, true, false),
        Comparison::MaskedEqual(mask) => {
            let (mask_low, mask_high) = halves(mask);
            code.load(at + 4);
            code.push(AND, 0, 0, mask_high);
            code.push(EQUAL, 0, 3, high);
            code.load(at);
            code.push(AND, 0, 0, mask_low);
            code.push(EQUAL, 1, 0, low);
            code.push(JUMP, 0, 0, FAILURE);
        }
    }
    code
}

/// Returns the lower and the upper half of an argument.
fn halves(value: u64) -> (u32, u32) {
    let word = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
    (word(value), word(value >> 32))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Runs a program on a call.
    fn run(program: &[BpfInstruction], name: &str, args: &[u64]) -> u32 {
        let number = number(name).unwrap();
        run_number(program, number, args)
    }

    fn run_number(program: &[BpfInstruction], number: u32, args: &[u64]) -> u32 {
        let mut words = vec![number, AUDIT_ARCH_X86_64, 0, 0];
        words.extend((0..6).flat_map(|index| {
            let (low, high) = halves(args.get(index).copied().unwrap_or(0));
            [low, high]
        }));
        let (mut pc, mut a) = (0, 0);
        loop {
            let BpfInstruction { code, jt, jf, k } = program[pc];
            pc += 1;
            let holds = match code {
                LOAD => {
                    a = words[usize::try_from(k / 4).unwrap()];
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                JUMP => {
                    pc += usize::try_from(k).unwrap();
                    continue;
                }
                RETURN => return k,
                EQUAL => a == k,
                GREATER => a > k,
                GREATER_EQUAL => a >= k,
                code => panic!("code {code:#x}"),
            };
            pc += usize::from(if holds { jt } else { jf });
        }
    }

    fn profile(value: Value) -> anyhow::Result<Vec<BpfInstruction>> {
        translate(Fields::new(value, "linux.seccomp")?, &mut Vec::new())
    }

    fn condition(index: u32, value: u64, op: &str) -> Value {
        json!({ "index": index, "value": value, "op": op })
    }

    const ALLOW: u32 = SECCOMP_RET_ALLOW;

    #[test]
    fn conditions_of_one_rule_must_all_hold() {
        // As podman has it.
        let program = profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [
                { "names": ["read", "write", "nonsense"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [
                    condition(0, 16, "SCMP_CMP_EQ"), condition(2, 9, "SCMP_CMP_EQ"),
                ] },
                { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                    condition(2, 9, "SCMP_CMP_NE"),
                ] },
                { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                    condition(0, 16, "SCMP_CMP_NE"),
                ] },
                { "names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            ]
        }))
        .unwrap();
        assert_eq!(run(&program, "read", &[]), ALLOW);
        assert_eq!(run(&program, "write", &[]), ALLOW);
        assert_eq!(run(&program, "open", &[]), SECCOMP_RET_ERRNO | 38);
        assert_eq!(run(&program, "bpf", &[]), SECCOMP_RET_ERRNO | 1);
        assert_eq!(run(&program, "socket", &[16, 0, 9]), SECCOMP_RET_ERRNO | 22);
        assert_eq!(run(&program, "socket", &[16, 0, 8]), ALLOW);
        assert_eq!(run(&program, "socket", &[2, 0, 9]), ALLOW);
        assert_eq!(run(&program, "socket", &[16 | 1 << 32, 0, 9]), ALLOW);
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        const V: u64 = 5 << 32 | 7;
        let values = [0, 7, V - 1, V, V + 1, 4 << 32 | 9, 6 << 32, u64::MAX];
        for (op, expected) in [
            ("SCMP_CMP_NE", (|it| it != V) as fn(u64) -> bool),
            ("SCMP_CMP_LT", |it| it < V),
            ("SCMP_CMP_LE", |it| it <= V),
            ("SCMP_CMP_EQ", |it| it == V),
            ("SCMP_CMP_GE", |it| it >= V),
            ("SCMP_CMP_GT", |it| it > V),
        ] {
            let program = profile(json!({
                "defaultAction": "SCMP_ACT_KILL_PROCESS",
                "syscalls": [{ "names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
                    condition(5, V, op),
                ] }]
            }))
            .unwrap();
            for value in values {
                let answer = run(&program, "lseek", &[0, 0, 0, 0, 0, value]);
                assert_eq!(answer == ALLOW, expected(value), "{op} {value:#x}");
            }
        }
        let program = profile(json!({
            "defaultAction": "SCMP_ACT_TRAP",
            "syscalls": [{ "names": ["clone"], "action": "SCMP_ACT_LOG", "args": [{
                "index": 0, "value": 0xff00_0000_0000_00f0_u64, "valueTwo": 0x30,
                "op": "SCMP_CMP_MASKED_EQ"
            }] }]
        }))
        .unwrap();
        assert_eq!(run(&program, "clone", &[0x3f]), SECCOMP_RET_LOG);
        assert_eq!(run(&program, "clone", &[0x2f]), SECCOMP_RET_TRAP);
        assert_eq!(run(&program, "clone", &[1 << 63 | 0x3f]), SECCOMP_RET_TRAP);
    }

    #[test]
    fn several_conditions_on_an_argument_are_alternatives() {
        let program = profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                condition(0, 0, "SCMP_CMP_EQ"), condition(0, 8, "SCMP_CMP_EQ"),
            ] }]
        }))
        .unwrap();
        let answers = [0, 7, 8].map(|value| run(&program, "personality", &[value]));
        assert_eq!(answers, [ALLOW, SECCOMP_RET_ERRNO | 1, ALLOW]);
    }

    #[test]
    fn newer_calls_do_not_exist() {
        let refusing = |action: &str| {
            let rule = json!({ "names": ["close_range", "read"], "action": "SCMP_ACT_ALLOW" });
            profile(json!({ "defaultAction": action, "syscalls": [rule] })).unwrap()
        };
        let program = refusing("SCMP_ACT_ERRNO");
        assert_eq!(run(&program, "openat2", &[]), SECCOMP_RET_ERRNO | ENOSYS);
        assert_eq!(run(&program, "open", &[]), SECCOMP_RET_ERRNO | EPERM);
        assert_eq!(run_number(&program, 0x4000_0000, &[]), SECCOMP_RET_ERRNO | ENOSYS);
        assert_eq!(run(&refusing("SCMP_ACT_LOG"), "openat2", &[]), SECCOMP_RET_LOG);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let error = |value| format!("{:#}", profile(value).unwrap_err());
        assert_eq!(
            error(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
            "linux.seccomp.defaultAction: \"SCMP_ACT_NOTIFY\" is not supported"
        );
        assert_eq!(
            error(json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_SULK" }]
            })),
            "linux.seccomp.syscalls[0].action: \"SCMP_ACT_SULK\" is not supported"
        );
        assert_eq!(
            error(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"] })),
            "linux.seccomp.flags: \"SECCOMP_FILTER_FLAG_X\" is not supported"
        );
    }
}
