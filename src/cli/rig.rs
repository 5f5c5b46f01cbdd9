//! `lateen rig`: fleets on one machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Subcommand;
use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::output::print;
use crate::rig::{self, RigError, RunAs, Spec, enter, hold, host, tap};

/// Build fleets of hosts on this machine.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  lateen rig up examples/quickstart/rig.toml\n  lateen rig exec edge-1/web -- ip addr\n  lateen rig down"
)]
pub enum RigCommand {
    /// Start a rig and leave it running
    Up {
        /// The description
        file: PathBuf,
        /// A name for it
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Run a command on a host of a rig, or in a namespace of that host
    Exec {
        /// The rig
        #[arg(long, default_value = "default")]
        name: String,
        /// The rig's directory, in place of its name
        #[arg(long)]
        state: Option<PathBuf>,
        /// As a program of this systemd unit, in its cgroup; where the host has `units = true`
        #[arg(long)]
        unit: Option<String>,
        /// As this user, by number
        #[arg(long)]
        user: Option<u32>,
        /// HOST or HOST/NAMESPACE
        place: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// End a rig and everything in it
    Down {
        /// The rig
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Show the rigs that are up
    List,
    /// Hold a rig: the process behind `up`
    #[command(hide = true)]
    Hold {
        /// The rig's directory
        #[arg(long)]
        state: PathBuf,
        /// Go on when standard input ends
        #[arg(long)]
        detached: bool,
    },
    /// Hold one host of a rig
    #[command(hide = true)]
    Host {
        /// The rig's directory
        #[arg(long)]
        state: PathBuf,
        /// The host
        name: String,
    },
    /// Count what crosses the link of a host, as JSON every second until standard input ends
    Tap {
        /// The rig's directory
        #[arg(long)]
        state: PathBuf,
        /// The host
        host: String,
        /// Bytes to look for in every frame
        #[arg(long, default_value = "")]
        marker: String,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(command: RigCommand) -> Result<ExitCode, Failure> {
    act(command).map_err(|e| Failure::no("rig", &e))?;
    Ok(ExitCode::SUCCESS)
}

fn act(command: RigCommand) -> Result<(), RigError> {
    match command {
        RigCommand::Up { file, name } => up(&file, &name),
        RigCommand::Exec {
            name,
            state,
            unit,
            user,
            place,
            command,
        } => {
            let state = state.unwrap_or_else(|| rig::home().join(name));
            enter::exec(&state, &place, &RunAs { unit, user }, &command)
        }
        RigCommand::Down { name } => down(&rig::home().join(name)),
        RigCommand::List => {
            list();
            Ok(())
        }
        RigCommand::Hold { state, detached } => hold::hold(&state, &own_binary()?, detached),
        RigCommand::Host { state, name } => {
            let file = state.join("rig.toml");
            let text = std::fs::read_to_string(&file)
                .map_err(|source| RigError::File { path: file, source })?;
            host::hold(&Spec::parse(&text)?, &name)
        }
        RigCommand::Tap {
            state,
            host,
            marker,
        } => watch(&state, &host, &marker),
    }
}

/// Where this program is.
pub(super) fn own_binary() -> Result<PathBuf, RigError> {
    std::env::current_exe().map_err(|source| RigError::System {
        doing: "cannot find this program's own file",
        source,
    })
}

fn up(file: &Path, name: &str) -> Result<(), RigError> {
    let text = std::fs::read_to_string(file).map_err(|source| RigError::File {
        path: file.to_owned(),
        source,
    })?;
    let spec = Spec::parse(&text)?;
    let state = rig::home().join(name);
    if let Ok(record) = rig::record(&state)
        && Path::new(&format!("/proc/{}", record.holder)).exists()
    {
        return Err(RigError::Unknown {
            what: format!("rig `{name}` is up already; end it with lateen rig down --name {name}"),
        });
    }
    let failed = |source| RigError::File {
        path: state.clone(),
        source,
    };
    std::fs::create_dir_all(&state).map_err(failed)?;
    std::fs::write(state.join("rig.toml"), &text).map_err(failed)?;
    let mut holder = Command::new(own_binary()?)
        .args(["rig", "hold", "--detached", "--state"])
        .arg(&state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Err(said) = rig::wait_ready(&mut holder) {
        let _ended = holder.wait();
        return Err(RigError::Holder { said });
    }
    outln!("rig `{name}` is up: {} hosts", spec.hosts.len());
    Ok(())
}

fn down(state: &Path) -> Result<(), RigError> {
    let record = rig::record(state)?;
    let process = format!("/proc/{}", record.holder);
    let pid = i32::try_from(record.holder).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that is gone already has taken its rig with it.
        let _gone = kill_process(pid, Signal::TERM);
    }
    for _ in 0..1000 {
        if !Path::new(&process).exists() || rig::record(state).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _gone = std::fs::remove_file(state.join("rig.json"));
    Ok(())
}

fn list() {
    let entries = std::fs::read_dir(rig::home())
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        if let Ok(record) = rig::record(&entry.path()) {
            let hosts: Vec<&str> = record.hosts.keys().map(String::as_str).collect();
            outln!(
                "{}  {}",
                entry.file_name().to_string_lossy(),
                hosts.join(" ")
            );
        }
    }
}

fn watch(state: &Path, host: &str, marker: &str) -> Result<(), RigError> {
    enter::into(state, host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RigError::System {
            doing: "cannot start",
            source,
        })?;
    runtime.block_on(tap::listen(marker, |seen| {
        let line = serde_json::to_string(seen);
        line.is_ok_and(|line| print(format_args!("{line}\n")))
    }))
}
