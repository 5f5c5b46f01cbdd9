//! `lateen check`: says what is wrong with a mesh directory, and where.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::diagnose::{Drawing, Style};
use crate::config::{self, report};

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: the text with the mistakes underlined
    Text,
    /// For people who listen: in sentences
    Narrated,
    /// For programs: one JSON object
    Json,
}

/// Say what is wrong with a mesh directory, and where.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen check ./mesh && git commit -am 'add cart-3'\n\n\
    Exits 0 when the directory can be used, warnings or not, and 1 when it cannot."
)]
pub struct CheckArgs {
    /// The mesh directory
    #[arg(default_value = "/etc/lateen/mesh")]
    dir: PathBuf,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Checks a directory and prints the findings to standard output.
pub fn run(args: &CheckArgs) -> ExitCode {
    let loaded = config::load(&args.dir);
    let text = match args.output {
        Output::Json => format!("{:#}\n", report::json(&loaded)),
        Output::Text => report::text(&loaded, &style(io::stdout().is_terminal())),
        Output::Narrated => {
            let drawing = Drawing::Narrated;
            report::text(
                &loaded,
                &Style {
                    drawing,
                    ..style(false)
                },
            )
        }
    };
    out!("{text}");
    match loaded.mesh.is_some() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn style(terminal: bool) -> Style {
    // https://no-color.org: set to anything but nothing.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Style::for_stream(terminal, no_color, 100)
}
