//! `runsc state`.

use serde_json::{Value, json};

use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};
use crate::log;

/// The version of the runtime specification that the state follows.
pub(super) const OCI_VERSION: &str = "1.2.1";

/// Prints the state as JSON.
pub(crate) fn run(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    super::print(&format!("{:#}\n", describe(&container)))?;
    Ok(0)
}

/// Returns the state in the form of the runtime specification, with runc's additions.
pub(super) fn describe(container: &Container) -> Value {
    let (state, status) = (&container.state, container.status());
    let pid = if status == Status::Stopped { 0 } else { container.pid() };
    let mut value = json!({
        "ociVersion": OCI_VERSION,
        "id": state.id,
        "pid": pid,
        "status": status.name(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": log::rfc3339(state.created),
        "owner": owner_name(state.owner),
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value
}

/// Returns the state as hooks get it.
pub(crate) fn for_hooks(container: &Container, status: Status) -> Value {
    let state = &container.state;
    let mut value = json!({
        "ociVersion": OCI_VERSION,
        "id": state.id,
        "status": status.name(),
        "bundle": state.bundle,
    });
    if status != Status::Stopped {
        value["pid"] = container.pid().into();
    }
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value
}

/// Returns the user's name, of `/etc/passwd` only; empty where it is not there.
fn owner_name(uid: u32) -> String {
    let Ok(passwd) = std::fs::read_to_string("/etc/passwd") else { return String::new() };
    let uid = uid.to_string();
    let mut names = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    names.next().unwrap_or_default()
}
