//! A command as a probe: exit 0 passes (`spec/control-plane.md` §7.1).
//!
//! It runs in the workload's network, as the node's own user without any of its powers, in a
//! process group of its own that is killed when time is up, and when the command has exited: what
//! it leaves behind would add up. What has left the group by setsid survives.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::ask::{Failure, timed_out};
use crate::capture::{Netns, spawn};
use crate::sys;
use crate::telemetry::access_log::chain;

/// Bytes kept of what a command says.
const OUTPUT: usize = 4 << 10;
/// Longest wait for the rest of its output once it has exited: something that left its group may
/// hold the pipe open.
const REST: Duration = Duration::from_millis(50);
/// Where commands that are not paths are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command once, for `timeout` at most.
pub(super) async fn run(
    network: Netns,
    command: &[Arc<str>],
    timeout: Duration,
) -> Result<(), Failure> {
    let running = async {
        let (group, mut output) = start(network, command).await?;
        finish(group, &mut output).await
    };
    match tokio::time::timeout(timeout, running).await {
        Ok(done) => done.map_err(|e| cannot(&e))?,
        Err(_elapsed) => Err(timed_out(timeout)),
    }
}

/// A program that is not there is the fault of whoever names it; for whatever else keeps one from
/// being started, it is this node's.
fn cannot(error: &io::Error) -> Failure {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};
    let named = [InvalidInput, NotADirectory, NotFound, PermissionDenied];
    let named =
        named.contains(&error.kind()) || error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    match named {
        true => Failure::new("exec-failed", chain(error)),
        false => Failure::of_node("exec-failed", chain(error)),
    }
}

async fn start(network: Netns, command: &[Arc<str>]) -> io::Result<(Group, pipe::Receiver)> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // One pipe for both, so that lines stay in the order in which they were said.
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(&**program);
    command
        .args(arguments.iter().map(|argument| &**argument))
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    // Whenever time is up, whoever holds the child ends all of its group.
    let group = spawn(network, command, Group).await?;
    let output = pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((group, output))
}

async fn finish(mut group: Group, output: &mut pipe::Receiver) -> io::Result<Result<(), Failure>> {
    let mut said = Vec::with_capacity(OUTPUT);
    tokio::select! {
        exited = group.exited() => exited?,
        () = listen(output, &mut said) => group.exited().await?,
    }
    let status = group.end().await?;
    // What it said last is in the pipe.
    let _cut_off = tokio::time::timeout(REST, listen(output, &mut said)).await;
    if status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&said);
    let detail = match said.trim() {
        "" => status.to_string(),
        said => format!("{status}: {said}"),
    };
    Ok(Err(Failure::new("exit-status", detail)))
}

/// Reads until the end and keeps the beginning: a command that nobody listens to would stop.
///
/// # Cancel safety
/// Dropping the future loses nothing: what was read is in `said`, the rest in the pipe.
async fn listen(output: &mut pipe::Receiver, said: &mut Vec<u8>) {
    let mut piece = [0; 1024];
    loop {
        match output.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let keep = read.min(OUTPUT - said.len());
                said.extend(piece.get(..keep).unwrap_or_default());
            }
        }
    }
}

/// A child that leads a process group, none of which outlives this.
struct Group(Child);

impl Group {
    /// Waits until the child has exited, and leaves it to be waited for: until then its number is
    /// no other's.
    async fn exited(&self) -> io::Result<()> {
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let exit = pidfd_open(leader, PidfdFlags::empty())?;
        let _readable = sys::async_fd(exit)?.readable().await?;
        Ok(())
    }

    /// Kills what is left of the group, and waits for the child.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.0.wait().await
    }

    fn leader(&self) -> Option<Pid> {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
    }

    fn kill(&self) {
        if let Some(leader) = self.leader() {
            // Nobody may be left.
            let _gone = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::probe::ask::Side;

    async fn sh(script: &str, timeout: Duration) -> Result<(), Failure> {
        let command = ["sh", "-c", script].map(Arc::from);
        run(Netns::current().unwrap(), &command, timeout).await
    }

    #[tokio::test]
    async fn exit_codes_and_what_was_said() {
        let long = Duration::from_secs(20);
        for (name, script, want) in [
            ("passes", "true", None),
            ("passes, talking", "seq 100000", None),
            (
                "a status",
                "exit 3",
                Some(("exit-status", "exit status: 3")),
            ),
            (
                "with a reason, in order",
                "echo out; echo err >&2; exit 1",
                Some(("exit-status", "exit status: 1: out\nerr")),
            ),
            ("a signal", "kill -9 $$", Some(("exit-status", "signal: 9"))),
            (
                "no powers",
                "! grep -E 'Cap(Inh|Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status",
                None,
            ),
            (
                "no environment",
                "test \"$(env | grep -v '^_=' | grep -v '^PWD=')\" = \"PATH=$PATH\"",
                None,
            ),
        ] {
            let got = sh(script, long).await.err();
            let got = got.as_ref().map(|f| (f.code, f.detail.as_str()));
            let same = match (got, want) {
                (Some(got), Some(want)) => got.0 == want.0 && got.1.starts_with(want.1),
                (got, want) => got == want,
            };
            assert!(same, "{name}: {got:?}");
        }
    }

    #[tokio::test]
    async fn output_is_cut() {
        let failure = sh("seq 100000; exit 1", Duration::from_secs(20)).await;
        let detail = failure.unwrap_err().detail;
        assert!(detail.len() <= OUTPUT + 20, "{}", detail.len());
        assert!(detail.contains("\n1000\n"));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there() {
        let command = ["/nonexistent/program"].map(Arc::from);
        let failure = run(Netns::current().unwrap(), &command, Duration::from_secs(9)).await;
        let failure = failure.unwrap_err();
        assert_eq!(
            (failure.code, failure.side),
            ("exec-failed", Side::Workload)
        );
        let busy = cannot(&io::Error::from_raw_os_error(24));
        assert_eq!((busy.code, busy.side), ("exec-failed", Side::Node));
    }

    #[tokio::test]
    async fn to_start_takes_of_the_time_too() {
        let network = || Netns::current().unwrap();
        let command = ["/nonexistent/program"].map(Arc::from);
        let mut codes = Vec::new();
        // It may be faster than to look once, but not always.
        for _attempt in 0..50 {
            let failure = run(network(), &command, Duration::ZERO).await.unwrap_err();
            codes.push(failure.code);
        }
        assert!(codes.contains(&"timeout"));
    }

    /// Runs a script that starts a child and reports once no process of it is left: each holds a
    /// pipe open that is read to its end.
    async fn until_nobody_is_left(script: &str, timeout: Duration) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let script = format!("exec 9>{}; {script}", fifo.display());
        let reading = tokio::task::spawn_blocking(move || std::fs::read(fifo).unwrap());
        let result = sh(&script, timeout).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(ended.expect("no process is left").unwrap().is_empty());
        result
    }

    #[tokio::test]
    async fn nothing_outlives_the_command() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(20));
        for (name, script, timeout, want) in [
            ("in time", "sleep 60 & exit 0", long, None),
            ("failing", "sleep 60 & exit 1", long, Some("exit-status")),
            ("too slow", "sleep 60 & sleep 60", short, Some("timeout")),
        ] {
            let result = until_nobody_is_left(script, timeout).await;
            assert_eq!(result.err().map(|f| f.code), want, "{name}");
        }
    }
}
