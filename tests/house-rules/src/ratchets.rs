//! Where `unsafe` may stand, and how often what should become rarer still occurs.

use crate::tree;

/// Folders and files that may hold `unsafe`.
const UNSAFE: [&str; 11] = [
    "sentry/host/",
    "sentry/platform/",
    "sentry/stub/",
    "sentry/sysmsg/",
    "gofer/src/sandbox.rs",
    "runsc-cli/src/sys.rs",
    "runsc-cli/src/sys/",
    "tests/guest/",
    "tests/house-rules/",
    "tests/harness/",
    "bench/guest/",
];

/// Highest numbers of `unwrap()` and `expect(` outside of unit tests. They only go down.
const PANICS: [(&str, usize); 2] = [("sentry/src/", 0), ("gofer/", 0)];

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut found = Vec::new();
    for source in tree::sources() {
        if UNSAFE.iter().any(|allowed| source.path.starts_with(allowed)) {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            let code = tree::code(line);
            let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if words.contains(&"unsafe") {
                found.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "`unsafe` where none may stand: {found:#?}");
}

#[test]
fn panics_become_rarer() {
    for (folder, most) in PANICS {
        let mut found = Vec::new();
        for source in tree::sources() {
            if !source.path.starts_with(folder)
                || source.path.ends_with("tests.rs")
                || source.path.contains("/tests/")
            {
                continue;
            }
            for (number, line) in tree::product_lines(&source.text).enumerate() {
                if line.contains(".unwrap()") || line.contains(".expect(") {
                    found.push(format!("{}:{}", source.path, number + 1));
                }
            }
        }
        assert!(found.len() <= most, "{folder}: {} and not {most}: {found:#?}", found.len());
        assert!(
            found.len() == most,
            "{folder}: {} is below {most}: lower the ratchet",
            found.len()
        );
    }
}

#[test]
fn every_unsafe_block_is_explained() {
    let mut found = Vec::new();
    for source in tree::sources() {
        if source.path.starts_with("tests/") || source.path.starts_with("bench/") {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !tree::code(line).contains("unsafe {") {
                continue;
            }
            // The comment stands above the statement, which may have begun a few lines before.
            let before = &lines[number.saturating_sub(8)..number];
            let is_explained = before.iter().any(|line| line.contains("SAFETY:"));
            if !is_explained && !line.contains("SAFETY:") {
                found.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "`unsafe` blocks without `// SAFETY:`: {found:#?}");
}
