//! Whole fleets on one machine: hosts as network namespaces, for the demo, the tests and the
//! benchmarks (DESIGN §10).
//!
//! A rig is a tree of processes. The holder owns a switch; each host is a child of it with
//! namespaces of its own; workloads' namespaces are named inside their host. When the holder ends,
//! however it ends, all of it is gone. As an ordinary user everything lives in a user namespace.

mod cgroups;
pub mod enter;
pub mod hold;
pub mod host;
pub mod spec;
pub mod tap;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

pub use spec::{RunAs, Spec, SpecError};

/// What a holder writes down for those who enter its rig.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The holder.
    pub holder: u32,
    /// Hosts by name.
    pub hosts: BTreeMap<String, HostRecord>,
}

/// One host of a running rig.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostRecord {
    /// The process that holds its namespaces.
    pub pid: u32,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The namespaces of its workloads.
    pub namespaces: Vec<String>,
}

/// Why a rig is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// The description is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file could not be read or written.
    #[error("{}: cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel forbids what a rig is made of.
    #[error("{what} is forbidden here: {remedy}")]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// The command line.
        command: String,
        /// Its standard error.
        said: String,
    },
    /// A command to run inside a rig could not be started.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The holder did not come up.
    #[error("{said}")]
    Holder {
        /// What it said.
        said: String,
    },
    /// No such rig or host.
    #[error("{what}")]
    Unknown {
        /// What is not there.
        what: String,
    },
    /// A system call failed.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RigError {
    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

/// Where rigs of this user are kept.
pub fn home() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("lateen-rigs-{uid}"))
}

/// Reads what a holder wrote down.
///
/// # Errors
/// [`RigError::Unknown`] when there is no such rig.
pub fn record(state: &Path) -> Result<Record, RigError> {
    let text = fs::read_to_string(state.join("rig.json"));
    let text = text.map_err(|_absent| RigError::Unknown {
        what: format!(
            "no rig is up at {}; start one with lateen rig up",
            state.display()
        ),
    })?;
    serde_json::from_str(&text).map_err(|e| RigError::File {
        path: state.join("rig.json"),
        source: e.into(),
    })
}

/// A rig that lives as long as this value.
#[derive(Debug)]
pub struct Rig {
    holder: Child,
    state: PathBuf,
    binary: PathBuf,
    record: Record,
}

impl Rig {
    /// Builds a rig from the text of a `rig.toml`. `binary` is lateen itself; `state` is a directory
    /// for the rig's files.
    ///
    /// # Errors
    /// [`RigError`], in one line that says what is missing or forbidden.
    pub fn up(spec: &str, binary: &Path, state: &Path) -> Result<Self, RigError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RigError::File { path, source }
        };
        fs::create_dir_all(state).map_err(failed(state))?;
        let file = state.join("rig.toml");
        fs::write(&file, spec).map_err(failed(&file))?;
        let mut holder = Command::new(binary)
            .args(["rig", "hold", "--state"])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed(binary))?;
        if let Err(said) = wait_ready(&mut holder) {
            // The holder has said why and is on its way out.
            let _ended = holder.wait();
            return Err(RigError::Holder { said });
        }
        let record = record(state)?;
        Ok(Self {
            holder,
            state: state.to_owned(),
            binary: binary.to_owned(),
            record,
        })
    }

    /// A command inside a host, or one of its workloads' namespaces.
    pub fn command(&self, host: &str, namespace: Option<&str>, program: &str) -> Command {
        let place = match namespace {
            Some(namespace) => format!("{host}/{namespace}"),
            None => host.to_owned(),
        };
        self.exec(&place, &RunAs::default(), program)
    }

    /// A command on a host's own network, as somebody.
    pub fn command_as(&self, host: &str, identity: &RunAs, program: &str) -> Command {
        self.exec(host, identity, program)
    }

    fn exec(&self, place: &str, identity: &RunAs, program: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["rig", "exec", "--state"])
            .arg(&self.state)
            .args(identity.arguments())
            .args([place, "--", program]);
        command
    }

    /// The rig's directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What is in it.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The end of its input is what the holder waits for.
        drop(self.holder.stdin.take());
        let _ended = self.holder.wait();
        let _gone = fs::remove_file(self.state.join("rig.json"));
    }
}

/// Waits for a holder's word that its rig is up; what it said instead otherwise.
pub fn wait_ready(holder: &mut Child) -> Result<(), String> {
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.as_mut() {
        let _broken_reads_as_empty = BufReader::new(stdout).read_line(&mut line);
    }
    if line.trim() == "ready" {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = holder.stderr.as_mut() {
        let _broken_reads_as_empty = stderr.read_to_string(&mut said);
    }
    let said = said.trim().trim_start_matches("lateen: ");
    Err(match said.is_empty() {
        true => "the rig's holder ended without a word".to_owned(),
        false => said.to_owned(),
    })
}
