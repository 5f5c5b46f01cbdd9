//! `lateen demo`: the quickstart mesh on this machine, with traffic.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use super::output::{NO, print};
use super::rig::own_binary;
use crate::demo::fleet::{EDGES, Program};
use crate::demo::metrics::flows;
use crate::demo::{DemoError, Fleet, Summary};

/// Longest run of `--once` after everything is up.
const ONCE: Duration = Duration::from_secs(30);
/// Between summaries.
const EVERY: Duration = Duration::from_secs(1);

/// Show a mesh of three hosts on this machine, with traffic.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen demo          Ctrl-C to leave\n  lateen demo --once   exits 0 when all is as it should be"
)]
pub struct DemoArgs {
    /// Run it through, print what was seen, and exit
    #[arg(long)]
    once: bool,
}

/// Runs the demo.
///
/// # Errors
/// [`Failure`], naming the step that failed.
pub fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let binary = own_binary().map_err(|e| Failure::no("demo", &e))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    let begun = Instant::now();
    let fleet = Fleet::up(&binary, say).map_err(|e| Failure::no("demo", &e))?;
    say(&format!("up in {:.1} s", begun.elapsed().as_secs_f64()));
    let show = Show::begin(&fleet).map_err(|e| Failure::no("demo", &e))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = show.run(args.once) => outcome,
            _interrupted = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        }
    });
    runtime.shutdown_background();
    outcome
}

fn say(step: &str) {
    outln!("  {step}");
}

struct Show<'a> {
    fleet: &'a Fleet,
    tap: Program,
    http: Program,
    echo: Program,
    summary: Summary,
}

impl<'a> Show<'a> {
    fn begin(fleet: &'a Fleet) -> Result<Self, DemoError> {
        let own = fleet.binary();
        let tap = fleet.tap()?;
        let ask = [
            "sample",
            "http-client",
            "10.96.0.10:80",
            "--path",
            "/basket",
            "--every",
            "200",
        ];
        let talk = ["sample", "tcp-many", "[fd96::11]:7000", "--every", "1"];
        Ok(Self {
            fleet,
            tap,
            http: fleet.program("edge-1", Some("web"), &own, &ask)?,
            echo: fleet.program("edge-1", Some("web"), &own, &talk)?,
            summary: Summary::default(),
        })
    }

    async fn run(mut self, once: bool) -> Result<ExitCode, Failure> {
        let deadline = Instant::now() + ONCE;
        loop {
            tokio::time::sleep(EVERY).await;
            self.look();
            let text = self.summary.render();
            if !once {
                // Home and clear, so that the table stays where it is.
                let logs = self.fleet.state().display();
                let read = print(format_args!(
                    "\x1b[H\x1b[2J{text}\nCtrl-C to leave. Logs: {logs}\n"
                ));
                match read {
                    true => continue,
                    false => return Ok(ExitCode::SUCCESS),
                }
            }
            if !self.summary.enough() && Instant::now() < deadline {
                continue;
            }
            outln!("\n{text}");
            return self.verdict();
        }
    }

    fn look(&mut self) {
        for line in self.http.lines() {
            self.summary.http(&line);
        }
        for line in self.echo.lines() {
            self.summary.echo(&line);
        }
        if let Some(line) = self.tap.lines().last()
            && let Ok(seen) = serde_json::from_str(line)
        {
            self.summary.wire = seen;
        }
        let mut all = std::collections::BTreeMap::new();
        for edge in EDGES {
            if let Ok(text) = self.fleet.metrics(edge) {
                all.extend(flows(&text));
            }
        }
        self.summary.flows = all;
    }

    fn verdict(&self) -> Result<ExitCode, Failure> {
        let mut faults = self.summary.faults();
        if !self.summary.enough() {
            faults.push("too little was seen in the time".to_owned());
        }
        if faults.is_empty() {
            outln!("All is as it should be.");
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::plain(
            NO,
            format!("the demo failed:\n  {}", faults.join("\n  ")),
        ))
    }
}
