//! `runsc kill`.

use anyhow::{Context as _, bail};
use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, KillArgs};
use crate::container::{Container, Status};

/// Names of the standard signals, in the order of their numbers from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// What ends a container that has not been started. Its program cannot have a handler yet, and a first
/// process without one cares for no signal but `SIGKILL`; runc in its place ends by these.
const ENDS_CREATED: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Sends a signal to a container.
pub(crate) fn run(global: &GlobalOptions, args: &KillArgs) -> anyhow::Result<i32> {
    let signo = parse_signal(&args.signal)?;
    let container = Container::find(&super::state_root(global), &args.id)?;
    let status = container.status();
    let ends = status == Status::Created && ENDS_CREATED.contains(&signo);
    let signo = if ends { libc::SIGKILL } else { signo };
    match status {
        Status::Running | Status::Created | Status::Paused => {
            create::expect_done(&container, &Request::Signal { signo, all: args.all })?;
        }
        // In the words that managers look for.
        _ => bail!("container not running: {}", args.id),
    }
    Ok(0)
}

/// Parses a number, a name, or a name with `SIG` before it.
fn parse_signal(text: &str) -> anyhow::Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            bail!("unknown signal {text}")
        };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).context("signal");
    }
    // The C library keeps the first two of the kernel's real-time signals.
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match name {
        "CLD" => Some(17),
        "POLL" => Some(29),
        "IOT" => Some(6),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => offset(rest).map(|n| 34 + n),
            (_, Some(rest)) => offset(rest).map(|n| 64 + n),
            _ => None,
        },
    };
    number
        .filter(|number| (1..=64).contains(number))
        .with_context(|| format!("unknown signal {text}"))
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("RTMIN+1", 35),
            ("SIGRTMAX-2", 62),
            ("POLL", 29),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["0", "65", "-1", "NONE", "SIG", "RTMAX+1", ""] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
