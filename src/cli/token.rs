//! `lateen token`: permissions for machines to join.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use http::Method;

use super::Failure;
use super::output::Output;
use super::status::{asked, unreadable};
use crate::status::token::{TokenAsk, TokenLine};
use crate::table::table;

/// Make, list and revoke join tokens, on the control plane's host.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  lateen token create edge-1 > edge-1.token")]
pub enum TokenCommand {
    /// Make a token with which one machine may join, once, as a node
    Create {
        /// The node's name in the mesh files
        node: String,
        /// Seconds it is good for [default: 3600, most: 2592000]
        #[arg(long)]
        ttl: Option<u64>,
        /// Let it replace a machine that has joined under this name
        #[arg(long)]
        replace: bool,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Make a bearer token by which a stock proxy speaks for a node
    Node {
        /// The node's name in the mesh files
        node: String,
        /// Seconds it is good for [default: 86400, most: 7776000]
        #[arg(long)]
        ttl: Option<u64>,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Show the tokens, without their secrets
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Take a token back
    Revoke {
        /// Its id
        id: String,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(command: &TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create {
            node,
            ttl,
            replace,
            config,
        } => {
            let ask = TokenAsk {
                node: node.clone(),
                ttl: *ttl,
                replace: *replace,
            };
            let body = serde_json::to_string(&ask).map_err(|e| unreadable(&e))?;
            let token = asked(config.as_deref(), Method::POST, "/tokens", body)?;
            outln!("{token}");
        }
        TokenCommand::Node { node, ttl, config } => {
            let ask = TokenAsk {
                node: node.clone(),
                ttl: *ttl,
                replace: false,
            };
            let body = serde_json::to_string(&ask).map_err(|e| unreadable(&e))?;
            let token = asked(config.as_deref(), Method::POST, "/tokens/node", body)?;
            // A proxy sends the file as it is, and no header may end in a line.
            out!("{token}");
        }
        TokenCommand::List { output, config } => {
            let text = asked(config.as_deref(), Method::GET, "/tokens", String::new())?;
            if *output == Output::Json {
                outln!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            let tokens: Vec<TokenLine> = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
            let row = |t: TokenLine| vec![t.id, t.kind, t.node, t.state, t.expires.to_string()];
            let rows: Vec<Vec<String>> = tokens.into_iter().map(row).collect();
            out!(
                "{}",
                table(&["TOKEN", "KIND", "NODE", "STATE", "EXPIRES"], &rows)
            );
        }
        TokenCommand::Revoke { id, config } => {
            asked(
                config.as_deref(),
                Method::POST,
                "/tokens/revoke",
                id.clone(),
            )?;
            outln!("token {id} is revoked");
        }
    }
    Ok(ExitCode::SUCCESS)
}
