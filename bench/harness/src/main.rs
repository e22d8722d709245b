//! `bench`: compares native, runc, crun, gVisor and this runtime in one run.
#![doc = include_str!("../README.md")]

mod idle;
mod net;
mod report;
mod runtime;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use idle::Idle;
use report::{Format, Samples};
use runtime::Runtime;
use test_harness::{Cmd, Rootfs};

/// Compares native, runc, crun, gVisor and this runtime in one run.
#[derive(Debug, Parser)]
struct Args {
    /// How often each runtime is visited.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Runtimes to compare; all that are there if not given.
    #[arg(long, value_delimiter = ',')]
    runtimes: Vec<String>,
    /// Measurements to make; all if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The `runsc` to measure.
    #[arg(long)]
    runsc: PathBuf,
    /// gVisor's `runsc`.
    #[arg(long)]
    gvisor: Option<PathBuf>,
    /// The program that measures from inside.
    #[arg(long)]
    guest: PathBuf,
    /// Where to write JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// For how many seconds idle sandboxes are watched.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

fn main() {
    let args = Args::parse();
    let is_wanted =
        |list: &[String], name: &str| list.is_empty() || list.iter().any(|item| item == name);
    let mut runtimes = Runtime::all(&args.runsc, args.gvisor.as_deref());
    runtimes.retain(|runtime| is_wanted(&args.runtimes, &runtime.name));
    let mut inside = guest_measurements(&args.guest);
    inside.retain(|name| is_wanted(&args.only, name));
    let over_net: Vec<&str> =
        net::ALL.into_iter().filter(|name| is_wanted(&args.only, name)).collect();
    let mut samples = Samples::new(runtimes.iter().map(|runtime| runtime.name.clone()).collect());
    let rootfs = runtime::rootfs(&args.guest);
    for round in 1..=args.rounds {
        for runtime in &runtimes {
            let started = Instant::now();
            if is_wanted(&args.only, "start_true") {
                for value in start_true(runtime, &args.guest, &rootfs) {
                    samples.add("start_true", &runtime.name, value);
                }
            }
            if is_wanted(&args.only, "idle_memory")
                && let Some(bytes) = Idle::start(runtime, &args.guest, &rootfs).memory()
            {
                samples.add("idle_memory", &runtime.name, bytes);
            }
            let found = measure(runtime, &args.guest, &rootfs, &inside);
            for name in &inside {
                if let Some(value) = found.get(name) {
                    samples.add(name, &runtime.name, *value);
                }
            }
            if !over_net.is_empty() {
                for (name, value) in net::measure(runtime, &args.guest, &over_net) {
                    match value {
                        Ok(value) => samples.add(name, &runtime.name, value),
                        Err(why) => report::note(&format!("{}: {name}: {why}", runtime.name)),
                    }
                }
            }
            let took = started.elapsed().as_secs_f64();
            report::note(&format!("round {round}/{} {} {took:.1} s", args.rounds, runtime.name));
        }
    }
    if is_wanted(&args.only, "idle_wakeups") {
        idle_wakeups(&runtimes, &args, &rootfs, &mut samples);
    }
    report::print(&samples, args.format);
    if let Some(path) = args.json
        && let Err(error) = std::fs::write(&path, report::json(&samples))
    {
        report::fail(&format!("cannot write {}: {error}", path.display()));
    }
}

/// Measures the whole command that runs `true`, a few times.
fn start_true(runtime: &Runtime, guest: &Path, rootfs: &Rootfs) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        match runtime.run(guest, rootfs, &["true"], Duration::from_secs(60)) {
            Ok(_) => times.push(started.elapsed().as_secs_f64() * 1e9),
            Err((_, why)) => report::note(&format!("{}: true: {why}", runtime.name)),
        }
    }
    times
}

/// Counts for a while how often the threads of idle sandboxes run: of one sandbox of each runtime, all at once.
fn idle_wakeups(runtimes: &[Runtime], args: &Args, rootfs: &Rootfs, samples: &mut Samples) {
    let mut all: Vec<Idle> =
        runtimes.iter().map(|runtime| Idle::start(runtime, &args.guest, rootfs)).collect();
    let before: Vec<_> = all.iter_mut().map(Idle::switches).collect();
    std::thread::sleep(Duration::from_secs(args.idle_seconds));
    for ((runtime, idle), before) in runtimes.iter().zip(&mut all).zip(before) {
        if let (Some(before), Some(after)) = (before, idle.switches()) {
            samples.add("idle_wakeups", &runtime.name, idle::wakeups(&before, &after));
        }
    }
}

/// Runs all measurements in one start of the runtime; those that a crash has cost are tried one by one.
fn measure(
    runtime: &Runtime,
    guest: &Path,
    rootfs: &Rootfs,
    names: &[String],
) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let whole = std::iter::once(words.clone());
    for words in whole.chain(words.into_iter().map(|word| vec![word])) {
        if words.iter().all(|word| found.contains_key(*word)) {
            continue;
        }
        match runtime.run(guest, rootfs, &words, Duration::from_secs(120)) {
            Ok(text) => parse(&text, &mut found),
            Err((text, why)) => {
                parse(&text, &mut found);
                report::note(&format!("{}: {}: {why}", runtime.name, words.join(" ")));
            }
        }
    }
    found
}

/// Reads `NAME NANOSECONDS` lines.
fn parse(text: &str, found: &mut BTreeMap<String, f64>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ')
            && let Ok(value) = value.parse()
        {
            found.insert(name.to_owned(), value);
        }
    }
}

/// Asks the guest program for its measurements.
fn guest_measurements(guest: &Path) -> Vec<String> {
    let output = Cmd::new([guest.as_os_str(), "list".as_ref()]).run();
    output.success().lines().map(str::to_owned).collect()
}
