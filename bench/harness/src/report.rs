//! Medians, spreads and ratios, as a table and as JSON.

use std::collections::BTreeMap;
use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

/// What `bench` prints.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// A Markdown table.
    Table,
    /// JSON.
    Json,
}

/// Every number of a run: measurement → runtime → one value per round.
#[derive(Debug)]
pub(crate) struct Samples {
    runtimes: Vec<String>,
    names: Vec<String>,
    values: BTreeMap<(String, String), Vec<f64>>,
}

/// What JSON holds of one measurement on one runtime.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    runtime: &'a str,
    unit: &'a str,
    median: f64,
    /// Half the distance between the quartiles, over the median.
    spread: f64,
    ratio_to_native: Option<f64>,
    ratio_to_gvisor: Option<f64>,
    values: &'a [f64],
}

impl Samples {
    /// Makes an empty collection for the given runtimes.
    pub(crate) fn new(runtimes: Vec<String>) -> Samples {
        Samples { runtimes, names: Vec::new(), values: BTreeMap::new() }
    }

    /// Adds one value.
    pub(crate) fn add(&mut self, name: &str, runtime: &str, value: f64) {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
        self.values.entry((name.to_owned(), runtime.to_owned())).or_default().push(value);
    }

    /// Returns all values of a measurement on a runtime.
    fn get(&self, name: &str, runtime: &str) -> &[f64] {
        self.values.get(&(name.to_owned(), runtime.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Returns the names of the measurements, in the order in which they came.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the median of a measurement on a runtime.
    pub(crate) fn median(&self, name: &str, runtime: &str) -> Option<f64> {
        quantile(self.get(name, runtime), 0.5)
    }
}

/// Returns a quantile of some values, between neighbours where it falls between.
fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = u32::try_from(sorted.len().checked_sub(1)?).ok()?;
    let position = f64::from(last) * at;
    let index = (0..=last).rev().find(|index| f64::from(*index) <= position)?;
    let low = sorted.get(usize::try_from(index).ok()?)?;
    let high = sorted.get(usize::try_from(index + 1).ok()?).unwrap_or(low);
    Some(low + (high - low) * position.fract())
}

/// Returns half the distance between the quartiles, over the median.
fn spread(values: &[f64]) -> f64 {
    match (quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)) {
        (Some(low), Some(middle), Some(high)) if middle > 0.0 => (high - low) / 2.0 / middle,
        _ => 0.0,
    }
}

/// Reads `NAME NANOSECONDS` lines.
pub(crate) fn parse(text: &str, found: &mut BTreeMap<String, f64>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ')
            && let Ok(value) = value.parse::<f64>()
            && value.is_finite()
        {
            found.insert(name.to_owned(), value);
        }
    }
}

/// Returns the unit of a measurement.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("memory") => "bytes",
        Some("wakeups") => "count",
        _ => "ns",
    }
}

/// Writes a value so that a person can read it.
fn human(name: &str, value: f64) -> String {
    match unit(name) {
        "bytes" => return format!("{:.1} MiB", value / f64::from(1 << 20)),
        "count" => return format!("{value:.0}"),
        _ => {}
    }
    match value {
        v if v < 1_000.0 => format!("{v:.1} ns"),
        v if v < 1_000_000.0 => format!("{:.2} µs", v / 1e3),
        v => format!("{:.2} ms", v / 1e6),
    }
}

/// Prints the result.
pub(crate) fn print(samples: &Samples, format: Format) {
    let text = match format {
        Format::Table => table(samples),
        Format::Json => json(samples),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to standard error, where progress goes.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends the program with an error.
pub(crate) fn fail(text: &str) -> ! {
    note(text);
    std::process::exit(1)
}

/// Makes a Markdown table: medians with their spread, and what they are to native and to gVisor.
fn table(samples: &Samples) -> String {
    let mut text = String::from("| measurement |");
    for runtime in &samples.runtimes {
        text += &format!(" {runtime} |");
    }
    text += " systrap / native | gVisor / systrap |\n|---|";
    text += &"---:|".repeat(samples.runtimes.len() + 2);
    text += "\n";
    for name in &samples.names {
        text += &format!("| {name} |");
        for runtime in &samples.runtimes {
            match samples.median(name, runtime) {
                Some(median) => {
                    let spread = spread(samples.get(name, runtime)) * 100.0;
                    text += &format!(" {} ±{spread:.0}% |", human(name, median));
                }
                None => text += " — |",
            }
        }
        let ratio = |of: &str, to: &str| match (samples.median(name, of), samples.median(name, to))
        {
            (Some(of), Some(to)) if to > 0.0 => format!(" {:.2} |", of / to),
            _ => " — |".to_owned(),
        };
        text += &ratio("ours-systrap", "native");
        text += &ratio("gvisor", "ours-systrap");
        text += "\n";
    }
    text
}

/// Makes JSON: one object per measurement and runtime.
pub(crate) fn json(samples: &Samples) -> String {
    let mut rows = Vec::new();
    for name in &samples.names {
        for runtime in &samples.runtimes {
            let values = samples.get(name, runtime);
            let Some(median) = quantile(values, 0.5) else { continue };
            let ratio = |to: &str| samples.median(name, to).map(|to| median / to);
            rows.push(Row {
                name,
                runtime,
                unit: unit(name),
                median,
                spread: spread(values),
                ratio_to_native: ratio("native"),
                ratio_to_gvisor: ratio("gvisor"),
                values,
            });
        }
    }
    serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Samples, quantile, spread, table};

    #[test]
    fn median_of_even_count_lies_between() {
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn spread_is_relative() {
        assert!((spread(&[90.0, 100.0, 110.0]) - 0.05).abs() < 1e-9);
    }

    #[test]
    fn table_marks_what_is_missing() {
        let mut samples = Samples::new(vec!["native".into(), "ours-systrap".into()]);
        samples.add("getpid", "native", 100.0);
        assert!(table(&samples).contains("| getpid | 100.0 ns ±0% | — | — | — |"));
    }
}
