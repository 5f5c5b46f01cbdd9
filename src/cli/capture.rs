//! `lateen capture`: the rules that take over a workload's traffic.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::accounts;
use super::output::{Output, USAGE};
use super::run::config;
use crate::capture::{self, Netns, Plan, Target, privilege};

/// Show, apply or remove capture rules.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  lateen capture plan\n  lateen capture clear --netns cart")]
pub enum CaptureCommand {
    /// Print exactly what is applied in each captured namespace, as a script
    #[command(after_help = "Example:\n  lateen capture plan --config /etc/lateen/lateen.toml")]
    Plan {
        /// Which settings to go by
        #[command(flatten)]
        host: HostArgs,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Apply the rules in a namespace; a running node does this by itself
    #[command(after_help = "Example:\n  lateen capture apply --netns cart")]
    Apply {
        /// The namespace: a name under /run/netns, or an absolute path
        #[arg(long)]
        netns: String,
        /// Which settings to go by
        #[command(flatten)]
        host: HostArgs,
    },
    /// Remove the rules from namespaces; a running node puts them back
    #[command(after_help = "Example:\n  lateen capture clear --netns cart --netns web")]
    Clear {
        /// A namespace: a name under /run/netns, or an absolute path; may be given again
        #[arg(long)]
        netns: Vec<String>,
        /// Every namespace under /run/netns
        #[arg(long, conflicts_with = "netns")]
        all: bool,
    },
}

/// Which settings to go by.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the verb's answer"
)]
pub fn run(command: &CaptureCommand) -> Result<ExitCode, Failure> {
    match command {
        CaptureCommand::Plan { host, output } => {
            let plan = host.plan()?;
            match output {
                Output::Table => print!("{}", plan.render()),
                Output::Json => println!("{}", json!({ "ip": plan.ip(), "nft": plan.nft() })),
            }
        }
        CaptureCommand::Apply { netns, host } => {
            let (ns, plan) = (open(netns)?, host.plan()?);
            runtime()?.block_on(apply(&ns, &plan))?;
            if let Some(caution) = plan.exemption().caution() {
                eprintln!("note: {caution}");
            }
            println!("{netns}: applied");
        }
        CaptureCommand::Clear { netns, all } => return clear(netns, *all),
    }
    Ok(ExitCode::SUCCESS)
}

impl HostArgs {
    fn plan(&self) -> Result<Plan, Failure> {
        let config = config(self.config.as_deref())?;
        let account = accounts::keeper(&config)?;
        let exemption = privilege::exemption(account.uid);
        let exemption = exemption.map_err(|e| Failure::no("there is no plan", &e))?;
        let plan = capture::plan(&exemption);
        // As of workloads that do not say otherwise.
        Ok(if config.dns().capture() {
            plan.with_dns()
        } else {
            plan
        })
    }
}

async fn apply(ns: &Netns, plan: &Plan) -> Result<(), Failure> {
    let checked = capture::preflight(ns, plan).await;
    checked.map_err(|e| Failure::no(ns.name(), &e))?;
    let applied = capture::apply(ns, plan).await;
    applied.map_err(|e| Failure::no(ns.name(), &e))?;
    Ok(())
}

/// Clears what can be cleared, and says what could not.
#[allow(clippy::print_stdout, reason = "the verb's answer")]
fn clear(named: &[String], all: bool) -> Result<ExitCode, Failure> {
    let mut names = named.to_vec();
    if all {
        let entries = every_name().map_err(|e| Failure::no("cannot list /run/netns", &e))?;
        names.extend(entries);
    } else if names.is_empty() {
        return Err(Failure::plain(
            USAGE,
            "which namespace? give --netns NAME or --all",
        ));
    }
    let runtime = runtime()?;
    let mut outcome = ExitCode::SUCCESS;
    for name in names {
        let cleared = open(&name).and_then(|ns| {
            let cleared = runtime.block_on(capture::clear(&ns));
            cleared.map_err(|e| Failure::no(name.clone(), &e))
        });
        match cleared {
            Ok(()) => println!("{name}: cleared"),
            Err(failure) => outcome = failure.report(),
        }
    }
    Ok(outcome)
}

/// The names of all namespaces; none where `ip netns` has never been used.
fn every_name() -> std::io::Result<Vec<String>> {
    let directory = Path::new("/run/netns");
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn open(name: &str) -> Result<Netns, Failure> {
    let target = Target::Netns(Arc::from(name));
    target.attach().map_err(|e| Failure::no(name, &e))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))
}
