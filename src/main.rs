//! Parses, dispatches, sets the exit code: nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    lateen::cli::main()
}
