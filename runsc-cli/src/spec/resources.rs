//! `linux` of config.json, without what has a file of its own.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use sentry::config::{ContainerConfig, DeviceConfig, IdMaps};

use super::fields::Fields;
use super::mounts;
use super::namespaces::{self, Namespaces};
use super::scheduling;
use crate::cgroup;

/// Where the container's control groups are, and what is written there.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    pub(crate) path: Option<String>,
    pub(crate) limits: cgroup::Limits,
}

pub(super) fn translate(
    mut linux: Fields,
    container: &mut ContainerConfig,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Namespaces, Cgroups)> {
    container.masked_paths = linux.optional("maskedPaths")?.unwrap_or_default();
    container.readonly_paths = linux.optional("readonlyPaths")?.unwrap_or_default();
    let sysctl: BTreeMap<String, String> = linux.optional("sysctl")?.unwrap_or_default();
    container.sysctl = sysctl.into_iter().collect();
    let namespaces = namespaces::translate(linux.objects("namespaces")?, warnings)?;
    for device in linux.objects("devices")? {
        container.devices.push(translate_device(device, warnings)?);
    }
    let mut cgroups =
        Cgroups { path: linux.optional("cgroupsPath")?, limits: cgroup::Limits::default() };
    if let Some(resources) = linux.object("resources")? {
        cgroups.limits = cgroup::read_limits(resources, warnings)?;
    }
    container.memory_limit = cgroups.limits.memory;
    container.tasks_limit = cgroups.limits.pids;
    container.id_maps = namespaces::id_maps(&mut linux, warnings)?;
    let has_user_namespace = namespaces.own & libc::CLONE_NEWUSER != 0;
    for (ids, ranges) in [("uid", &container.id_maps.uids), ("gid", &container.id_maps.gids)] {
        if has_user_namespace && ranges.is_empty() {
            // In runc's words.
            bail!("User namespaces enabled, but no {ids} mappings found.");
        }
    }
    if !has_user_namespace && container.id_maps != IdMaps::default() {
        warnings.push("linux.uidMappings: without a user namespace, ignored".into());
        container.id_maps = IdMaps::default();
    }
    // The sandbox shares no mount with the host: it is for the mounts inside.
    if let Some(propagation) = linux.optional::<String>("rootfsPropagation")?
        && !propagation.is_empty()
    {
        container.root.propagation = mounts::propagation(&propagation).with_context(|| {
            format!("linux.rootfsPropagation: unknown propagation {propagation:?}")
        })?;
    }
    scheduling::check_personality(&mut linux, warnings)?;
    linux.finish(warnings);
    Ok((namespaces, cgroups))
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
