//! The subcommands, one file and one entry each: `run` returns the exit status.

pub(crate) mod boot;
pub(crate) mod create;
pub(crate) mod debug;
pub(crate) mod delete;
pub(crate) mod r#do;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod gofer;
pub(crate) mod help;
pub(crate) mod install;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod monitor;
pub(crate) mod pause;
pub(crate) mod port_forward;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
mod syscall_table;
pub(crate) mod update;
pub(crate) mod wait;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::GlobalOptions;
use crate::sys;

/// Returns the directory of all containers' state.
fn state_root(global: &GlobalOptions) -> PathBuf {
    if let Some(root) = &global.root {
        return root.clone();
    }
    let user = sys::effective_ids().0;
    // The root of a user namespace is an ordinary user, but one who says to be the real one: as runc.
    let is_ordinary = user != 0
        || (!sys::is_initial_user_namespace()
            && std::env::var_os("USER").is_none_or(|name| name != "root"));
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if is_ordinary && !dir.is_empty() => PathBuf::from(dir).join("runsc"),
        _ if user != 0 => PathBuf::from(format!("/tmp/runsc-{user}")),
        _ => PathBuf::from("/run/runsc"),
    }
}

/// Writes to standard output. Where nobody reads it any more, ends this process as by SIGPIPE: as
/// other programs and runc, but only where it is the output that has no reader.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        sys::die_of_broken_pipe();
    }
    written.context("writing to standard output")
}

/// Returns rows as columns of text, two spaces apart.
fn align(rows: &[Vec<String>]) -> String {
    let n_columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
