//! `lateen certificates`: those of this host.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::Failure;
use super::output::{NO, Output, when};
use super::status::{asked, unreadable};
use crate::status::trust::CertificateDetail;
use crate::table::table;

/// Show the certificates of this host.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen certificates\n  lateen certificates --chain spiffe://cluster.local/ns/shop/sa/cart | openssl x509 -text\n\nExit code 1 when one could not be had or renewed."
)]
pub struct CertificatesArgs {
    /// Print the chain of one identity as PEM, leaf first
    #[arg(long, value_name = "IDENTITY")]
    chain: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(args: &CertificatesArgs) -> Result<ExitCode, Failure> {
    let page = "/certificates";
    let text = asked(args.config.as_deref(), Method::GET, page, String::new())?;
    let lines: Vec<CertificateDetail> = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
    if let Some(identity) = &args.chain {
        let line = lines.iter().find(|l| l.identity == *identity);
        let line = line.ok_or_else(|| {
            Failure::plain(NO, format!("this host has no certificate of {identity}"))
        })?;
        out!("{}", line.chain.concat());
        return Ok(ExitCode::SUCCESS);
    }
    match args.output {
        Output::Json => outln!("{text}"),
        Output::Table => out!("{}", render(&lines)),
    }
    let failing = lines.iter().any(|l| l.error.is_some());
    Ok(match failing {
        true => ExitCode::from(NO),
        false => ExitCode::SUCCESS,
    })
}

fn render(lines: &[CertificateDetail]) -> String {
    let time = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), when);
    let row = |l: &CertificateDetail| {
        vec![
            l.identity.clone(),
            l.serial.clone().unwrap_or_else(|| "-".to_owned()),
            time(l.made),
            time(l.renews),
            time(l.expires),
            l.error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let heading = ["IDENTITY", "SERIAL", "MADE", "RENEWS", "EXPIRES", "PROBLEM"];
    table(&heading, &rows)
}
