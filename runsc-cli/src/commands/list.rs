//! `runsc list`.

use serde_json::Value;

use super::state;
use crate::cli::{GlobalOptions, ListArgs, ListFormat};
use crate::container::Container;

/// Prints every container of the state directory.
pub(crate) fn run(global: &GlobalOptions, args: &ListArgs) -> anyhow::Result<i32> {
    let containers = Container::list(&super::state_root(global))?;
    if args.quiet {
        let ids = containers.iter().map(|container| format!("{}\n", container.state.id));
        super::print(&ids.collect::<String>())?;
        return Ok(0);
    }
    let states: Vec<Value> = containers.iter().map(state::describe).collect();
    super::print(&match args.format {
        ListFormat::Json => format!("{}\n", Value::from(states)),
        ListFormat::Table => table(&states),
    })?;
    Ok(0)
}

fn table(states: &[Value]) -> String {
    let columns = ["id", "pid", "status", "bundle", "created", "owner"];
    let cell = |state: &Value, column: &str| match &state[column] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let header = columns.map(str::to_uppercase).to_vec();
    let rows = states.iter().map(|state| columns.map(|column| cell(state, column)).to_vec());
    super::align(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}
