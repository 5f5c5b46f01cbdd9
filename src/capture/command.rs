//! Runs a command on a workload's network to its end, or to the end of its time.
//!
//! It has none of this process's powers, and a process group of its own that is killed when time is
//! up, and when the command has exited: what it leaves behind would add up. What has left the group
//! by setsid survives.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::netns::Netns;
use super::spawn::spawn;
use crate::sys;

/// Bytes kept of what a command says.
const OUTPUT: usize = 4 << 10;
/// Longest wait for the rest of its output once it has exited: something that left its group may
/// hold the pipe open.
const REST: Duration = Duration::from_millis(50);
/// Where commands that are not paths are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a command ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Whether it exited with 0.
    pub success: bool,
    /// How it exited, in words.
    pub status: String,
    /// The first 4 KiB of what it said, errors included.
    pub said: String,
}

/// Runs a command once; `None` where it takes longer than `timeout`, to be started included.
///
/// # Cancel safety
/// Dropping the future kills the command.
///
/// # Errors
/// When the namespace may not be entered, or the program not started.
pub(crate) async fn run(
    ns: Netns,
    command: &[Arc<str>],
    timeout: Duration,
) -> io::Result<Option<Ran>> {
    let running = async {
        let (group, mut output) = start(ns, command).await?;
        finish(group, &mut output).await
    };
    match tokio::time::timeout(timeout, running).await {
        Ok(ran) => ran.map(Some),
        Err(_elapsed) => Ok(None),
    }
}

async fn start(ns: Netns, command: &[Arc<str>]) -> io::Result<(Group, pipe::Receiver)> {
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
    let group = spawn(ns, command, Group).await?;
    let output = pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((group, output))
}

async fn finish(mut group: Group, output: &mut pipe::Receiver) -> io::Result<Ran> {
    let mut said = Vec::with_capacity(OUTPUT);
    tokio::select! {
        exited = group.exited() => exited?,
        () = listen(output, &mut said) => group.exited().await?,
    }
    let status = group.end().await?;
    // What it said last is in the pipe.
    let _cut_off = tokio::time::timeout(REST, listen(output, &mut said)).await;
    Ok(Ran {
        success: status.success(),
        status: status.to_string(),
        said: String::from_utf8_lossy(&said).trim().to_owned(),
    })
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
