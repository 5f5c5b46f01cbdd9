//! Runs `nft` and `ip` inside a namespace.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::error::CaptureError;
use super::netns::Netns;

/// Where administrators' programs are; not on every user's path.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
/// Longest run. Both programs take milliseconds; what takes longer hangs on a lock in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters and lines of what a program says that are kept.
const LINE: usize = 200;
const LINES: usize = 8;

/// A program that does for us what there is no system call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    Ip,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Ip => "ip",
        }
    }

    fn path(self) -> PathBuf {
        let found = DIRECTORIES.iter().map(|d| Path::new(d).join(self.name()));
        // Else wherever the path of this process leads.
        found
            .into_iter()
            .find(|p| p.is_file())
            .unwrap_or_else(|| PathBuf::from(self.name()))
    }
}

/// Runs a program in the namespace with `input`; its standard output.
///
/// # Cancel safety
/// Dropping the future kills the program: `nft` has then done all or nothing, `ip` some of its lines.
pub(super) async fn run(
    ns: &Netns,
    tool: Tool,
    arguments: &[&str],
    input: &str,
) -> Result<String, CaptureError> {
    let mut command = Command::new(tool.path());
    command
        .args(arguments)
        // What it says is read by us as well.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // The child inherits the namespace, and the capabilities, of the thread that starts it.
    let started = ns.within(|| command.spawn());
    let started = started.map_err(|source| CaptureError::Namespace {
        name: ns.name().to_owned(),
        source,
    })?;
    let program = tool.name();
    let child = started.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CaptureError::NoTool { program },
        _ => CaptureError::Tool { program, source },
    })?;
    let output = match tokio::time::timeout(PATIENCE, feed(child, input)).await {
        Ok(output) => output.map_err(|source| CaptureError::Tool { program, source })?,
        Err(_elapsed) => return Err(CaptureError::Hangs { program }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CaptureError::Refused {
        program,
        said: in_short(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// What a program says, as far as people read it and a message between keeper and proxy carries it:
/// `nft` repeats the line that it refuses, which is all of a set.
fn in_short(said: &str) -> String {
    let line = |line: &str| match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    let lines: Vec<_> = said.trim().lines().take(LINES).map(line).collect();
    lines.join("\n")
}

async fn feed(mut child: Child, input: &str) -> io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take()
        && let Err(e) = stdin.write_all(input.as_bytes()).await
        // A program that closed its input early says why on its way out.
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(e);
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_says_at_length_is_told_in_short() {
        let here = Netns::current().unwrap();
        let list = vec!["1 : 0x600"; 5000].join(", ");
        let script = format!("add element inet lateen users {{ {list} }} }}\n").repeat(3);
        match run(&here, Tool::Nft, &["-f", "-"], &script).await {
            Err(CaptureError::Refused { said, .. }) => {
                assert!((1..3000).contains(&said.len()), "{}", said.len());
            }
            Err(CaptureError::NoTool { .. }) => eprintln!("skipped: no nft here"),
            other => panic!("{other:?}"),
        }
    }
}
