//! This program as a load generator, run inside the rig: what wrk and iperf3 cannot do.

mod hold;
mod http;
mod open_loop;
mod spread;

use std::net::SocketAddr;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::rig::{Place, Stage};
use crate::stats::percentile;

/// The word that makes this program one.
pub(crate) const WORD: &str = "load";

/// This program in a place, with its task; arguments are to follow.
///
/// # Errors
/// When it does not know where it is itself.
pub(crate) fn command(stage: &Stage, place: &Place, task: &str) -> Result<Command, Fault> {
    let own = std::env::current_exe().map_err(Fault::io("finding this program"))?;
    let mut command = stage.within(place, &own.display().to_string());
    command.args([WORD, task]);
    Ok(command)
}

/// What a closed or open loop tells, in one line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Answered requests per second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50: f64,
    /// 99th percentile in microseconds.
    pub(crate) p99: f64,
    /// 99.9th percentile in microseconds.
    pub(crate) p999: f64,
}

impl Told {
    /// From latencies in nanoseconds over so many seconds.
    fn of(mut latencies: Vec<u64>, seconds: f64) -> Self {
        latencies.sort_unstable();
        let at = |share| number(percentile(&latencies, share)) / 1e3;
        Self {
            rate: number(latencies.len() as u64) / seconds,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }

    /// Reads the line.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|_no_json| Fault::said("generating load", text.trim()))
    }
}

/// Does the task that the arguments name.
///
/// # Errors
/// What did not work.
pub(crate) fn main(arguments: &[String]) -> Result<(), Fault> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["probe", to @ ..] => http::probe(&addresses(to)?),
        ["open-loop", to, rate, seconds, connections] => {
            let told = open_loop::run(
                number_of(to)?,
                number_of(rate)?,
                number_of(seconds)?,
                number_of(connections)?,
            )?;
            tell(&told)
        }
        ["spread", seconds, to @ ..] => {
            let told = spread::run(&addresses(to)?, number_of(seconds)?)?;
            tell(&told)
        }
        ["echo", port] => hold::echo(number_of(port)?),
        ["hold", to, count] => hold::hold(number_of(to)?, number_of(count)?),
        _ => Err(Fault::said("generating load", format!("{words:?}"))),
    }
}

fn tell(told: &Told) -> Result<(), Fault> {
    let line = serde_json::to_string(told);
    println!(
        "{}",
        line.map_err(|e| Fault::said("telling", e.to_string()))?
    );
    Ok(())
}

fn addresses(words: &[&str]) -> Result<Vec<SocketAddr>, Fault> {
    words.iter().copied().map(number_of).collect()
}

fn number_of<T: std::str::FromStr>(word: &str) -> Result<T, Fault> {
    let parsed = word.parse();
    parsed.map_err(|_unfit| Fault::said("generating load", format!("unfit argument {word}")))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of a few seconds are far below 2^52"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// A runtime of one thread: the cores are for the proxies.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    runtime.map_err(Fault::io("starting a runtime"))
}
