//! `runsc spec`: a specification file to start from.

use std::fs::File;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cli::SpecArgs;

/// What runc writes, but for a program that needs no terminal of its own.
const TEMPLATE: &str = include_str!("spec/template.json");

/// Writes the file.
pub(crate) fn run(args: &SpecArgs) -> anyhow::Result<i32> {
    let path = args.bundle.join("config.json");
    let mut file = match File::create_new(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("file {} exists. Remove it first", path.display())
        }
        result => result.with_context(|| format!("creating {}", path.display()))?,
    };
    file.write_all(text(&args.command).as_bytes())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(0)
}

/// Returns the file's text for a command, `sh` where it is empty.
pub(crate) fn text(command: &[String]) -> String {
    let command = if command.is_empty() { vec!["sh".to_owned()] } else { command.to_vec() };
    let args: Vec<String> =
        command.into_iter().map(|arg| format!("\n\t\t\t{}", Value::from(arg))).collect();
    TEMPLATE.replace("\n\t\t\t@ARGS@", &args.join(","))
}
