//! The table for people and the file for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::record::{REFERENCES, Record, Row};
use crate::settings::Settings;
use crate::stats::Spread;
use crate::work::Better;

/// Whose ratios are told with their spread.
const OURS: &str = "lateen";

/// A row per figure: the median of every contender and its ratio to no mesh, then our own ratios
/// with their spread.
pub(crate) fn table(record: &Record, contenders: &[&'static str]) -> String {
    let references: Vec<_> = REFERENCES
        .iter()
        .filter(|r| contenders.contains(r))
        .collect();
    let mut head = vec!["(+ more is better, - less)".to_owned()];
    head.extend(contenders.iter().map(|c| (*c).to_owned()));
    head.extend(references.iter().map(|r| format!("{OURS} x {r}")));
    let mut lines = vec![head];
    for row in &record.rows {
        let sign = match row.better {
            Better::Higher => '+',
            Better::Lower => '-',
        };
        let mut line = vec![format!("{sign} {}", row.label_with_unit())];
        line.extend(contenders.iter().map(|c| cell(row, c)));
        line.extend(references.iter().map(|r| spread(row.ratio(OURS, r))));
        lines.push(line);
    }
    let mut text = align(&lines);
    text.push_str(
        "\nmedians; (x) is the median ratio to none of the same round; ratios of lateen are \
         median (low to high) of the rounds\n",
    );
    text
}

fn cell(row: &Row, contender: &str) -> String {
    let Some(value) = row.spread(contender) else {
        return "-".to_owned();
    };
    let value = short(value.median);
    match row.ratio(contender, "none").filter(|_| contender != "none") {
        Some(ratio) => format!("{value} (x{})", short(ratio.median)),
        None => value,
    }
}

fn spread(of: Option<Spread>) -> String {
    of.map_or_else(
        || "-".to_owned(),
        |s| {
            let [median, low, high] = [s.median, s.low, s.high].map(short);
            format!("{median} ({low} to {high})")
        },
    )
}

/// Two or three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0..0.1 => format!("{value:.3}"),
        0.1..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _infallible = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// Everything, with every round.
pub(crate) fn json(record: &Record, machine: &Machine, settings: &Settings) -> Value {
    json!({
        "machine": machine.to_json(settings),
        "failures": record.failures,
        "rows": record.to_json(),
    })
}
