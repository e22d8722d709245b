//! `process` of config.json.

use anyhow::{Context as _, bail};
use sentry::config::{Capabilities, ProcessConfig, RlimitConfig};

use super::capabilities;
use super::fields::Fields;
use super::scheduling;

/// Names of `process.rlimits`, in the order of the numbers of Linux on x86-64.
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Translates the object; returns the size of the process's terminal as well.
pub(super) fn translate(
    mut process: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(ProcessConfig, Option<(u16, u16)>)> {
    let args: Vec<String> = process.required("args")?;
    if args.is_empty() {
        bail!("process.args: empty");
    }
    let env: Vec<String> = process.optional("env")?.unwrap_or_default();
    if let Some(variable) = env.iter().find(|variable| !variable.contains('=')) {
        bail!("process.env: {variable:?} has no '='");
    }
    if let Some(variable) = env.iter().find(|variable| variable.starts_with('=')) {
        bail!("process.env: {variable:?} has no name");
    }
    let cwd: String = process.required("cwd")?;
    if !cwd.starts_with('/') {
        bail!("process.cwd: {cwd:?} is not absolute");
    }
    let oom_score_adj = process.optional("oomScoreAdj")?.unwrap_or(0);
    if !(-1000..=1000).contains(&oom_score_adj) {
        bail!("process.oomScoreAdj: {oom_score_adj} is not between -1000 and 1000");
    }
    let bytes = |strings: Vec<String>| strings.into_iter().map(String::into_bytes).collect();
    let mut config = ProcessConfig {
        args: bytes(args),
        env: bytes(env),
        cwd,
        umask: 0o022,
        no_new_privs: process.optional("noNewPrivileges")?.unwrap_or(false),
        terminal: process.optional("terminal")?.unwrap_or(false),
        oom_score_adj,
        ..ProcessConfig::default()
    };
    let mut console_size = None;
    if let Some(mut size) = process.object("consoleSize")? {
        console_size = Some((size.required("height")?, size.required("width")?));
        size.finish(warnings);
    }
    if let Some(mut user) = process.object("user")? {
        config.uid = user.optional("uid")?.unwrap_or(0);
        config.gid = user.optional("gid")?.unwrap_or(0);
        config.umask = user.optional("umask")?.unwrap_or(config.umask) & 0o777;
        config.additional_gids = user.optional("additionalGids")?.unwrap_or_default();
        for (field, ids) in [
            ("uid", std::slice::from_ref(&config.uid)),
            ("gid", std::slice::from_ref(&config.gid)),
            ("additionalGids", &config.additional_gids),
        ] {
            if ids.contains(&u32::MAX) {
                bail!("{}: {} means \"no id\"", user.name(field), u32::MAX);
            }
        }
        user.ignore("username");
        user.finish(warnings);
    }
    if let Some(sets) = process.object("capabilities")? {
        config.capabilities = translate_capabilities(sets, warnings)?;
    }
    for mut limit in process.objects("rlimits")? {
        let kind: String = limit.required("type")?;
        let Some(resource) = RLIMITS.iter().position(|name| *name == kind) else {
            bail!("{}: unknown limit {kind}", limit.name("type"));
        };
        let resource = u32::try_from(resource).context("limit")?;
        if config.rlimits.iter().any(|other| other.resource == resource) {
            bail!("{}: {kind} a second time", limit.name("type"));
        }
        let (soft, hard) = (limit.required("soft")?, limit.required("hard")?);
        if soft > hard {
            bail!("{}: above the hard limit", limit.name("soft"));
        }
        config.rlimits.push(RlimitConfig { resource, soft, hard });
        limit.finish(warnings);
    }
    config.scheduling = scheduling::translate(&mut process, warnings)?;
    process.finish(warnings);
    Ok((config, console_size))
}

fn translate_capabilities(
    mut sets: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Capabilities> {
    let mut set = |field: &str| -> anyhow::Result<u64> {
        let mut names: Vec<String> = sets.optional(field)?.unwrap_or_default();
        // The specification forbids to fail for them: they may be those of a newer kernel.
        let unknown = names.extract_if(.., |name| !capabilities::is_known(name));
        let unknown: Vec<String> = unknown.collect();
        if !unknown.is_empty() {
            let field = sets.name(field);
            warnings.push(format!("{field}: unknown capabilities, ignored: {unknown:?}"));
        }
        capabilities::parse(&names, &sets.name(field))
    };
    let result = Capabilities {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    };
    sets.finish(warnings);
    if result.effective & !result.permitted != 0 {
        bail!("process.capabilities.effective: holds capabilities that permitted does not");
    }
    Ok(result)
}
