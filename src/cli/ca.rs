//! `lateen ca`: the certificate authority of the mesh.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use http::Method;

use super::Failure;
use super::output::{Output, when};
use super::status::{asked, unreadable};
use crate::status::trust::{CaStatus, RotateAsk};
use crate::table::table;

/// The certificate authority, on the control plane's host.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  lateen ca show\n  lateen ca rotate --root\n  lateen ca revoke 41c2…"
)]
pub enum CaCommand {
    /// Show what is believed, who signs, and how a rotation stands
    Show {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Let another intermediate sign; with --root, take the next step of replacing the root
    #[command(
        after_help = "A root is replaced in three steps, one at each call: the new one is believed, then it signs, then the old\none is believed no more. A step that would cut a node off is refused, with the names of those in the way."
    )]
    Rotate {
        /// The root
        #[arg(long)]
        root: bool,
        /// Even if that cuts off those it names
        #[arg(long)]
        force: bool,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Take one certificate back
    Revoke {
        /// Its serial number, as lateen certificates shows it
        serial: String,
        /// The settings of this host [default: /etc/lateen/lateen.toml]
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(command: &CaCommand) -> Result<ExitCode, Failure> {
    match command {
        CaCommand::Show { output, config } => {
            let text = asked(config.as_deref(), Method::GET, "/ca", String::new())?;
            let status: CaStatus = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
            match output {
                Output::Json => outln!("{text}"),
                Output::Table => out!("{}", render(&status)),
            }
        }
        CaCommand::Rotate {
            root,
            force,
            config,
        } => {
            let ask = RotateAsk {
                root: *root,
                force: *force,
            };
            let body = serde_json::to_string(&ask).map_err(|e| unreadable(&e))?;
            outln!(
                "{}",
                asked(config.as_deref(), Method::POST, "/ca/rotate", body)?
            );
        }
        CaCommand::Revoke { serial, config } => {
            let text = asked(
                config.as_deref(),
                Method::POST,
                "/ca/revoke",
                serial.clone(),
            )?;
            outln!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn render(status: &CaStatus) -> String {
    let mut text = format!(
        "trust domain {}  bundle {}  revoked {} (list {})\n\n",
        status.trust_domain, status.sequence, status.revoked, status.crl_number
    );
    let lines = status.roots.iter().chain([&status.issuing]);
    let rows: Vec<Vec<String>> = lines
        .map(|l| {
            let short: String = l.spki_sha256.chars().take(16).collect();
            vec![l.name.clone(), l.state.clone(), when(l.expires), short]
        })
        .collect();
    text.push_str(&table(&["NAME", "STATE", "EXPIRES", "KEY SHA-256"], &rows));
    if status.phase != "steady" {
        text.push_str(&format!("\nreplacing the root: {}\n", status.phase));
        match status.in_the_way.as_slice() {
            [] => {
                text.push_str("nothing is in the way of the next step: lateen ca rotate --root\n")
            }
            reasons => {
                text.push_str("in the way of the next step:\n");
                reasons
                    .iter()
                    .for_each(|r| text.push_str(&format!("  {r}\n")));
            }
        }
    }
    text
}
