//! The hot functions, each as a ratio to a yardstick: `make bench-hot`, `bench-check`, `bench-store`.
//!
//! Criterion measures; [`baseline`] keeps the ratios and judges a change. An area is a file here,
//! and is measured between two runs of the yardstick, so that both see the same machine.

mod authorization;
mod baseline;
mod bytes;
mod clock;
mod decide;
mod filters;
mod mesh;
mod messages;
mod observe;
mod policy;
mod route;
mod settings;

use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use sha2::{Digest, Sha256};

use baseline::{Baseline, Measured};
use clock::Clock;

/// Times a bench that is too slow is measured again before it counts as such.
const AGAIN: usize = 2;
/// Rounds of which the median is stored: what is stored is believed for long.
const STORED_ROUNDS: usize = 3;

/// Benches of one kind.
struct Area {
    run: fn(&mut Criterion<Clock>),
    clock: Clock,
    /// How much slower one of them may be, as a share of what is stored.
    tolerance: f64,
}

/// Bytes over loopback share the kernel and two more threads with all that runs on the machine,
/// hence the wider tolerance.
const AREAS: [Area; 9] = [
    Area {
        run: filters::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: authorization::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: decide::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: policy::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: route::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: messages::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: observe::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: settings::benches,
        clock: Clock::Processor,
        tolerance: 0.1,
    },
    Area {
        run: bytes::benches,
        clock: Clock::Wall,
        tolerance: 0.5,
    },
];

#[expect(
    clippy::disallowed_methods,
    reason = "the flags of a bench are criterion's, which refuses others"
)]
fn main() -> ExitCode {
    let outcome = match env::var("BASELINE").as_deref() {
        Err(_) => show(),
        Ok("check") => check(),
        Ok("store") => store(),
        Ok(other) => Err(format!("BASELINE={other}: expected `check` or `store`")),
    };
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("hot: {reason}");
            ExitCode::from(2)
        }
    }
}

fn show() -> Result<ExitCode, String> {
    let measured = round(None)?;
    // Asked to list or to try the benches, criterion measures nothing.
    if !measured.ratios.is_empty() {
        let stored = Baseline::load()?;
        stored.table(&measured);
        stored.remarks(&measured, partial());
    }
    Ok(ExitCode::SUCCESS)
}

fn check() -> Result<ExitCode, String> {
    let stored = Baseline::load()?;
    if stored.is_empty() {
        return Err("nothing is stored to judge by: store it with BASELINE=store".to_owned());
    }
    let mut measured = round(None)?;
    if measured.ratios.is_empty() {
        return Err("nothing was measured: does the filter name a bench?".to_owned());
    }
    for _ in 0..AGAIN {
        let slower = stored.slower(&measured);
        if slower.is_empty() {
            break;
        }
        println!("again, as they look slower: {}", slower.join(", "));
        let again = round(Some(&format!("^({})$", slower.join("|"))))?;
        measured.keep_best(again);
    }
    stored.table(&measured);
    stored.remarks(&measured, partial());
    Ok(if stored.slower(&measured).is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn store() -> Result<ExitCode, String> {
    let mut rounds = Vec::new();
    for _ in 0..STORED_ROUNDS {
        rounds.push(round(None)?);
    }
    let measured = Measured::median(rounds);
    if measured.ratios.is_empty() {
        return Err("nothing was measured: does the filter name a bench?".to_owned());
    }
    let before = Baseline::load()?;
    before.table(&measured);
    before.updated(measured, partial()).save()?;
    Ok(ExitCode::SUCCESS)
}

/// Whether only some benches were asked for: `cargo bench` itself passes `--bench` and no more.
fn partial() -> bool {
    env::args().skip(1).any(|arg| arg != "--bench")
}

/// Measures every area once, or those benches of it that `only` matches.
fn round(only: Option<&str>) -> Result<Measured, String> {
    let mut measured = Measured::default();
    for area in &AREAS {
        let output = output()?;
        let mut criterion = criterion(area.clock, &output);
        if let Some(pattern) = only {
            criterion = criterion.with_filter(pattern);
        }
        yardstick("before", area.clock, &output);
        (area.run)(&mut criterion);
        yardstick("after", area.clock, &output);
        let medians = baseline::medians(&output)?;
        measured.take(medians, area.tolerance);
    }
    Ok(measured)
}

/// An empty directory for criterion's files: it compares with nothing of its own.
fn output() -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hot");
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot clear {}: {e}", path.display()))
        }
        _ => Ok(path),
    }
}

/// Short runs: what a disturbance spoils is measured again, and the whole stays under two minutes.
fn criterion(clock: Clock, output: &Path) -> Criterion<Clock> {
    Criterion::default()
        .with_measurement(clock)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .nresamples(5_000)
        .without_plots()
        .output_directory(output)
        .configure_from_args()
}

/// A fixed piece of work that none of our changes touches. Whatever filter was given, it runs.
fn yardstick(when: &str, clock: Clock, output: &Path) {
    let text = vec![0x5a; 16 << 10];
    let mut criterion = criterion(clock, output).with_filter("");
    let mut group = criterion.benchmark_group(baseline::YARDSTICK);
    group.bench_function(when, |b| b.iter(|| Sha256::digest(black_box(&text))));
    group.finish();
}

/// Medians in nanoseconds by a bench's name.
type Medians = BTreeMap<String, f64>;
