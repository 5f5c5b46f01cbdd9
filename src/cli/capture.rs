//! `lateen capture`: the rules that take over workloads' traffic.

mod confirm;
pub mod place;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Failure;
use super::accounts;
use super::output::{Output, USAGE};
use super::run::config;
use super::terms::terms;
use crate::capture::{self, Netns, Terms, privilege};
use crate::config::daemon::Config;
use place::{HOST, Named, Script, open};

/// Show, apply or remove capture rules.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  lateen capture plan\n  lateen capture apply --unit cart.service --confirm 60s\n  lateen capture clear --netns cart"
)]
pub enum CaptureCommand {
    /// Print exactly what is applied, as a script: in each captured namespace, or on the host
    #[command(
        after_help = "Example:\n  lateen capture plan --config /etc/lateen/lateen.toml\n  lateen capture plan --unit cart.service --address 192.0.2.11 --port 8080"
    )]
    Plan {
        /// Workloads on the host's network
        #[command(flatten)]
        named: Named,
        /// Which settings to go by
        #[command(flatten)]
        host: HostArgs,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Apply the rules; a running node does this by itself
    #[command(
        after_help = "Example:\n  lateen capture apply --netns cart\n  lateen capture apply --user cart --confirm 60s"
    )]
    Apply {
        /// The namespace: a name under /run/netns, or an absolute path
        #[arg(long)]
        netns: Option<String>,
        /// Workloads on the host's network, instead of a namespace
        #[command(flatten)]
        named: Named,
        /// Take it all back after this long unless `lateen capture confirm` comes first
        #[arg(long, value_parser = confirm::duration)]
        confirm: Option<Duration>,
        /// Which settings to go by
        #[command(flatten)]
        host: HostArgs,
    },
    /// Keep what was applied with --confirm
    #[command(after_help = "Example:\n  lateen capture confirm")]
    Confirm {
        /// Which settings to go by
        #[command(flatten)]
        host: HostArgs,
    },
    /// Wait until a unit is captured: for its ExecStartPre, so that nothing of it runs before
    #[command(
        after_help = "Example, in the unit:\n  ExecStartPre=+/usr/bin/lateen capture wait --unit %n"
    )]
    Wait {
        /// The unit
        #[arg(long)]
        unit: String,
        /// Longest wait
        #[arg(long, default_value = "30s", value_parser = confirm::duration)]
        timeout: Duration,
    },
    /// Remove the rules; a running node puts them back
    #[command(
        after_help = "Example:\n  lateen capture clear --netns cart --netns web\n  lateen capture clear --host"
    )]
    Clear {
        /// A namespace: a name under /run/netns, or an absolute path; may be given again
        #[arg(long)]
        netns: Vec<String>,
        /// The host's own network
        #[arg(long)]
        host: bool,
        /// Every namespace under /run/netns, and the host's own network
        #[arg(long, conflicts_with_all = ["netns", "host"])]
        all: bool,
    },
    /// Takes back what was applied, at its time
    #[command(hide = true)]
    Revert {
        /// What was there before
        file: PathBuf,
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
pub fn run(command: &CaptureCommand) -> Result<ExitCode, Failure> {
    match command {
        CaptureCommand::Plan {
            named,
            host,
            output,
        } => {
            let config = host.config()?;
            let terms = host.terms(&config)?;
            let script = Script::new(&terms, named, config.dns().capture());
            let script = runtime()?.block_on(script)?;
            match output {
                Output::Table => out!("{}", script.render()),
                Output::Json => outln!("{}", script.json()),
            }
        }
        CaptureCommand::Apply {
            netns,
            named,
            confirm,
            host,
        } => apply(netns.as_deref(), named, *confirm, host)?,
        CaptureCommand::Confirm { host } => return confirm::confirm(&host.config()?),
        CaptureCommand::Wait { unit, timeout } => {
            runtime()?.block_on(place::wait(unit, *timeout))?;
        }
        CaptureCommand::Clear { netns, host, all } => return clear(netns, *host, *all),
        CaptureCommand::Revert { file } => confirm::revert(file)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl HostArgs {
    fn config(&self) -> Result<Config, Failure> {
        config(self.config.as_deref())
    }

    fn terms(&self, config: &Config) -> Result<Terms, Failure> {
        let account = accounts::keeper(config)?;
        let exemption = privilege::exemption(account.uid);
        terms(
            config,
            exemption.map_err(|e| Failure::no("there is no plan", &e))?,
        )
    }
}

#[allow(clippy::print_stderr, reason = "the verb's answer")]
fn apply(
    netns: Option<&str>,
    named: &Named,
    confirm: Option<Duration>,
    host: &HostArgs,
) -> Result<(), Failure> {
    let name = match (netns, named.is_empty()) {
        (Some(name), true) => name,
        (None, false) => HOST,
        (Some(_), false) => {
            let message = "a namespace and workloads on the host's network are two networks: \
                apply them one after the other";
            return Err(Failure::plain(USAGE, message));
        }
        (None, true) => {
            let message = "to whom? give --netns NAME, or --unit, --cgroup, --user or --interface";
            return Err(Failure::plain(USAGE, message));
        }
    };
    let config = host.config()?;
    let terms = host.terms(&config)?;
    runtime()?.block_on(async {
        let ns = open(name)?;
        if name != HOST && ns == open(HOST)? {
            // All of the host would be captured, and whoever operates it locked out.
            let message = "that is the host's own network: name workloads there by --unit, \
                --cgroup, --user or --interface";
            return Err(Failure::plain(USAGE, message));
        }
        let script = Script::new(&terms, named, config.dns().capture()).await?;
        script.check(&ns).await?;
        // Whoever takes it back is there before anything is changed.
        let pending = match confirm {
            Some(after) => Some(confirm::arm(&config, name, &ns, after).await?),
            None => None,
        };
        let applied = script.apply(&ns).await;
        if let Some(pending) = pending {
            pending.settle(applied.is_ok());
        }
        applied
    })?;
    if let Some(caution) = terms.exemption.caution() {
        eprintln!("note: {caution}");
    }
    outln!("{name}: applied");
    if let Some(after) = confirm {
        outln!(
            "taken back in {} s unless you keep it: lateen capture confirm",
            after.as_secs()
        );
    }
    Ok(())
}

/// Clears what can be cleared, and says what could not.
fn clear(named: &[String], host: bool, all: bool) -> Result<ExitCode, Failure> {
    let mut names = named.to_vec();
    if all {
        let entries = every_name().map_err(|e| Failure::no("cannot list /run/netns", &e))?;
        names.extend(entries);
    }
    if host || all {
        names.push(HOST.to_owned());
    }
    if names.is_empty() {
        return Err(Failure::plain(
            USAGE,
            "which network? give --netns NAME, --host or --all",
        ));
    }
    let runtime = runtime()?;
    let mut outcome = ExitCode::SUCCESS;
    for name in names {
        let cleared = open(&name).and_then(|ns: Netns| {
            let cleared = runtime.block_on(capture::clear(&ns));
            cleared.map_err(|e| Failure::no(name.clone(), &e))
        });
        match cleared {
            Ok(()) => outln!("{name}: cleared"),
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

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))
}
