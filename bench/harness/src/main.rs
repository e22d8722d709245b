//! `bench`: compares native, runc, crun, gVisor and this runtime in one run.
#![doc = include_str!("../README.md")]

mod chart;
mod idle;
mod net;
mod programs;
mod report;
mod runtime;
mod spec;
mod starts;

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
    /// Where to draw a chart (SVG).
    #[arg(long)]
    svg: Option<PathBuf>,
    /// The ratios that must hold (`bench/SPEC.md`); the command fails if one does not.
    #[arg(long)]
    check: Option<PathBuf>,
    /// What the ratios of `--check` may be exceeded by: a factor.
    #[arg(long, default_value_t = 1.0)]
    margin: f64,
    /// For how many seconds idle sandboxes are watched.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

fn main() {
    let args = Args::parse();
    let is_wanted = |name: &str| is_wanted(&args.only, name);
    let mut runtimes = Runtime::all(&args.runsc, args.gvisor.as_deref());
    runtimes.retain(|runtime| args.runtimes.is_empty() || args.runtimes.contains(&runtime.name));
    let wanted = Wanted {
        inside: guest_measurements(&args.guest)
            .into_iter()
            .filter(|name| is_wanted(name))
            .collect(),
        starts: starts::ALL.into_iter().filter(|name| is_wanted(name)).collect(),
        memory: idle::MEMORY.into_iter().filter(|name| is_wanted(name)).collect(),
        over_net: net::ALL.into_iter().filter(|name| is_wanted(name)).collect(),
        programs: programs::list().into_iter().filter(|name| is_wanted(name)).collect(),
    };
    let mut samples = Samples::new(runtimes.iter().map(|runtime| runtime.name.clone()).collect());
    let rootfs = runtime::rootfs(&args.guest);
    for round in 1..=args.rounds {
        // Whoever comes after another one finds the machine warm and still clearing up: each comes first in turn.
        let (later, first) = runtimes.split_at((round - 1) % runtimes.len().max(1));
        for runtime in first.iter().chain(later) {
            let started = Instant::now();
            visit(runtime, &args.guest, &rootfs, &wanted, &mut samples);
            let took = started.elapsed().as_secs_f64();
            report::note(&format!("round {round}/{} {} {took:.1} s", args.rounds, runtime.name));
        }
    }
    if is_wanted("idle_wakeups") {
        idle_wakeups(&runtimes, &args, &rootfs, &mut samples);
    }
    report::print(&samples, args.format);
    if let Some(path) = &args.json {
        write(path, &report::json(&samples));
    }
    if let Some(path) = &args.svg {
        write(path, &chart::svg(&samples));
    }
    if let Some(path) = &args.check {
        check(path, args.margin, &samples);
    }
}

/// What a visit of a runtime measures.
struct Wanted {
    inside: Vec<String>,
    starts: Vec<&'static str>,
    memory: Vec<&'static str>,
    over_net: Vec<&'static str>,
    programs: Vec<String>,
}

/// Tells whether a measurement is asked for: by its name, by the beginning of it that ends with `*`, or since all are.
fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|pattern| spec::matches(pattern, name))
}

/// Makes every wanted measurement on one runtime.
fn visit(runtime: &Runtime, guest: &Path, rootfs: &Rootfs, wanted: &Wanted, samples: &mut Samples) {
    let fails = |name: &str, why: &str| report::note(&format!("{}: {name}: {why}", runtime.name));
    for (name, value) in starts::measure(runtime, guest, rootfs, &wanted.starts, fails) {
        samples.add(name, &runtime.name, value);
    }
    for name in &wanted.memory {
        match idle::memory(runtime, guest, rootfs, name) {
            Some(bytes) => samples.add(name, &runtime.name, bytes),
            None => fails(name, "does not run"),
        }
    }
    if !wanted.inside.is_empty() {
        let found = measure(runtime, guest, rootfs, &wanted.inside);
        for name in &wanted.inside {
            if let Some(value) = found.get(name) {
                samples.add(name, &runtime.name, *value);
            }
        }
    }
    if !wanted.programs.is_empty() {
        for (name, value) in programs::measure(runtime, guest, &wanted.programs) {
            samples.add(&name, &runtime.name, value);
        }
    }
    if !wanted.over_net.is_empty() {
        for (name, value) in net::measure(runtime, guest, &wanted.over_net) {
            match value {
                Ok(value) => samples.add(name, &runtime.name, value),
                Err(why) => fails(name, &why),
            }
        }
    }
}

fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        report::fail(&format!("cannot write {}: {error}", path.display()));
    }
}

/// Ends the program with an error if a ratio that the file promises does not hold.
fn check(path: &Path, margin: f64, samples: &Samples) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => report::fail(&format!("cannot read {}: {error}", path.display())),
    };
    let result = spec::check(&text, margin, samples);
    for line in &result.violations {
        report::note(line);
    }
    report::note(&format!("{} ratios hold, {} do not", result.held, result.violations.len()));
    if !result.violations.is_empty() || result.held == 0 {
        std::process::exit(1);
    }
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
            Ok(text) => report::parse(&text, &mut found),
            Err((text, why)) => {
                report::parse(&text, &mut found);
                report::note(&format!("{}: {}: {why}", runtime.name, words.join(" ")));
            }
        }
    }
    found
}

/// Asks the guest program for its measurements.
fn guest_measurements(guest: &Path) -> Vec<String> {
    let output = Cmd::new([guest.as_os_str(), "list".as_ref()]).run();
    output.success().lines().map(str::to_owned).collect()
}
