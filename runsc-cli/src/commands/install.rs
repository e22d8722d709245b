//! `runsc install` and `runsc uninstall`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;

use crate::cli::InstallArgs;
use crate::install::{self, Manager, Runtime};
use crate::log;

/// Makes this `runsc` known to the container managers of the host.
pub(crate) fn install(args: &InstallArgs) -> anyhow::Result<i32> {
    let binary = std::env::current_exe().context("finding runsc's own path")?;
    let runtime = Runtime { name: args.runtime.clone(), binary, flags: args.flags.clone() };
    change(args, |manager, old| manager.with(&runtime, old))
}

/// Takes back what [`install()`] has done.
pub(crate) fn uninstall(args: &InstallArgs) -> anyhow::Result<i32> {
    change(args, |manager, old| manager.without(&args.runtime, old))
}

/// Changes the configuration of each manager.
fn change(
    args: &InstallArgs,
    new_text: impl Fn(Manager, &str) -> anyhow::Result<String>,
) -> anyhow::Result<i32> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if args.runtime.is_empty() || !args.runtime.bytes().all(is_plain) {
        bail!("--runtime: {:?} is no name: letters, digits, - and _ make one", args.runtime);
    }
    let is_found = |manager: &Manager| install::is_installed(manager.program());
    let managers: Vec<Manager> = match &args.manager[..] {
        [] => Manager::value_variants().iter().copied().filter(is_found).collect(),
        chosen => chosen.to_vec(),
    };
    if managers.is_empty() {
        bail!("no container manager is installed: name one with --manager");
    }
    let mut failures = 0;
    for manager in managers {
        let path = args.etc.join(manager.file(&args.runtime));
        let changed = read(&path).and_then(|old| {
            let new = new_text(manager, &old)?;
            apply(&path, &old, &new, args.dry_run)
        });
        match changed {
            Ok(true) if !args.dry_run => {
                if let Some(step) = manager.next_step() {
                    super::print(&format!("  next: {step}\n"))?;
                }
            }
            Ok(_) => {}
            Err(error) => {
                log::error(&format!("{}: {error:#}", path.display()));
                failures += 1;
            }
        }
    }
    Ok(i32::from(failures > 0))
}

/// Returns the text of a file, an empty one where there is none.
fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.context("reading it"),
    }
}

/// Replaces a file atomically, or removes it where its new text is empty. Returns whether that was
/// a change.
fn apply(path: &Path, old: &str, new: &str, dry_run: bool) -> anyhow::Result<bool> {
    let name = path.display();
    if old == new {
        super::print(&format!("unchanged: {name}\n"))?;
        return Ok(false);
    }
    if dry_run {
        let text = if new.is_empty() {
            format!("would remove: {name}\n")
        } else {
            format!("would write: {name}\n{new}")
        };
        super::print(&text)?;
        return Ok(true);
    }
    if new.is_empty() {
        fs::remove_file(path).context("removing it")?;
        super::print(&format!("removed: {name}\n"))?;
        return Ok(true);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context("creating its folder")?;
    }
    let mode = fs::metadata(path).map_or(0o644, |found| found.permissions().mode() & 0o7777);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, new)
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&temporary, path))
        .context("writing it")?;
    super::print(&format!("written: {name}\n"))?;
    Ok(true)
}
