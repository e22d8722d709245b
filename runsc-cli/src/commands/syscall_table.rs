//! The system calls that the sentry serves, as `runsc help syscalls` prints them.

use std::fmt::Write as _;

use sentry::config::KERNEL_RELEASE;
use serde_json::json;
use syscalls::info::{Support, SyscallInfo};
use syscalls::table;

use crate::cli::TableFormat;

/// Returns the whole table.
pub(super) fn render(format: TableFormat) -> String {
    let mut calls: Vec<&SyscallInfo> = table::ALL.iter().collect();
    calls.sort_by_key(|call| call.number);
    match format {
        TableFormat::Table => text(&calls),
        TableFormat::Json => {
            let rows: Vec<_> = calls.iter().map(|call| json_row(call)).collect();
            format!("{:#}\n", json!({ "os": "linux", "arch": "amd64", "syscalls": rows }))
        }
        TableFormat::Csv => {
            let mut out = String::from("number,name,family,support,arguments,note\n");
            for call in calls {
                let fields =
                    [call.name, call.family, call.support.as_str(), &arguments(call), call.note];
                let fields: Vec<String> = fields.into_iter().map(csv_field).collect();
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{},{}", call.number, fields.join(","));
            }
            out
        }
        TableFormat::Markdown => markdown(&calls),
    }
}

/// Returns the page `docs/syscalls.md`.
fn markdown(calls: &[&SyscallInfo]) -> String {
    let count = |support: Support| calls.iter().filter(|call| call.support == support).count();
    let mut out = format!(
        "# The system calls of Linux {KERNEL_RELEASE}, and what is served\n\n\
         Made by `runsc help --format markdown syscalls`. Of {} calls {} are served in full, {} in part (the note says\n\
         what is missing), and {} are refused with `ENOSYS`, as by a kernel that was built without them. Each refusal is\n\
         counted (`runsc debug --unsupported`), and the first of each call is logged with its arguments.\n\n\
         | number | call | family | support | note |\n|---:|---|---|---|---|\n",
        calls.len(),
        count(Support::Full),
        count(Support::Partial),
        count(Support::Unsupported),
    );
    for call in calls {
        let SyscallInfo { number, name, family, support, note, .. } = call;
        let note = note.replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {number} | `{name}` | {family} | {support} | {note} |");
    }
    out
}

fn text(calls: &[&SyscallInfo]) -> String {
    let header = ["NUMBER", "NAME", "SUPPORT", "NOTE"].map(str::to_owned).to_vec();
    let row = |call: &&SyscallInfo| {
        vec![
            call.number.to_string(),
            call.name.to_owned(),
            call.support.to_string(),
            call.note.to_owned(),
        ]
    };
    super::align(&std::iter::once(header).chain(calls.iter().map(row)).collect::<Vec<_>>())
}

fn json_row(call: &SyscallInfo) -> serde_json::Value {
    let args: Vec<&str> = call.args.iter().map(|arg| arg.name).collect();
    json!({
        "number": call.number,
        "name": call.name,
        "family": call.family,
        "support": call.support.as_str(),
        "arguments": args,
        "note": call.note,
    })
}

fn arguments(call: &SyscallInfo) -> String {
    call.args.iter().map(|arg| arg.name).collect::<Vec<_>>().join(" ")
}

/// Quotes a field where it needs it (RFC 4180).
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{csv_field, render};
    use crate::cli::TableFormat;

    #[test]
    fn every_format_has_every_call() {
        let n_calls = syscalls::table::ALL.len();
        assert_eq!(render(TableFormat::Csv).lines().count(), n_calls + 1);
        assert_eq!(render(TableFormat::Table).lines().count(), n_calls + 1);
        let value: serde_json::Value = serde_json::from_str(&render(TableFormat::Json)).unwrap();
        assert_eq!(value["syscalls"].as_array().map(Vec::len), Some(n_calls));
    }

    #[test]
    fn the_page_is_the_table() {
        let page = include_str!("../../../docs/syscalls.md");
        assert!(
            page == render(TableFormat::Markdown),
            "make docs/syscalls.md again: runsc help --format markdown syscalls >docs/syscalls.md"
        );
    }

    #[test]
    fn csv_fields_are_quoted_where_needed() {
        assert_eq!(csv_field("a"), "a");
        assert_eq!(csv_field("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
