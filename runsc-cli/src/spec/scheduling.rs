//! `process.scheduler`, `process.ioPriority` and `linux.personality` of config.json.

use anyhow::{Context as _, bail};
use sentry::config::Scheduling;

use super::fields::Fields;

/// The policies of the specification by their numbers in Linux; without a number those that the
/// guest kernel does not have.
const POLICIES: [(&str, Option<u32>); 7] = [
    ("SCHED_OTHER", Some(0)),
    ("SCHED_FIFO", Some(1)),
    ("SCHED_RR", Some(2)),
    ("SCHED_BATCH", Some(3)),
    ("SCHED_ISO", None),
    ("SCHED_IDLE", Some(5)),
    ("SCHED_DEADLINE", None),
];

/// The classes of I/O priorities by their numbers in Linux.
const IO_CLASSES: [(&str, i32); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Where the class begins in the number of an I/O priority.
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// Takes both fields of `process`.
pub(super) fn translate(
    process: &mut Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Scheduling> {
    let mut scheduling = Scheduling::default();
    if let Some(scheduler) = process.object("scheduler")? {
        translate_scheduler(scheduler, &mut scheduling, warnings)?;
    }
    if let Some(mut priority) = process.object("ioPriority")? {
        let class: String = priority.required("class")?;
        let Some((_, class)) = IO_CLASSES.iter().find(|(name, _)| *name == class) else {
            bail!("{}: unknown class {class:?}", priority.name("class"));
        };
        let level: i32 = priority.required("priority")?;
        if !(0..8).contains(&level) {
            bail!("{}: {level} is not between 0 and 7", priority.name("priority"));
        }
        scheduling.ioprio = class << IOPRIO_CLASS_SHIFT | level;
        priority.finish(warnings);
    }
    Ok(scheduling)
}

fn translate_scheduler(
    mut scheduler: Fields,
    scheduling: &mut Scheduling,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name: String = scheduler.required("policy")?;
    let policy = POLICIES.iter().find(|(known, _)| *known == name);
    let policy =
        policy.with_context(|| format!("{}: unknown policy {name:?}", scheduler.name("policy")))?;
    scheduling.policy = policy
        .1
        .with_context(|| format!("{}: {name} is not supported", scheduler.name("policy")))?;
    scheduling.nice = scheduler.optional("nice")?.unwrap_or(0);
    if !(-20..=19).contains(&scheduling.nice) {
        bail!("{}: {} is not between -20 and 19", scheduler.name("nice"), scheduling.nice);
    }
    scheduling.priority = scheduler.optional("priority")?.unwrap_or(0);
    let valid = if matches!(scheduling.policy, 1 | 2) { 1..=99 } else { 0..=0 };
    if !valid.contains(&scheduling.priority) {
        bail!(
            "{}: {} is not between {} and {} as {name} has it",
            scheduler.name("priority"),
            scheduling.priority,
            valid.start(),
            valid.end(),
        );
    }
    for flag in scheduler.optional::<Vec<String>>("flags")?.unwrap_or_default() {
        match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => scheduling.reset_on_fork = true,
            _ => bail!("{}: {flag} is not supported", scheduler.name("flags")),
        }
    }
    // Of SCHED_DEADLINE alone.
    for field in ["runtime", "deadline", "period"] {
        if scheduler.optional::<u64>(field)?.is_some_and(|value| value != 0) {
            warnings
                .push(format!("{}: without meaning for {name}, ignored", scheduler.name(field)));
        }
    }
    scheduler.finish(warnings);
    Ok(())
}

/// Takes `linux.personality`: there is one execution domain.
pub(super) fn check_personality(
    linux: &mut Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let Some(mut personality) = linux.object("personality")? else { return Ok(()) };
    let domain: String = personality.required("domain")?;
    if domain != "LINUX" {
        bail!("{}: {domain:?} is not supported", personality.name("domain"));
    }
    let flags: Vec<String> = personality.optional("flags")?.unwrap_or_default();
    if let Some(flag) = flags.first() {
        bail!("{}: {flag:?} is not supported", personality.name("flags"));
    }
    personality.finish(warnings);
    Ok(())
}
