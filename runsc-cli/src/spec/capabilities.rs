//! Capabilities by name.

use anyhow::bail;

/// Every capability that Linux 6.12 has.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// In the order of `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Returns every name.
pub(crate) fn names() -> &'static [&'static str] {
    &NAMES
}

/// Returns the set with the given names.
pub(crate) fn parse(names: &[String], field: &str) -> anyhow::Result<u64> {
    let mut set = 0;
    for name in names {
        match NAMES.iter().position(|known| known == name) {
            Some(number) => set |= 1 << number,
            None => bail!("{field}: unknown capability {name}"),
        }
    }
    Ok(set)
}

/// Returns whether a capability has the given name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}
