//! `lateen join`: this machine becomes a node of a mesh.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::accounts::become_owner;
use super::output::{NO, UNREACHABLE, USAGE};
use super::run::config;
use crate::agent::join::{JoinError, join};
use crate::causes::chain;
use crate::hex::hex;
use crate::identity::token::Token;
use crate::tls::PeerRefused;

/// Join this machine to a mesh with a token.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen join https://control.example:15012 --token-file edge-1.token"
)]
pub struct JoinArgs {
    /// The control plane
    url: String,
    /// The file with the token; - for standard input
    #[arg(long)]
    token_file: PathBuf,
    /// The node's name [default: `node` of lateen.toml, else the host name]
    #[arg(long)]
    node: Option<String>,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Joins.
///
/// # Errors
/// [`Failure`]: exit code 2 for a token that does not read, 3 for a control plane that does not
/// answer, 1 when it says no or is not the one the token is of.
pub fn run(args: &JoinArgs) -> Result<ExitCode, Failure> {
    let config = config(args.config.as_deref())?;
    let token = token(&args.token_file)?;
    let node = args.node.as_deref().unwrap_or_else(|| config.node());
    // The user of the units, on whose behalf root joins.
    become_owner(config.state_dir())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    let joined = runtime.block_on(join(&args.url, &token, node, config.state_dir()));
    let joined = joined.map_err(|e| explain(&e, &token))?;
    outln!(
        "joined as {} (certificate {})",
        joined.id,
        joined.generation
    );
    if let Some(seconds) = joined.skew {
        outln!("note: this machine's clock and the control plane's are {seconds} s apart");
    }
    Ok(ExitCode::SUCCESS)
}

fn token(path: &Path) -> Result<Token, Failure> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(|_read| ()),
        false => std::fs::read_to_string(path).map(|content| text = content),
    };
    read.map_err(|e| Failure::usage(format!("cannot read {}", path.display()), &e))?;
    text.parse()
        .map_err(|e| Failure::usage(path.display().to_string(), &e))
}

fn explain(error: &JoinError, token: &Token) -> Failure {
    if let JoinError::Channel(channel) = error {
        if let Some(refused @ PeerRefused::Pin { .. }) = channel.refused() {
            let pinned = hex(&token.pin);
            return Failure::plain(
                NO,
                format!(
                    "{refused}; pinned: {pinned}. This is not the control plane the token was made on"
                ),
            );
        }
        let code = match channel {
            crate::dial::DialError::Url { .. } => USAGE,
            _ if channel.refused().is_some() => NO,
            _ => UNREACHABLE,
        };
        return Failure::plain(code, chain(error));
    }
    Failure::plain(NO, chain(error))
}
