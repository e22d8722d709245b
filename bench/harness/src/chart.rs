//! A chart: for each measurement how many times native's time gVisor and this runtime take, on a logarithmic scale.

use std::fmt::Write;

use crate::report::Samples;

/// The runtimes that are drawn, each with its colour.
const DRAWN: [(&str, &str); 3] =
    [("gvisor", "#d98c5f"), ("ours-systrap", "#3b7dd8"), ("ours-ptrace", "#b9c4d2")];

/// Pixels: of the names at the left, of the bars, of a bar's height.
const LEFT: f64 = 190.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 7.0;

/// Decades of the scale: from a hundredth of native's time to a thousand times it.
const LOWEST: f64 = -2.0;
const HIGHEST: f64 = 3.0;

/// Returns where a ratio lies.
fn x(ratio: f64) -> f64 {
    let decades = ratio.log10().clamp(LOWEST, HIGHEST);
    LEFT + (decades - LOWEST) / (HIGHEST - LOWEST) * WIDTH
}

/// Draws all measurements that were made natively.
pub(crate) fn svg(samples: &Samples) -> String {
    let mut bars = String::new();
    let mut y = 40.0;
    for name in samples.names() {
        let Some(native) = samples.median(name, "native").filter(|native| *native > 0.0) else {
            continue;
        };
        let top = y;
        for (runtime, colour) in DRAWN {
            let Some(median) = samples.median(name, runtime) else { continue };
            let ratio = median / native;
            let (from, to) = (x(1.0).min(x(ratio)), x(1.0).max(x(ratio)));
            let _ = writeln!(
                bars,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\">\
                 <title>{name}, {runtime}: {ratio:.2} times native</title></rect>",
                (to - from).max(1.0)
            );
            y += BAR + 1.0;
        }
        if y > top {
            let middle = (top + y) / 2.0 + 3.0;
            let _ = writeln!(
                bars,
                "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 6.0
            );
            y += 5.0;
        }
    }
    let mut scale = String::new();
    for (ratio, label) in [
        (0.01, "1/100"),
        (0.1, "1/10"),
        (1.0, "native"),
        (10.0, "10"),
        (100.0, "100"),
        (1000.0, "1000"),
    ] {
        let at = x(ratio);
        let _ = writeln!(
            scale,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"34\" y2=\"{y:.1}\" stroke=\"#ccd3db\"/>\
             <text x=\"{at:.1}\" y=\"30\" text-anchor=\"middle\">{label}</text>"
        );
    }
    let mut legend = String::new();
    let mut at = LEFT;
    for (runtime, colour) in DRAWN {
        let _ = writeln!(
            legend,
            "<rect x=\"{at}\" y=\"6\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"15\">{runtime}</text>",
            at + 14.0
        );
        at += 120.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" \
         font-family=\"sans-serif\" font-size=\"10\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{legend}{scale}{bars}</svg>\n",
        LEFT + WIDTH + 20.0,
        y + 8.0
    )
}

#[cfg(test)]
mod tests {
    use super::svg;
    use crate::report::Samples;

    #[test]
    fn what_is_slower_than_native_goes_to_the_right() {
        let mut samples = Samples::new(vec!["native".into(), "ours-systrap".into()]);
        samples.add("stat", "native", 100.0);
        samples.add("stat", "ours-systrap", 1000.0);
        samples.add("net", "ours-systrap", 1000.0);
        let text = svg(&samples);
        assert!(text.contains("stat, ours-systrap: 10.00 times native") && !text.contains("net,"));
        assert!(text.contains("<rect x=\"414.0\" y=\"40.0\" width=\"112.0\""), "{text}");
    }
}
