//! What was measured: a row for each figure, in it every contender's readings by round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::stats::Spread;
use crate::work::{Better, Figure, Work};

/// Whom every ratio may be to, where they took part.
pub(crate) const REFERENCES: [&str; 4] = ["none", "ztunnel", "base", "envoy"];

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// The work that gave it.
    pub(crate) work: String,
    /// What of it; empty where the work's name says it.
    pub(crate) figure: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which way it is good.
    pub(crate) better: Better,
    readings: BTreeMap<&'static str, BTreeMap<usize, f64>>,
}

impl Row {
    fn new(work: &str, figure: String, of: &Figure) -> Self {
        Self {
            work: work.to_owned(),
            figure,
            unit: of.unit,
            better: of.better,
            readings: BTreeMap::new(),
        }
    }

    /// The work and the figure in one.
    pub(crate) fn label(&self) -> String {
        match self.figure.is_empty() {
            true => self.work.clone(),
            false => format!("{}: {}", self.work, self.figure),
        }
    }

    /// The same with the unit, where there is one.
    pub(crate) fn label_with_unit(&self) -> String {
        match self.unit.is_empty() {
            true => self.label(),
            false => format!("{}, {}", self.label(), self.unit),
        }
    }

    /// Its readings.
    pub(crate) fn spread(&self, contender: &str) -> Option<Spread> {
        Spread::of(self.readings.get(contender)?.values().copied())
    }

    /// Its readings by those of `reference` in the same round.
    pub(crate) fn ratio(&self, contender: &str, reference: &str) -> Option<Spread> {
        let (own, other) = (self.readings.get(contender)?, self.readings.get(reference)?);
        let both = own
            .iter()
            .filter_map(|(round, value)| Some((value, other.get(round)?)));
        Spread::of(both.map(|(value, other)| value / other))
    }

    fn to_json(&self) -> Value {
        let told = |name: &&'static str| {
            let ratios = REFERENCES
                .iter()
                .filter(|r| *r != name)
                .filter_map(|to| Some((format!("x-{to}"), json!(self.ratio(name, to)?))));
            let mut told = json!({ "rounds": self.readings.get(name), "all": self.spread(name) });
            if let Some(map) = told.as_object_mut() {
                map.extend(ratios);
            }
            ((*name).to_owned(), told)
        };
        json!({
            "work": self.work,
            "figure": self.figure,
            "unit": self.unit,
            "better": self.better,
            "contenders": self.readings.keys().map(told).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The figures, in order.
    pub(crate) rows: Vec<Row>,
    /// What did not work, each with its contender's name.
    pub(crate) failures: Vec<String>,
}

impl Record {
    /// Keeps the readings of a work.
    pub(crate) fn keep(
        &mut self,
        work: &Work,
        contender: &'static str,
        round: usize,
        readings: &[Option<f64>],
    ) {
        for (figure, reading) in work.figures.iter().zip(readings) {
            let row = self.row(work, figure.name.to_owned(), figure);
            let Some(reading) = *reading else { continue };
            let of = row.readings.entry(contender).or_default();
            of.insert(round, reading);
        }
    }

    /// Works out what everybody added to no mesh in a round, once all have done a work.
    pub(crate) fn compare(&mut self, work: &Work, round: usize) {
        for figure in work.figures.iter().filter(|f| f.added) {
            let row = self.row(work, figure.name.to_owned(), figure);
            let all = row.readings.iter();
            let all = all.filter_map(|(name, rounds)| Some((*name, *rounds.get(&round)?)));
            let all: BTreeMap<_, _> = all.collect();
            let Some(none) = all.get("none") else {
                continue;
            };
            // Nothing is added to itself, and less than nothing makes no ratio.
            let added = all.iter().map(|(name, reading)| (*name, reading - none));
            let added: Vec<_> = added.filter(|(_, added)| *added > 0.0).collect();
            let row = self.row(work, format!("{} added to none", figure.name), figure);
            for (name, added) in added {
                row.readings.entry(name).or_default().insert(round, added);
            }
        }
    }

    /// Notes what did not work, once.
    pub(crate) fn fail(&mut self, what: String) {
        if !self.failures.contains(&what) {
            self.failures.push(what);
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        json!(self.rows.iter().map(Row::to_json).collect::<Vec<_>>())
    }

    fn row(&mut self, work: &Work, figure: String, of: &Figure) -> &mut Row {
        let at = self
            .rows
            .iter()
            .position(|row| row.work == work.name && row.figure == figure);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row::new(&work.name, figure, of));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}
