//! `linux` of config.json, without what has a file of its own.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use sentry::config::{ContainerConfig, DeviceConfig};

use super::fields::Fields;
use super::namespaces;

pub(super) fn translate(
    mut linux: Fields,
    container: &mut ContainerConfig,
    ignore_cgroups: bool,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    container.masked_paths = linux.optional("maskedPaths")?.unwrap_or_default();
    container.readonly_paths = linux.optional("readonlyPaths")?.unwrap_or_default();
    let sysctl: BTreeMap<String, String> = linux.optional("sysctl")?.unwrap_or_default();
    container.sysctl = sysctl.into_iter().collect();
    namespaces::check(linux.objects("namespaces")?, warnings)?;
    for device in linux.objects("devices")? {
        container.devices.push(translate_device(device, warnings)?);
    }
    if let Some(mut resources) = linux.object("resources")? {
        if let Some(mut memory) = resources.object("memory")? {
            // A negative one is none.
            container.memory_limit =
                memory.optional("limit")?.and_then(|limit: i64| u64::try_from(limit).ok());
            if !ignore_cgroups {
                memory.finish(warnings);
            }
        }
        // Which host devices a cgroup admits: a sandbox has none.
        resources.ignore("devices");
        if !ignore_cgroups {
            resources.finish(warnings);
        }
    }
    if ignore_cgroups {
        linux.ignore("cgroupsPath");
    }
    // Identity of the host's user namespace is kept by the gofer; others need an id translation.
    for field in ["uidMappings", "gidMappings"] {
        if linux
            .take(field)
            .is_some_and(|mappings| mappings.as_array().is_some_and(|list| !list.is_empty()))
        {
            bail!("linux.{field}: user namespaces are not supported yet");
        }
    }
    // The sandbox shares no mount with the host, so there is nothing to propagate.
    linux.ignore("rootfsPropagation");
    linux.finish(warnings);
    Ok(())
}

fn translate_device(
    mut device: Fields,
    warnings: &mut Vec<String>,
) -> anyhow::Result<DeviceConfig> {
    let kind: String = device.required("type")?;
    let format = match kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => bail!("{}: unknown type {other:?}", device.name("type")),
    };
    let path: String = device.required("path")?;
    let number = |value: Option<i64>, name: &str| {
        u32::try_from(value.unwrap_or(0)).with_context(|| format!("{name}: not a device number"))
    };
    let config = DeviceConfig {
        path,
        mode: format | (device.optional("fileMode")?.unwrap_or(0o666) & 0o7777),
        major: number(device.optional("major")?, &device.name("major"))?,
        minor: number(device.optional("minor")?, &device.name("minor"))?,
        uid: device.optional("uid")?.unwrap_or(0),
        gid: device.optional("gid")?.unwrap_or(0),
    };
    device.finish(warnings);
    Ok(config)
}
