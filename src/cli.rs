//! The command line: one file per verb.
//!
//! Exit codes are the same everywhere: 0 done, 1 the answer is no, 2 wrong usage, 3 cannot reach.

/// As `print`, of which it is the verbs' own: see [`output::print`].
macro_rules! out {
    ($($text:tt)*) => {{
        let _whether_read = $crate::cli::output::print(format_args!($($text)*));
    }};
}

/// The same, a line.
macro_rules! outln {
    ($($text:tt)*) => { out!("{}\n", format_args!($($text)*)) };
}

mod accounts;
pub mod ca;
pub mod capture;
pub mod certificates;
pub mod check;
pub mod demo;
mod descriptors;
pub mod doctor;
pub mod explain;
pub mod join;
pub mod keeper;
pub mod node;
pub mod output;
pub mod rig;
pub mod run;
pub mod sample;
pub mod status;
mod terms;
pub mod token;
pub mod waypoints;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::daemon::{Config, LogFormat};
use crate::telemetry::log::{self, Behind};
pub use output::Failure;

/// A service mesh for machines that run no Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 cannot reach.")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the roles of this host
    Run(run::RunArgs),
    /// Hold listeners and capture rules for the node on this host, which then needs no privileges
    Keeper(keeper::KeeperArgs),
    /// Show a mesh of three hosts on this machine, with traffic
    Demo(demo::DemoArgs),
    /// Say what is wrong with a mesh directory, and where
    Check(check::CheckArgs),
    /// Show what a running lateen knows: roles, revision, nodes, problems
    Status(status::StatusArgs),
    /// Say whether a connection is let in, and what makes it so
    Explain(explain::ExplainArgs),
    /// Show the policies that node proxies evaluate
    Policies(explain::PoliciesArgs),
    /// Show the waypoints, and what is behind each
    Waypoints(waypoints::WaypointsArgs),
    /// Show the connections open on this node
    Connections(status::ConnectionsArgs),
    /// Make, list and revoke join tokens (on the control plane's host)
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, revoke and approve the nodes that have joined (on the control plane's host)
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Show, rotate and revoke by the certificate authority (on the control plane's host)
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Show the certificates of this host
    Certificates(certificates::CertificatesArgs),
    /// Join this machine to a mesh with a token
    Join(join::JoinArgs),
    /// Show, apply or remove the rules that capture traffic
    #[command(subcommand)]
    Capture(capture::CaptureCommand),
    /// Say what keeps lateen from working on this host, and what mends it
    Doctor(doctor::DoctorArgs),
    /// Build fleets of hosts as network namespaces on this machine
    #[command(subcommand)]
    Rig(rig::RigCommand),
    /// Small ordinary programs for rigs and demos
    #[command(subcommand)]
    Sample(sample::SampleCommand),
    /// Print shell completions
    Completions {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Parses the command line, runs the verb, and tells the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Keeper(args) => keeper::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Check(args) => Ok(check::run(&args)),
        Verb::Status(args) => status::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Policies(args) => explain::policies(&args),
        Verb::Waypoints(args) => waypoints::run(&args),
        Verb::Connections(args) => status::connections(&args),
        Verb::Token(command) => token::run(&command),
        Verb::Node(command) => node::run(&command),
        Verb::Ca(command) => ca::run(&command),
        Verb::Certificates(args) => certificates::run(&args),
        Verb::Join(args) => join::run(&args),
        Verb::Capture(command) => capture::run(&command),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Rig(command) => rig::run(command),
        Verb::Sample(command) => sample::run(command),
        Verb::Completions { shell } => completions(shell),
        Verb::Man => man(),
    };
    match outcome {
        Ok(code) => output::code(code),
        Err(failure) => failure.report(),
    }
}

/// Sets up the log as the settings have it.
fn start_log(config: &Config) -> Result<Behind, Failure> {
    let format = match config.log_format() {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let level = config.log_level().as_str();
    log::init(format, level).map_err(|e| Failure::usage("log", &e))
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "lateen", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}

fn man() -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(|e| Failure::no("cannot write the manual page", &e))?;
    out!("{}", String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}
