//! Runs `nft` and `ip` inside a namespace.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::apply::CaptureError;
use super::netns::Netns;

/// Where administrators' programs are; not on every user's path.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];

/// Runs a program in the namespace with `input`, on a thread that may block; its standard output.
pub(super) async fn run(
    ns: &Netns,
    program: &'static str,
    arguments: &[&str],
    input: String,
) -> Result<String, CaptureError> {
    let ns = ns.clone();
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let running = tokio::task::spawn_blocking(move || {
        let started = ns.within(|| start(program, &arguments, &input));
        started.map_err(|source| CaptureError::Namespace {
            name: ns.name().to_owned(),
            source,
        })?
    });
    match running.await {
        Ok(outcome) => outcome,
        Err(_stopped) => Err(CaptureError::Stopping),
    }
}

fn start(program: &'static str, arguments: &[String], input: &str) -> Result<String, CaptureError> {
    let found = DIRECTORIES.iter().map(|d| Path::new(d).join(program));
    let path = found.into_iter().find(|p| p.is_file());
    let path = path.ok_or(CaptureError::NoTool { program })?;
    let failed = |source| CaptureError::Tool { program, source };
    let output = feed(Command::new(path).args(arguments), input).map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CaptureError::Refused {
        program,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn feed(command: &mut Command, input: &str) -> io::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(e) = stdin.write_all(input.as_bytes())
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(e);
    }
    // A program that closed its input early says why on its way out.
    child.wait_with_output()
}
