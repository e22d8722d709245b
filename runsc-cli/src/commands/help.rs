//! `runsc help`.

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;

use super::syscall_table;
use crate::cli::{Cli, HelpArgs};

/// Prints help about runsc, a subcommand or the system calls that the sentry serves.
pub(crate) fn run(args: &HelpArgs) -> anyhow::Result<i32> {
    let mut command = Cli::command();
    match args.topic.as_deref() {
        None => command.print_help().context("printing help")?,
        Some("syscalls") => {
            super::print(&syscall_table::render(args.format))?;
        }
        Some(topic) => match command.find_subcommand_mut(topic) {
            Some(subcommand) => subcommand.print_help().context("printing help")?,
            None => bail!("help: no such command: {topic}"),
        },
    }
    Ok(0)
}
