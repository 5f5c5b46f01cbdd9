//! Runs a program for what it prints, with patience that ends.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where administrators' programs are; not on every user's path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";
/// Longest run.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks whether it has ended.
const LOOK: Duration = Duration::from_millis(2);
/// Most output that is read.
const OUTPUT: u64 = 16 << 20;

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// It is not installed.
    Missing,
    /// It printed this.
    Said(String),
    /// It failed, with this on its standard error.
    Failed(String),
}

impl Ran {
    /// What it printed, where it ran well.
    pub(super) fn said(self) -> Option<String> {
        match self {
            Self::Said(text) => Some(text),
            Self::Missing | Self::Failed(_) => None,
        }
    }
}

/// Whether a program is installed.
pub(super) fn installed(name: &str) -> bool {
    PATH.split(':')
        .any(|directory| Path::new(directory).join(name).is_file())
}

/// Runs it. One that takes longer than 5 s is ended, and has failed.
pub(super) fn run(name: &str, arguments: &[&str]) -> Ran {
    if !installed(name) {
        return Ran::Missing;
    }
    let mut command = Command::new(name);
    command.args(arguments).env("PATH", PATH).env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Ran::Failed(e.to_string()),
    };
    let streams = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let out = scope.spawn(|| streams.0.map(text).unwrap_or_default());
        let err = scope.spawn(|| streams.1.map(text).unwrap_or_default());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => {
                    // Gone already, at worst.
                    let _ended = child.kill();
                    let _reaped = child.wait();
                    break None;
                }
            }
        };
        let said = out.join().unwrap_or_default();
        let complaint = err.join().unwrap_or_default();
        match status {
            Some(status) if status.success() => Ran::Said(said),
            Some(_) => Ran::Failed(complaint.trim().to_owned()),
            None => Ran::Failed(format!("`{name}` did not end within 5 s")),
        }
    })
}

fn text(stream: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What came before a failure is all there is.
    let _rest = stream.take(OUTPUT).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_told_apart_from_its_failure() {
        assert_eq!(run("echo", &["a"]), Ran::Said("a\n".to_owned()));
        assert_eq!(run("no-such-program", &[]), Ran::Missing);
        let failed = run("sh", &["-c", "echo why >&2; exit 3"]);
        assert_eq!(failed, Ran::Failed("why".to_owned()));
    }
}
