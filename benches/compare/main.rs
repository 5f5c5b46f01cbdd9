//! Meshes compared: the same work over each of them, in turn and in one run (`make bench`).
//!
//! Only ratios within a run mean anything: everybody shares the machine, and machines are noisy.
//! [`settings`] has what can be chosen by environment variables, [`work`] what is done,
//! [`contender`] by whom. A contender that does not come up is named and left out.

mod contender;
mod exec;
mod fault;
mod load;
mod machine;
mod plot;
mod process;
mod record;
mod report;
mod rig;
mod ruled;
mod settings;
mod stats;
mod work;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use lateen::causes::chain;
use rustix::process::{Resource, getrlimit, setrlimit};

use contender::waypoint::Ways;
use contender::{Candidate, Contender, candidates};
use fault::Fault;
use machine::Machine;
use record::Record;
use rig::{Ground, Stage};
use settings::Settings;
use work::{Pass, Scene, Site, passes};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    raise_file_limit();
    let done = match arguments.split_first() {
        Some((word, task)) if word == load::WORD => load::main(task).map(|()| true),
        // Whatever else there is, cargo says to every benchmark.
        _ => compare(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("bench: {}", chain(&fault));
            ExitCode::FAILURE
        }
    }
}

/// As many files as the system lets us open: all that we start inherit it, and ten thousand
/// connections are more than the usual limit.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it, those that need more say so.
    let _as_it_was = setrlimit(Resource::Nofile, limit);
}

/// Whether everything worked.
fn compare() -> Result<bool, Fault> {
    let settings = Settings::read()?;
    let candidates = candidates(&settings);
    let machine = Machine::look(&candidates);
    eprint!("{}", machine.text());
    let mut record = Record::default();
    let passes = passes(&settings, &machine.congestions);
    for (index, pass) in passes.iter().enumerate() {
        eprintln!("building the hosts, with {}", pass.congestion);
        let (stage, contenders) = match pass.scene {
            Scene::Meshes => {
                let grounds = grounds(&candidates);
                let stage = Stage::up(&grounds, &[], &pass.congestion, index)?;
                let contenders = contenders(&stage, &candidates, &grounds, &mut record);
                (stage, contenders)
            }
            Scene::Waypoints => {
                let ways = Ways::of(&candidates);
                let stage = ways.stage(&pass.congestion, index)?;
                let contenders = ways.up(&stage, &mut record);
                (stage, contenders)
            }
        };
        work_through(pass, &settings, &stage, &contenders, &mut record);
    }
    let names: Vec<&'static str> = candidates.iter().map(|c| c.name).collect();
    print!("{}\n{}", machine.text(), report::table(&record, &names));
    save(&record, &machine, &settings, &names)?;
    for failure in &record.failures {
        eprintln!("bench: {failure}");
    }
    Ok(record.failures.is_empty())
}

fn grounds(candidates: &[Candidate]) -> Vec<Ground> {
    let numbered = (0..).zip(candidates);
    numbered
        .map(|(index, candidate)| Ground::new(candidate.name, index))
        .collect()
}

/// Those that come up.
fn contenders(
    stage: &Stage,
    candidates: &[Candidate],
    grounds: &[Ground],
    record: &mut Record,
) -> Vec<Contender> {
    let mut contenders = Vec::new();
    for (candidate, ground) in candidates.iter().zip(grounds) {
        eprintln!("  starting {}", candidate.name);
        match Contender::up(stage, candidate, ground) {
            Ok(contender) => contenders.push(contender),
            Err(fault) => {
                let failure = format!("{} did not come up: {}", candidate.name, chain(&fault));
                eprintln!("  {failure}");
                record.fail(failure);
            }
        }
    }
    contenders
}

/// All works of a pass in rounds; within a round everybody does a work before the next begins, and
/// it is somebody else's turn to be first in each.
fn work_through(
    pass: &Pass,
    settings: &Settings,
    stage: &Stage,
    contenders: &[Contender],
    record: &mut Record,
) {
    for round in 0..settings.rounds {
        for work in pass.works.iter().filter(|w| round == 0 || !w.once) {
            eprintln!(
                "  round {} of {}: {}",
                round + 1,
                settings.rounds,
                work.name
            );
            let turns = contenders.iter().cycle().skip(round);
            for contender in turns.take(contenders.len()) {
                let site = Site {
                    stage,
                    contender,
                    seconds: settings.seconds,
                };
                match work.run(&site) {
                    Ok(readings) => record.keep(work, contender.name, round, &readings),
                    Err(fault) => {
                        let name = contender.name;
                        let failure = format!("{name}, {}: {}", work.name, chain(&fault));
                        eprintln!("    {failure}");
                        record.fail(failure);
                    }
                }
            }
            record.compare(work, round);
        }
    }
}

/// Writes the files beside whatever else cargo makes.
fn save(
    record: &Record,
    machine: &Machine,
    settings: &Settings,
    names: &[&'static str],
) -> Result<(), Fault> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = scratch.parent().unwrap_or(scratch).join("bench");
    fs::create_dir_all(&directory).map_err(Fault::io("making target/bench"))?;
    let json = report::json(record, machine, settings);
    for (name, text) in [
        ("compare.json", format!("{json:#}\n")),
        ("compare.svg", plot::svg(record, names)),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(Fault::io(format!("writing {}", path.display())))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
