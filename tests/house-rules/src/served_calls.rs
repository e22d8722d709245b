//! Every system call that the table says is served is made by a guest program, which runs natively
//! and on each platform.

use std::collections::BTreeSet;

use crate::tree;

/// Where the table is.
const TABLE: &str = "syscalls/src/table.rs";

/// Where the guest programs are.
const PROGRAMS: &str = "tests/guest/src/";

/// Returns the name and the support level of a row of the table.
fn row(line: &str) -> Option<(&str, &str)> {
    let (call, rest) = line.trim().split_once(") -> ")?;
    let name = call.split_once(' ')?.1.split_once('(')?.0;
    Some((name, rest.split(", ").nth(1)?))
}

/// Returns the words of `text` that follow `SYS_`.
fn calls_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("SYS_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn every_served_call_is_made_by_a_guest_program() {
    let sources = tree::sources();
    let table = sources.iter().find(|source| source.path == TABLE).unwrap();
    let served: Vec<&str> = table
        .text
        .lines()
        .filter_map(row)
        .filter(|(_, support)| ["Full", "Partial"].contains(support))
        .map(|(name, _)| name)
        .collect();
    assert!(served.len() > 250, "only {} rows have been understood", served.len());
    let made: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path.starts_with(PROGRAMS))
        // Random calls check no results.
        .filter(|source| !source.path.ends_with("fuzz_calls.rs"))
        .flat_map(|source| calls_in(&source.text))
        .collect();
    let missing: Vec<_> = served.into_iter().filter(|name| !made.contains(name)).collect();
    assert!(missing.is_empty(), "served, and made by no guest program: {missing:?}");
}
