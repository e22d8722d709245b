//! `hooks` of config.json.

use anyhow::bail;

use super::fields::Fields;
use crate::hooks::{Hook, Hooks, Point};

pub(super) fn translate(
    mut hooks: Fields,
    capabilities: u64,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Hooks> {
    let mut result = Hooks { capabilities, ..Hooks::default() };
    for point in Point::ALL {
        let mut list = Vec::new();
        for mut entry in hooks.objects(point.name())? {
            let hook = Hook {
                path: entry.required("path")?,
                args: entry.optional("args")?.unwrap_or_default(),
                env: entry.optional("env")?,
                timeout: entry.optional("timeout")?,
            };
            if !hook.path.starts_with('/') {
                bail!("{}: {:?} is not absolute", entry.name("path"), hook.path);
            }
            if hook.timeout == Some(0) {
                bail!("{}: has to be above zero", entry.name("timeout"));
            }
            entry.finish(warnings);
            list.push(hook);
        }
        if !list.is_empty() {
            result.lists.insert(point, list);
        }
    }
    hooks.finish(warnings);
    Ok(result)
}
