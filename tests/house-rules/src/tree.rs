//! The files that the rules look at.

use std::path::{Path, PathBuf};

/// Top-level folders with source code.
pub(crate) const FOLDERS: [&str; 6] =
    ["syscalls", "sentry", "gofer", "runsc-cli", "tests", "bench"];

/// One Rust source file.
pub(crate) struct Source {
    /// Path below the workspace.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
}

/// Returns the workspace's directory.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap().to_path_buf()
}

/// Returns every Rust source file.
pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut found);
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
        .into_iter()
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        })
        .collect()
}

/// Returns the folders of all packages.
pub(crate) fn packages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut found);
    }
    found.retain(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"));
    found.into_iter().map(|path| path.parent().unwrap().to_path_buf()).collect()
}

/// Lists the files below a folder, build output left out.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Returns a line without its comment and the content of its strings: enough to look for words of code.
pub(crate) fn code(line: &str) -> String {
    let mut out = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => {
                in_string = !in_string;
                out.push('"');
            }
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => out.push(c),
        }
    }
    out
}

/// Returns the lines of a file before its unit tests.
pub(crate) fn product_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(code)
}
