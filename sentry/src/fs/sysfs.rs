//! `sysfs(5)`: the processors, the loopback interface, and what else programs ask for.

mod cache;

use std::fmt::Write;
use std::sync::Arc;

use syscalls::SysResult;
use syscalls::abi::fs::Statfs;
use syscalls::abi::mount::SYSFS_MAGIC;

use super::procfs::cpus;
use super::pseudo::{Dir, Named, Numbers};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::syscalls::sched;
use crate::task::CurrentTask;
use crate::vfs::mount::next_anonymous_dev;
use crate::vfs::{FileSystem, Inode};

/// The size that every file shows: a page.
const FILE_SIZE: u64 = 4096;

/// The highest number of a processor, as `CONFIG_NR_CPUS` of a usual kernel gives it.
const KERNEL_MAX: &str = "8191\n";

/// A sysfs.
pub struct SysFs {
    root: Arc<Dir>,
}

/// Registers the type for `mount(2)`.
pub fn register(kernel: &Kernel) {
    kernel.file_system_types.register("sysfs", |_task, _options| {
        let fs: Arc<dyn FileSystem> = SysFs::new();
        Ok(fs)
    });
}

impl SysFs {
    /// Creates a sysfs.
    pub fn new() -> Arc<Self> {
        let numbers = Numbers::new(next_anonymous_dev(), FILE_SIZE, 0o755);
        let dir = |name, entries| numbers.named_dir(name, entries);
        let empty = |name| numbers.named_dir(name, Vec::new());
        let n_cpus = sched::n_cpus();
        let entries = vec![
            empty("block"),
            dir("bus", vec![dir("cpu", vec![empty("devices"), empty("drivers")])]),
            dir(
                "class",
                vec![empty("block"), net_class(&numbers), empty("power_supply"), empty("tty")],
            ),
            dir("dev", vec![empty("block"), empty("char")]),
            dir(
                "devices",
                vec![
                    dir("system", vec![cpu_dir(&numbers, n_cpus), node_dir(&numbers, n_cpus)]),
                    dir("virtual", vec![dir("net", vec![loopback(&numbers)])]),
                ],
            ),
            empty("firmware"),
            dir("fs", vec![empty("cgroup")]),
            kernel_dir(&numbers),
            empty("module"),
            empty("power"),
        ];
        Arc::new(Self { root: numbers.dir(entries) })
    }
}

impl FileSystem for SysFs {
    fn kind(&self) -> &'static str {
        "sysfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: SYSFS_MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }
}

/// Makes files that say what is given.
fn fixed(numbers: &Numbers, files: &[(&str, &str)]) -> Vec<Named> {
    files.iter().map(|(name, text)| numbers.fixed(name, 0o444, text)).collect()
}

fn all(n_cpus: usize) -> Vec<usize> {
    (0..n_cpus).collect()
}

fn cpu_dir(numbers: &Numbers, n_cpus: usize) -> Named {
    let list = cpus::list(&all(n_cpus)) + "\n";
    let mut entries: Vec<Named> = (0..n_cpus).map(|cpu| one_cpu(numbers, cpu, n_cpus)).collect();
    entries.extend(fixed(
        numbers,
        &[
            ("isolated", "\n"),
            ("kernel_max", KERNEL_MAX),
            ("offline", "\n"),
            ("online", &list),
            ("possible", &list),
            ("present", &list),
        ],
    ));
    let smt = fixed(numbers, &[("active", "0\n"), ("control", "notsupported\n")]);
    entries.push(numbers.named_dir("smt", smt));
    numbers.named_dir("cpu", entries)
}

/// One processor: a core of its own in the one package.
fn one_cpu(numbers: &Numbers, cpu: usize, n_cpus: usize) -> Named {
    let own = cpus::mask(&[cpu], n_cpus) + "\n";
    let own_list = format!("{cpu}\n");
    let every = cpus::mask(&all(n_cpus), n_cpus) + "\n";
    let every_list = cpus::list(&all(n_cpus)) + "\n";
    let topology = fixed(
        numbers,
        &[
            ("core_cpus", &own),
            ("core_cpus_list", &own_list),
            ("core_id", &own_list),
            ("core_siblings", &every),
            ("core_siblings_list", &every_list),
            ("die_cpus", &every),
            ("die_cpus_list", &every_list),
            ("die_id", "0\n"),
            ("package_cpus", &every),
            ("package_cpus_list", &every_list),
            ("physical_package_id", "0\n"),
            ("thread_siblings", &own),
            ("thread_siblings_list", &own_list),
        ],
    );
    let entries = vec![
        cache::dir(numbers, cpu, n_cpus),
        numbers.named_dir("topology", topology),
        numbers.link("node0", "../../node/node0"),
        numbers.link("subsystem", "../../../../bus/cpu"),
    ];
    numbers.named_dir(&format!("cpu{cpu}"), entries)
}

/// One memory node that holds everything.
fn node_dir(numbers: &Numbers, n_cpus: usize) -> Named {
    let list = cpus::list(&all(n_cpus)) + "\n";
    let mask = cpus::mask(&all(n_cpus), n_cpus) + "\n";
    let mut node = fixed(numbers, &[("cpulist", &list), ("cpumap", &mask), ("distance", "10\n")]);
    node.push(
        numbers.text("meminfo", 0o444, |current: &CurrentTask| node_memory(current.container())),
    );
    for cpu in 0..n_cpus {
        node.push(numbers.link(&format!("cpu{cpu}"), &format!("../../cpu/cpu{cpu}")));
    }
    let files = ["has_cpu", "has_memory", "has_normal_memory", "online", "possible"];
    let mut entries: Vec<Named> =
        files.iter().map(|name| numbers.fixed(name, 0o444, "0\n")).collect();
    entries.push(numbers.named_dir("node0", node));
    numbers.named_dir("node", entries)
}

fn node_memory(container: &Container) -> String {
    let total = container.total_memory() / 1024;
    let free = container.free_memory() / 1024;
    let mut out = String::new();
    for (name, value) in
        [("MemTotal:", total), ("MemFree:", free), ("MemUsed:", total.saturating_sub(free))]
    {
        let _ = writeln!(out, "Node 0 {name:<15} {value:>8} kB");
    }
    out
}

fn net_class(numbers: &Numbers) -> Named {
    numbers.named_dir("net", vec![numbers.link("lo", "../../devices/virtual/net/lo")])
}

fn loopback(numbers: &Numbers) -> Named {
    let mut entries = fixed(
        numbers,
        &[
            ("addr_assign_type", "0\n"),
            ("addr_len", "6\n"),
            ("address", "00:00:00:00:00:00\n"),
            ("broadcast", "00:00:00:00:00:00\n"),
            ("carrier", "1\n"),
            ("carrier_changes", "0\n"),
            ("dev_id", "0x0\n"),
            ("dev_port", "0\n"),
            ("dormant", "0\n"),
            ("flags", "0x9\n"),
            ("ifalias", "\n"),
            ("ifindex", "1\n"),
            ("iflink", "1\n"),
            ("link_mode", "0\n"),
            ("mtu", "65536\n"),
            ("netdev_group", "0\n"),
            ("operstate", "unknown\n"),
            ("tx_queue_len", "1000\n"),
            ("type", "772\n"),
            ("uevent", "INTERFACE=lo\nIFINDEX=1\n"),
        ],
    );
    let counters = [
        "collisions",
        "multicast",
        "rx_bytes",
        "rx_dropped",
        "rx_errors",
        "rx_packets",
        "tx_bytes",
        "tx_dropped",
        "tx_errors",
        "tx_packets",
    ];
    let statistics = counters.iter().map(|name| numbers.fixed(name, 0o444, "0\n")).collect();
    entries.push(numbers.named_dir("statistics", statistics));
    entries.push(numbers.link("subsystem", "../../../../class/net"));
    numbers.named_dir("lo", entries)
}

fn kernel_dir(numbers: &Numbers) -> Named {
    let huge = fixed(
        numbers,
        &[
            ("defrag", "always defer defer+madvise [madvise] never\n"),
            ("enabled", "always [madvise] never\n"),
            ("hpage_pmd_size", "2097152\n"),
            ("shmem_enabled", "always within_size advise [never] deny force\n"),
            ("use_zero_page", "1\n"),
        ],
    );
    let memory = vec![
        numbers.named_dir("hugepages", Vec::new()),
        numbers.named_dir("transparent_hugepage", huge),
    ];
    let mut entries = fixed(
        numbers,
        &[
            ("address_bits", "64\n"),
            ("cpu_byteorder", "little\n"),
            ("fscaps", "1\n"),
            ("profiling", "0\n"),
            ("uevent_seqnum", "0\n"),
        ],
    );
    entries.push(numbers.named_dir("debug", Vec::new()));
    entries.push(numbers.named_dir("mm", memory));
    entries.push(numbers.named_dir("security", Vec::new()));
    numbers.named_dir("kernel", entries)
}
