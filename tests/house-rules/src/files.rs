//! Every file says what it is, and none is too long; every package has a README and the shared lints.

use crate::tree;

/// Longest file, in lines.
const MAX_LINES: usize = 800;

/// Longest file of a package's own tests, which are mostly lists.
const MAX_TEST_LINES: usize = 900;

/// Packages with lints of their own, and why: programs whose subject is to make arbitrary calls.
const OWN_LINTS: [&str; 2] = ["tests/guest", "bench/guest"];

#[test]
fn every_file_has_a_header() {
    let without: Vec<String> = tree::sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !source.text.starts_with("#!["))
        .map(|source| source.path)
        .collect();
    assert!(without.is_empty(), "files without a `//!` header: {without:#?}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = tree::sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, path)| {
            let most = if path.contains("/tests/") { MAX_TEST_LINES } else { MAX_LINES };
            *lines > most
        })
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert!(long.is_empty(), "files above {MAX_LINES} lines: {long:#?}");
}

#[test]
fn no_code_in_mod_rs() {
    let found: Vec<String> = tree::sources()
        .into_iter()
        .map(|source| source.path)
        // `tests/common/mod.rs` is how cargo shares code between integration tests.
        .filter(|path| path.ends_with("/mod.rs") && !path.ends_with("/tests/common/mod.rs"))
        .collect();
    assert!(found.is_empty(), "`foo.rs` beside `foo/`, not `foo/mod.rs`: {found:#?}");
}

#[test]
fn every_package_has_a_readme_and_the_shared_lints() {
    for package in tree::packages() {
        let name = package.strip_prefix(tree::root()).unwrap().display().to_string();
        assert!(package.join("README.md").exists(), "{name} has no README.md");
        let manifest = std::fs::read_to_string(package.join("Cargo.toml")).unwrap();
        let shared = manifest.contains("[lints]\nworkspace = true");
        assert!(shared || OWN_LINTS.contains(&name.as_str()), "{name} lacks the workspace's lints");
    }
}

#[test]
fn expectation_files_name_an_issue() {
    let folders = ["tests/expectations", "tests/syscalls/expectations"];
    let entries = folders.map(|folder| std::fs::read_dir(tree::root().join(folder)));
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!(
            count("[[expect]]"),
            count("issue = "),
            "{}: an entry without issue",
            path.display()
        );
    }
}
