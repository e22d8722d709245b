//! The network of containers: what iperf3, redis and nginx do over a wire from another network namespace.
//!
//! Every number is a time: of a MiB, of a request, of a byte's way there and back.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_harness::wire::{Running, Wire};
use test_harness::{Cmd, Rootfs, TempDir};

use crate::runtime::Runtime;

/// The measurements, in the order of the table.
pub(crate) const ALL: [&str; 10] = [
    "net_in_mib",
    "net_out_mib",
    "net_in_4_streams_mib",
    "net_out_4_streams_mib",
    "net_in_ipv6_mib",
    "net_out_ipv6_mib",
    "net_redis_get",
    "net_redis_set",
    "net_http_request",
    "net_ping_pong",
];

/// Where the guest program is in a container.
const GUEST: &str = "/tmp/bench-guest";

const SERVERS: &str = include_str!("servers.sh");

/// How long a server may take until it answers.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes the wanted measurements with one start of the runtime. What fails is left out.
pub(crate) fn measure(
    runtime: &Runtime,
    guest: &Path,
    wanted: &[&'static str],
) -> Vec<(&'static str, Result<f64, String>)> {
    let (wire, rootfs) = (Wire::new(), Rootfs::services());
    let servers = start(runtime, guest, &wire, &rootfs);
    let measure = |name: &&'static str| {
        let value = match &servers {
            Ok(_) => measure_one(&wire, guest, name),
            Err(line) => Err(format!("the servers do not start: {line}")),
        };
        (*name, value)
    };
    wanted.iter().map(measure).collect()
}

fn start(runtime: &Runtime, guest: &Path, wire: &Wire, rootfs: &Rootfs) -> Result<Running, String> {
    if runtime.is_native() {
        // What programs write is in a namespace of their own.
        let script = format!(
            "mount -t tmpfs tmpfs \"$1/tmp\" && mount --bind /dev \"$1/dev\" && \
             cp \"$2\" \"$1{GUEST}\" && exec chroot \"$1\" sh -c \"$3\""
        );
        let (root, guest) = (rootfs.path().to_string_lossy(), guest.to_string_lossy());
        let args = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script];
        return Ok(wire.server_inside(&[&args[..], &["sh", &root, &guest, SERVERS]].concat()));
    }
    let state = TempDir::new();
    let mut config = wire.config(rootfs, &Cmd::new(["sh", "-c", SERVERS]));
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(json!({"destination": GUEST, "type": "bind", "source": guest,
                           "options": ["bind", "ro"]}));
    }
    let is_kept = |word: &OsString| word != "--network=none" && word != "run";
    let mut argv: Vec<OsString> = runtime.command(&state).into_iter().filter(is_kept).collect();
    if runtime.name == "gvisor" {
        // It takes every namespace with this folder for the host's, and newer kernels have it in all.
        let script = "mount -t tmpfs tmpfs /proc/sys/net && exec \"$@\"";
        let words = ["unshare", "--mount", "--propagation=slave", "sh", "-c", script, "sh"];
        argv.splice(0..0, words.map(OsString::from));
    }
    wire.start(argv, state, &config).ready_if_any()
}

fn measure_one(wire: &Wire, guest: &Path, name: &str) -> Result<f64, String> {
    let started = Instant::now();
    loop {
        match try_one(wire, guest, name) {
            // The servers come up while the first of their clients wait.
            Err(why) if started.elapsed() > DEADLINE => return Err(why),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}

fn try_one(wire: &Wire, guest: &Path, name: &str) -> Result<f64, String> {
    let (v4, v6) = (wire.v4(), wire.v6());
    match name {
        "net_in_mib" => iperf3(wire, &["-c", v4]),
        "net_out_mib" => iperf3(wire, &["-c", v4, "-R"]),
        "net_in_4_streams_mib" => iperf3(wire, &["-c", v4, "-P4"]),
        "net_out_4_streams_mib" => iperf3(wire, &["-c", v4, "-P4", "-R"]),
        "net_in_ipv6_mib" => iperf3(wire, &["-c", v6]),
        "net_out_ipv6_mib" => iperf3(wire, &["-c", v6, "-R"]),
        "net_redis_get" => redis(wire, "get"),
        "net_redis_set" => redis(wire, "set"),
        "net_http_request" => http(wire),
        _ => {
            let guest = guest.to_string_lossy();
            let said = wire.ask_outside(&[&guest, "ask", &format!("{v4}:7010")])?;
            said.trim().parse().map_err(|_| said)
        }
    }
}

fn iperf3(wire: &Wire, args: &[&str]) -> Result<f64, String> {
    let said = wire.ask_outside(&[&["iperf3", "-J", "-t", "1", "-O", "0.3"], args].concat())?;
    let parsed: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let bits = parsed["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.filter(|bits| *bits > 0.0).map(|bits| 8e9 * f64::from(1 << 20) / bits).ok_or(said)
}

fn redis(wire: &Wire, what: &str) -> Result<f64, String> {
    let args = ["redis-benchmark", "-h", wire.v4(), "-n", "30000", "-c", "50", "--csv", "-t", what];
    let said = wire.ask_outside(&args)?;
    // "GET","54945.05",…
    let last = said.lines().last().and_then(|line| line.split('"').nth(3));
    let rate = last.and_then(|rate| rate.parse::<f64>().ok()).filter(|rate| *rate > 0.0);
    rate.map(|rate| 1e9 / rate).ok_or(said)
}

fn http(wire: &Wire) -> Result<f64, String> {
    let url = format!("http://{}:8080/", wire.v4());
    let said = wire.ask_outside(&["wrk", "-t2", "-c50", "-d1s", &url])?;
    if said.contains("Socket errors") || said.contains("Non-2xx") {
        return Err(said);
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = rate.and_then(|rate| rate.trim().parse::<f64>().ok()).filter(|rate| *rate > 0.0);
    rate.map(|rate| 1e9 / rate).ok_or(said)
}
