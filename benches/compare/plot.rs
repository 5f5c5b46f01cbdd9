//! The ratios as a picture: a group of bars for each figure, longer to the right where a contender
//! is better than the reference and to the left where it is worse.

use std::fmt::Write as _;

use crate::record::{Record, Row};
use crate::report::short;
use crate::stats::Spread;
use crate::work::Better;

/// Widths of the picture's parts, in its own units.
const LABELS: f64 = 380.0;
const CHART: f64 = 620.0;
const NUMBERS: f64 = 70.0;
/// Heights.
const HEAD: f64 = 126.0;
const BAR: f64 = 15.0;
const GAP: f64 = 12.0;
const FOOT: f64 = 28.0;
/// Ratios beyond are cut off: 1/16 and 16.
const MOST: f64 = 4.0;
/// Told apart by most people with and without colour vision, and in print.
const COLOURS: [(&str, &str); 7] = [
    ("none", "#9aa0a6"),
    ("lateen", "#0072b2"),
    ("base", "#56b4e9"),
    ("ztunnel", "#d55e00"),
    ("nebula", "#009e73"),
    ("wireguard", "#cc79a7"),
    ("envoy", "#b8860b"),
];

/// The picture, as SVG.
pub(crate) fn svg(record: &Record, contenders: &[&'static str]) -> String {
    let reference = match contenders.contains(&"ztunnel") {
        true => "ztunnel",
        false => "none",
    };
    let plot = Plot {
        reference,
        contenders: contenders
            .iter()
            .copied()
            .filter(|c| *c != reference)
            .collect(),
    };
    plot.draw(record)
}

struct Plot {
    reference: &'static str,
    contenders: Vec<&'static str>,
}

/// One contender's bar: its powers of two.
struct Bar {
    name: &'static str,
    ratio: f64,
    at: f64,
    low: f64,
    high: f64,
}

impl Plot {
    fn draw(&self, record: &Record) -> String {
        let groups = record.rows.iter().map(|row| (row, self.bars(row)));
        let groups: Vec<_> = groups.filter(|(_, bars)| !bars.is_empty()).collect();
        let most = groups
            .iter()
            .flat_map(|(_, bars)| bars)
            .map(|b| b.low.abs().max(b.high.abs()).max(b.at.abs()))
            .fold(1.0, f64::max);
        let most = most.ceil().min(MOST);
        let mut body = String::new();
        let mut y = HEAD;
        for (index, (row, bars)) in groups.iter().enumerate() {
            y += group(&mut body, row, bars, y, most, index % 2 == 1);
        }
        let width = LABELS + CHART + NUMBERS;
        let height = y + FOOT;
        let axis = self.axis(y, most);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" \
             font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fdfdfc\"/>\n{}{axis}{body}</svg>\n",
            self.head()
        )
    }

    fn bars(&self, row: &Row) -> Vec<Bar> {
        let of = |name: &&'static str| {
            let ratio = row.ratio(name, self.reference)?;
            let Spread { median, low, high } = ratio;
            // Rightwards is better, so what is better when less is turned round.
            let power = |r: f64| match row.better {
                Better::Higher => r.log2(),
                Better::Lower => -r.log2(),
            };
            let bar = Bar {
                name,
                ratio: median,
                at: power(median),
                low: power(low),
                high: power(high),
            };
            (bar.at.is_finite() && bar.low.is_finite() && bar.high.is_finite()).then_some(bar)
        };
        self.contenders.iter().filter_map(of).collect()
    }

    fn head(&self) -> String {
        let reference = match self.reference {
            "none" => "no mesh",
            other => other,
        };
        let mut text = format!(
            "<text x=\"16\" y=\"28\" font-size=\"18\" font-weight=\"bold\" fill=\"#222\">\
             Compared with {reference}</text>\n\
             <text x=\"16\" y=\"48\" fill=\"#555\">to the right is better, to the left is worse; \
             of latency and memory less is better</text>\n\
             <text x=\"16\" y=\"65\" fill=\"#555\">numbers are median ratios to {reference}, \
             whiskers the least and the greatest round; bars end at {:.0}</text>\n",
            MOST.exp2()
        );
        let mut x = 16.0;
        for name in &self.contenders {
            let told = match *name {
                "none" => "no mesh",
                other => other,
            };
            // Writing to a string cannot fail, here and below.
            let _infallible = writeln!(
                text,
                "<rect x=\"{x}\" y=\"79\" width=\"12\" height=\"12\" fill=\"{}\"/>\
                 <text x=\"{}\" y=\"89\" fill=\"#222\">{told}</text>",
                colour(name),
                x + 17.0
            );
            x += 100.0;
        }
        text
    }

    fn axis(&self, bottom: f64, most: f64) -> String {
        let mut text = String::new();
        let mut power = -most;
        while power <= most {
            let x = across(power, most);
            let (colour, width) = match power.abs() < 0.5 {
                true => ("#444", 1.5),
                false => ("#ddd", 1.0),
            };
            let label = match power < 0.0 {
                true => format!("1/{:.0}", (-power).exp2()),
                false => format!("{:.0}", power.exp2()),
            };
            for y in [HEAD - 8.0, bottom + 18.0] {
                let _infallible = writeln!(
                    text,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" \
                     fill=\"#555\">{label}</text>"
                );
            }
            let _infallible = writeln!(
                text,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"{width}\"/>",
                HEAD - 4.0
            );
            power += 1.0;
        }
        text
    }
}

fn colour(name: &str) -> &'static str {
    let found = COLOURS.iter().find(|(n, _)| *n == name);
    found.map_or("#000", |(_, colour)| colour)
}

/// Where a power of two is.
fn across(power: f64, most: f64) -> f64 {
    LABELS + (power.clamp(-most, most) + most) / (2.0 * most) * CHART
}

/// Draws a figure's bars from `top` and returns their height.
fn group(text: &mut String, row: &Row, bars: &[Bar], top: f64, most: f64, shaded: bool) -> f64 {
    let height = f64::from(u16::try_from(bars.len()).unwrap_or(u16::MAX)) * BAR + GAP;
    if shaded {
        let _infallible = writeln!(
            text,
            "<rect x=\"0\" y=\"{top:.1}\" width=\"{}\" height=\"{height:.1}\" fill=\"#000\" \
             fill-opacity=\"0.035\"/>",
            LABELS + CHART + NUMBERS
        );
    }
    let _infallible = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222\">{}</text>",
        LABELS - 50.0,
        top + height / 2.0 + 4.0,
        escaped(&row.label_with_unit())
    );
    let mut y = top + GAP / 2.0;
    for drawn in bars {
        bar(text, drawn, y, most);
        y += BAR;
    }
    height
}

fn bar(text: &mut String, bar: &Bar, y: f64, most: f64) {
    let (zero, at) = (across(0.0, most), across(bar.at, most));
    let (left, width) = (zero.min(at), (zero - at).abs().max(1.0));
    let (low, high) = (across(bar.low, most), across(bar.high, most));
    let middle = y + BAR / 2.0;
    let outer = match bar.at < 0.0 {
        true => (left.min(low).min(high) - 5.0, "end"),
        false => ((left + width).max(low).max(high) + 5.0, "start"),
    };
    let _infallible = writeln!(
        text,
        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v5M{high:.1} {:.1}v5\" \
         stroke=\"#222\" fill=\"none\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\" font-size=\"10\" fill=\"#444\">{}</text>",
        y + 1.5,
        BAR - 3.0,
        colour(bar.name),
        middle - 2.5,
        middle - 2.5,
        outer.0,
        middle + 3.5,
        outer.1,
        short(bar.ratio)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
