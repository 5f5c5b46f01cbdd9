//! `lateen capture`: the rules that take over a workload's traffic.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use super::output::USAGE;
use super::run::{config, user_id};
use crate::capture::{self, Exemption, Netns};

/// Show, apply or remove capture rules.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  lateen capture plan\n  lateen capture clear --netns cart")]
pub enum CaptureCommand {
    /// Print exactly what is applied in each captured namespace
    Plan {
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Apply the rules in a namespace; a running node does this by itself
    Apply {
        /// The namespace
        #[arg(long)]
        netns: String,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Remove the rules from namespaces
    Clear {
        /// A namespace; may be given again
        #[arg(long)]
        netns: Vec<String>,
        /// Every namespace under /run/netns
        #[arg(long, conflicts_with = "netns")]
        all: bool,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
#[allow(clippy::print_stdout, reason = "the verb's answer")]
pub fn run(command: &CaptureCommand) -> Result<ExitCode, Failure> {
    match command {
        CaptureCommand::Plan { config: path } => {
            let exemption = Exemption::Uid(user_id(config(path.as_deref())?.user())?);
            print!("{}", capture::plan(&exemption).render());
        }
        CaptureCommand::Apply {
            netns,
            config: path,
        } => {
            let exemption = Exemption::Uid(user_id(config(path.as_deref())?.user())?);
            let ns = open(netns)?;
            let plan = capture::plan(&exemption);
            let applied = runtime()?.block_on(capture::apply(&ns, &plan));
            applied.map_err(|e| Failure::no(netns.clone(), &e))?;
            println!("{netns}: applied");
        }
        CaptureCommand::Clear { netns, all } => clear(netns, *all)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "the verb's answer")]
fn clear(named: &[String], all: bool) -> Result<(), Failure> {
    let mut names = named.to_vec();
    if all {
        let entries = std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten();
        names.extend(entries.map(|e| e.file_name().to_string_lossy().into_owned()));
    } else if names.is_empty() {
        return Err(Failure::plain(
            USAGE,
            "which namespace? give --netns NAME or --all",
        ));
    }
    let runtime = runtime()?;
    for name in names {
        let cleared = runtime.block_on(capture::clear(&open(&name)?));
        cleared.map_err(|e| Failure::no(name.clone(), &e))?;
        println!("{name}: cleared");
    }
    Ok(())
}

fn open(name: &str) -> Result<Netns, Failure> {
    Netns::named(name).map_err(|e| Failure::no(format!("network namespace `{name}`"), &e))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))
}
