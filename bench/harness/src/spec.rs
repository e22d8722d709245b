//! The ratios that `SPEC.md` promises, against the medians of a run.
//!
//! A line of its tables is `| measurement | at most | of |`: the median of `ours-systrap` is at most so many times that of
//! another runtime. A `*` at the end of the name stands for any ending. Measurements that were not made are passed over.

use crate::report::Samples;

/// The runtime whose ratios are promised.
const OURS: &str = "ours-systrap";

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// How many ratios hold.
    pub(crate) held: usize,
    /// A line for each that does not.
    pub(crate) violations: Vec<String>,
}

/// Tells whether a pattern, of which the last character may be `*`, stands for a name.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

/// Checks every ratio of a text, each of which may be exceeded by a factor.
pub(crate) fn check(text: &str, margin: f64, samples: &Samples) -> Checked {
    let mut checked = Checked::default();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [pattern, at_most, of] = cells[..] else { continue };
        let Ok(at_most) = at_most.parse::<f64>() else { continue };
        for name in samples.names().iter().filter(|name| matches(pattern, name)) {
            let (Some(ours), Some(other)) = (samples.median(name, OURS), samples.median(name, of))
            else {
                continue;
            };
            if ours <= other * at_most * margin {
                checked.held += 1;
            } else {
                checked.violations.push(format!(
                    "{name}: {:.2} times {of}, at most {at_most} are promised",
                    ours / other
                ));
            }
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::{check, matches};
    use crate::report::Samples;

    #[test]
    fn a_star_stands_for_any_ending() {
        assert!(matches("net_*", "net_in") && matches("stat", "stat"));
        assert!(!matches("stat", "stat_deep") && !matches("net_*", "stat"));
    }

    #[test]
    fn what_is_slower_than_promised_is_named() {
        let mut samples = Samples::new(vec!["native".into(), "ours-systrap".into()]);
        for (name, native, ours) in [("getpid", 100.0, 10.0), ("stat", 100.0, 500.0)] {
            samples.add(name, "native", native);
            samples.add(name, "ours-systrap", ours);
        }
        let text = "| measurement | at most | of |\n|---|---|---|\n| getpid | 0.5 | native |\n\
                    | stat | 2 | native |\n| stat | 2 | gvisor |\n| absent | 1 | native |\n";
        let checked = check(text, 1.0, &samples);
        assert_eq!(checked.held, 1);
        assert_eq!(checked.violations, ["stat: 5.00 times native, at most 2 are promised"]);
        assert_eq!(check(text, 3.0, &samples).held, 2);
    }
}
