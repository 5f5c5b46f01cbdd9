//! `lateen doctor`: what keeps lateen from working on this host, and what mends it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::output::{NO, Output};
use crate::doctor::{Facts, Finding, Severity, examine};

/// Say what keeps lateen from working on this host, and what mends it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo lateen doctor\n  lateen doctor -o json | jq -r '.findings[].code'\n\n\
    Exits 0 when nothing is wrong, notes or not, and 1 when something is. Nothing is changed."
)]
pub struct DoctorArgs {
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Looks at everything, and prints what is wrong.
///
/// # Errors
/// [`Failure`] when the answer cannot be written.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let findings = examine(&Facts::read(args.config.as_deref()));
    let healthy = !findings.iter().any(|f| f.severity < Severity::Note);
    match args.output {
        Output::Json => outln!("{:#}", json!({ "healthy": healthy, "findings": findings })),
        Output::Table => out!("{}", render(&findings)),
    }
    Ok(match healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NO),
    })
}

fn render(findings: &[Finding]) -> String {
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = match (errors, warnings) {
        (0, 0) => "nothing is wrong with this host\n".to_owned(),
        _ => format!(
            "{}, {}\n",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    format!(
        "{}{}{verdict}",
        told.join("\n"),
        if told.is_empty() { "" } else { "\n" }
    )
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
