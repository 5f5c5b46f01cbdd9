//! `lateen node`: the machines that have joined.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Subcommand;
use http::Method;

use super::Failure;
use super::output::{NO, Output};
use super::status::{asked, unreadable};
use crate::clock::seconds;
use crate::status::{NodeLine, Status};
use crate::table::table;

/// The machines of the mesh, on the control plane's host.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  lateen node list\n  lateen node revoke edge-3")]
pub enum NodeCommand {
    /// Show every node of the mesh files and how it is
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Shut a node out: its certificates and tokens are void wherever the control plane is heard
    Revoke {
        /// Its name
        node: String,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Let a node go on that was frozen because two machines seemed to be it
    Approve {
        /// Its name
        node: String,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(command: &NodeCommand) -> Result<ExitCode, Failure> {
    match command {
        NodeCommand::List { output, config } => list(*output, config.as_deref()),
        NodeCommand::Revoke { node, config } => tell(config.as_deref(), "/nodes/revoke", node),
        NodeCommand::Approve { node, config } => tell(config.as_deref(), "/nodes/approve", node),
    }
}

fn tell(config: Option<&Path>, page: &str, node: &str) -> Result<ExitCode, Failure> {
    outln!("{}", asked(config, Method::POST, page, node.to_owned())?);
    Ok(ExitCode::SUCCESS)
}

fn list(output: Output, config: Option<&Path>) -> Result<ExitCode, Failure> {
    let text = asked(config, Method::GET, "/status", String::new())?;
    let status: Status = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
    let Some(control) = status.control else {
        let message = "no control role runs here; ask on the control plane's host";
        return Err(Failure::plain(NO, message));
    };
    match output {
        Output::Json => {
            let json = serde_json::to_string(&control.nodes).map_err(|e| unreadable(&e))?;
            outln!("{json}");
        }
        Output::Table => {
            let now = seconds(SystemTime::now());
            let rows: Vec<Vec<String>> = control.nodes.into_iter().map(|n| row(n, now)).collect();
            let heading = [
                "NODE",
                "STATE",
                "VERSION",
                "CERTIFICATES",
                "ADDRESS",
                "PROBLEM",
            ];
            out!("{}", table(&heading, &rows));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(node: NodeLine, now: u64) -> Vec<String> {
    let certificates = match (node.certificates, node.expires) {
        (Some(count), Some(expires)) => {
            let hours = expires.saturating_sub(now) / 3600;
            format!("{count}, first ends in {hours}h")
        }
        (Some(count), None) => count.to_string(),
        (None, _) => String::new(),
    };
    vec![
        node.name,
        node.state,
        node.version.unwrap_or_default(),
        certificates,
        node.address.unwrap_or_default(),
        node.problem.unwrap_or_default(),
    ]
}
