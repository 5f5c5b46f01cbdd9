//! What is stored of a run, and what a later one is judged by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Medians;

/// The group of the yardstick's own runs.
pub(crate) const YARDSTICK: &str = "yardstick";

/// The stored ratios: `benches/baseline.json`.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// The yardstick's median where they were stored, to tell another kind of processor by.
    yardstick_nanoseconds: f64,
    benches: BTreeMap<String, Stored>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Median of the bench by that of the yardstick.
    ratio: f64,
    /// How much slower it may become, as a share of the ratio.
    tolerance: f64,
}

impl Stored {
    /// The change to `now`: 0.1 is a tenth slower.
    fn change(self, now: f64) -> f64 {
        now / self.ratio - 1.0
    }
}

/// What a run measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) ratios: BTreeMap<String, f64>,
    /// Tolerance of a bench that is not stored yet.
    tolerances: BTreeMap<String, f64>,
    /// The yardstick's medians, one an area.
    yardsticks: Vec<f64>,
}

impl Measured {
    /// Adds the benches of an area, measured between two runs of the yardstick.
    pub(crate) fn take(&mut self, mut medians: Medians, tolerance: f64) {
        let ends = ["before", "after"].map(|when| medians.remove(&format!("{YARDSTICK}/{when}")));
        // The faster run is the less disturbed one. A disturbed yardstick would flatter the area,
        // and of a bench measured again the best ratio counts.
        let Some(yardstick) = ends.into_iter().flatten().reduce(f64::min) else {
            return;
        };
        self.yardsticks.push(yardstick);
        for (name, median) in medians {
            self.tolerances.insert(name.clone(), tolerance);
            self.ratios.insert(name, median / yardstick);
        }
    }

    /// Of each bench measured twice the better ratio.
    pub(crate) fn keep_best(&mut self, again: Self) {
        for (name, ratio) in again.ratios {
            let best = self.ratios.entry(name).or_insert(ratio);
            *best = best.min(ratio);
        }
    }

    /// The middle of several runs.
    pub(crate) fn median(rounds: Vec<Self>) -> Self {
        let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut median = Self::default();
        for round in rounds {
            for (name, ratio) in round.ratios {
                all.entry(name).or_default().push(ratio);
            }
            median.tolerances.extend(round.tolerances);
            median.yardsticks.extend(round.yardsticks);
        }
        let middles = all.into_iter().map(|(name, ratios)| (name, middle(ratios)));
        median.ratios = middles.collect();
        median
    }
}

/// The middle one; 0 of none.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Baseline {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json")
    }

    /// What is stored; nothing when there is no file.
    pub(crate) fn load() -> Result<Self, String> {
        let path = Self::path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let stored: Self = read(&path)?;
        match stored.benches.iter().find(|(_, s)| s.ratio <= 0.0) {
            Some((name, _)) => Err(format!("{}: `{name}`: no ratio", path.display())),
            None => Ok(stored),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.benches.is_empty()
    }

    /// Writes it in order of names, so that a change of one reads as such.
    pub(crate) fn save(&self) -> Result<(), String> {
        let path = Self::path();
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        fs::write(&path, text + "\n")
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        println!("\nstored in benches/baseline.json");
        Ok(())
    }

    /// With what was measured. Tolerances stay as they are in the file, where a person may set
    /// them; a bench that is no more goes, unless only a part was measured.
    pub(crate) fn updated(mut self, measured: Measured, partial: bool) -> Self {
        if !partial {
            self.benches
                .retain(|name, _| measured.ratios.contains_key(name));
        }
        for (name, ratio) in measured.ratios {
            let usual = measured.tolerances.get(&name).copied().unwrap_or(0.1);
            let tolerance = self.benches.get(&name).map_or(usual, |s| s.tolerance);
            let ratio = rounded(ratio);
            self.benches.insert(name, Stored { ratio, tolerance });
        }
        self.yardstick_nanoseconds = middle(measured.yardsticks).round();
        self
    }

    /// Names of what is slower than its tolerance allows.
    pub(crate) fn slower(&self, measured: &Measured) -> Vec<String> {
        let known = measured.ratios.iter();
        known
            .filter(|(name, now)| {
                let stored = self.benches.get(*name);
                stored.is_some_and(|s| s.change(**now) > s.tolerance)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Prints a line a bench.
    pub(crate) fn table(&self, measured: &Measured) {
        println!(
            "\n{:<34}{:>11}{:>11}{:>10}",
            "bench, ratio to the yardstick", "now", "stored", "change"
        );
        for (name, now) in &measured.ratios {
            let Some(stored) = self.benches.get(name) else {
                println!("{name:<34}{:>11}{:>11}{:>10}", digits(*now), "-", "-");
                continue;
            };
            let change = stored.change(*now);
            let allowed = stored.tolerance * 100.0;
            let verdict = if change > stored.tolerance {
                format!("  SLOWER by more than {allowed:.0} %")
            } else if change < -stored.tolerance {
                format!("  faster by more than {allowed:.0} %")
            } else {
                String::new()
            };
            println!(
                "{name:<34}{:>11}{:>11}{:>+8.1} %{verdict}",
                digits(*now),
                digits(stored.ratio),
                change * 100.0
            );
        }
    }

    /// Says what the table cannot, with what to do about it.
    pub(crate) fn remarks(&self, measured: &Measured, partial: bool) {
        let names = measured.ratios.iter();
        let faster = names.clone().filter(|(name, now)| {
            let stored = self.benches.get(*name);
            stored.is_some_and(|s| s.change(**now) < -s.tolerance)
        });
        let new = names.filter(|(name, _)| !self.benches.contains_key(*name));
        let gone = self.benches.keys();
        let gone = gone.filter(|name| !partial && !measured.ratios.contains_key(*name));
        tell(
            faster.map(|(name, _)| name),
            "faster than stored: store it with BASELINE=store",
        );
        tell(
            new.map(|(name, _)| name),
            "not stored, so not judged: store it with BASELINE=store",
        );
        tell(gone, "stored, and not measured: renamed or gone?");
        let (now, then) = (
            middle(measured.yardsticks.clone()),
            self.yardstick_nanoseconds,
        );
        println!("yardstick, SHA-256 of 16 KiB: {now:.0} ns now, {then:.0} ns stored");
        // Some processors have instructions for SHA-256, which help nothing else.
        if then > 0.0 && !(0.5..2.0).contains(&(now / then)) {
            println!("another kind of processor: compare with what was stored on one like this");
        }
    }
}

fn tell<'a>(names: impl Iterator<Item = &'a String>, what: &str) {
    let names: Vec<_> = names.map(String::as_str).collect();
    if !names.is_empty() {
        println!("{what}\n    {}", names.join(", "));
    }
}

/// To four significant digits, as much as a measurement is worth.
fn digits(ratio: f64) -> String {
    let places = (3.0 - ratio.log10().floor()).clamp(0.0, 12.0);
    format!("{ratio:.*}", places as usize)
}

fn rounded(ratio: f64) -> f64 {
    digits(ratio).parse().unwrap_or(ratio)
}

/// Of criterion's `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// Of criterion's `estimates.json`.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Every median that criterion left under `output`, in nanoseconds.
pub(crate) fn medians(output: &Path) -> Result<Medians, String> {
    let mut medians = Medians::new();
    let mut left = vec![output.to_owned()];
    while let Some(folder) = left.pop() {
        // Nothing was measured, so nothing was written.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.ends_with("new") {
                let benchmark: Benchmark = read(&path.join("benchmark.json"))?;
                let estimates: Estimates = read(&path.join("estimates.json"))?;
                medians.insert(benchmark.full_id, estimates.median.point_estimate);
            } else if path.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(medians)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = fs::read_to_string(path).map_err(|e| told(&e))?;
    serde_json::from_str(&text).map_err(|e| told(&e))
}
