//! Expectation files: which cases are known to fail where, and why.
//!
//! The format is a subset of TOML: `[[expect]]` tables with `name`, `reason` and `issue`. A name is
//! `SUBJECT/CASE` and may end in `*`. A case that is expected to fail and passes fails the run, so that the
//! list only shrinks. There is no entry for what fails sometimes: that is a race to be found.

use std::path::PathBuf;

/// One known failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// `SUBJECT/CASE`.
    pub name: String,
    /// Why it fails.
    pub reason: String,
    /// Number of the issue that will make it pass.
    pub issue: u32,
}

/// The content of an expectation file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectations {
    entries: Vec<Expectation>,
}

impl Expectations {
    /// Reads files; one that does not exist expects nothing.
    ///
    /// # Panics
    ///
    /// If a file is malformed.
    #[must_use]
    #[track_caller]
    pub fn read(paths: &[PathBuf]) -> Expectations {
        let mut entries = Vec::new();
        for path in paths {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let parsed = parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            entries.extend(parsed.entries);
        }
        Expectations { entries }
    }

    /// Returns the known failure that covers a case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Expectation> {
        self.entries.iter().find(|entry| match entry.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => entry.name == name,
        })
    }

    /// Compares what happened with what was expected; returns one line per difference.
    pub fn check(&self, results: &[(String, Result<(), String>)]) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, result) in results {
            match (result, self.find(name)) {
                (Ok(()), None) | (Err(_), Some(_)) => {}
                (Err(why), None) => problems.push(format!("{name}: {why}")),
                (Ok(()), Some(known)) => problems.push(format!(
                    "{name}: passes but is expected to fail ({}): delete its entry",
                    known.reason
                )),
            }
        }
        problems
    }
}

/// Parses the subset of TOML.
fn parse(text: &str) -> Result<Expectations, String> {
    let mut entries: Vec<Expectation> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = |why: &str| format!("line {}: {why}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[expect]]" {
            entries.push(Expectation { name: String::new(), reason: String::new(), issue: 0 });
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| at("neither a table nor a key"))?;
        let entry = entries.last_mut().ok_or_else(|| at("a key outside a table"))?;
        let value = value.trim();
        let string = || {
            value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .map(str::to_owned)
                .ok_or_else(|| at("not a string"))
        };
        match key.trim() {
            "name" => entry.name = string()?,
            "reason" => entry.reason = string()?,
            "issue" => entry.issue = value.parse().map_err(|_| at("not a number"))?,
            other => return Err(at(&format!("unknown key `{other}`"))),
        }
    }
    match entries.iter().find(|entry| entry.name.is_empty() || entry.reason.is_empty()) {
        Some(entry) => Err(format!("an entry lacks its name or reason: {entry:?}")),
        None => Ok(Expectations { entries }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Expectations, parse};

    fn sample() -> Expectations {
        parse(
            "# known\n[[expect]]\nname = \"a/b\"\nreason = \"not yet\"\nissue = 2\n\n\
             [[expect]]\nname = \"c/*\"\nreason = \"later\"\nissue = 3\n",
        )
        .unwrap()
    }

    #[test]
    fn known_failure_that_fails_is_silent() {
        let results =
            [("a/b".to_owned(), Err("x".to_owned())), ("c/d".to_owned(), Err("y".to_owned()))];
        assert!(sample().check(&results).is_empty());
    }

    #[test]
    fn known_failure_that_passes_is_a_problem() {
        assert_eq!(sample().check(&[("a/b".to_owned(), Ok(()))]).len(), 1);
    }

    #[test]
    fn unknown_failure_is_a_problem() {
        assert_eq!(sample().check(&[("a/x".to_owned(), Err("x".to_owned()))]).len(), 1);
    }

    #[test]
    fn malformed_files_are_refused() {
        for text in
            ["name = \"x\"", "[[expect]]\nname = x", "[[expect]]\nfoo = 1", "[[expect]]\n", "x"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
