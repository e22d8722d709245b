//! `containerd-shim-runsc-v1`: what containerd calls for `io.containerd.runsc.v1`.
//!
//! containerd starts one per pod, or per container that is in none, and talks to it over a socket
//! as long as there is a container; see <https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md>.
//! The shim calls `runsc` for every operation. It is the parent of the containers' monitors, so it
//! learns how each process ends. It has one thread, and waits for everything in one `poll(2)`.

mod container;
mod events;
mod memory;
mod options;
mod rootfs;
mod server;
mod service;
mod start;
mod stats;
mod stdio;
mod ttrpc;
mod wire;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

/// What containerd says on the command line.
#[derive(Clone, Debug, Default)]
struct Arguments {
    namespace: String,
    id: String,
    address: String,
    publish_binary: String,
    bundle: String,
    debug: bool,
    action: String,
}

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        match arguments.action.as_str() {
            "start" => start::start(&arguments),
            "delete" => start::delete(&arguments),
            "serve" => start::serve(&arguments),
            "version" => start::print(&format!("containerd-shim-runsc-v1 {}\n", start::VERSION)),
            "info" => start::info(),
            other => bail!("{other:?} is none of start, delete, -info and -v"),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To where containerd looks for the reason. Nothing is left to do if that fails.
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("containerd-shim-runsc-v1: {error:#}\n").as_bytes(),
            ));
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or(word.strip_prefix('-')) else {
                arguments.action = word;
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let field = match name {
                "namespace" => &mut arguments.namespace,
                "id" => &mut arguments.id,
                "address" => &mut arguments.address,
                "publish-binary" => &mut arguments.publish_binary,
                "bundle" => &mut arguments.bundle,
                "debug" => {
                    arguments.debug = inline.is_none_or(|value| value == "true");
                    continue;
                }
                "v" | "version" => {
                    arguments.action = "version".into();
                    return Ok(arguments);
                }
                "info" => {
                    arguments.action = "info".into();
                    return Ok(arguments);
                }
                other => bail!("-{other}: no such flag"),
            };
            *field = match inline {
                Some(value) => value,
                None => words.next().with_context(|| format!("-{name}: no value"))?,
            };
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn parse(line: &str) -> anyhow::Result<Arguments> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_come_with_one_dash_or_two_and_before_the_action() {
        let arguments =
            parse("-namespace k8s.io --id=c1 -address /a -publish-binary /b -debug start").unwrap();
        assert_eq!((arguments.namespace.as_str(), arguments.id.as_str()), ("k8s.io", "c1"));
        assert_eq!((arguments.action.as_str(), arguments.debug), ("start", true));
    }

    #[test]
    fn wrong_flags_are_named() {
        assert!(parse("-nosuch start").unwrap_err().to_string().contains("nosuch"));
        assert!(parse("-id").unwrap_err().to_string().contains("no value"));
    }
}
