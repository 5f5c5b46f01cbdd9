//! Brings the quickstart mesh up, as an operator would: a control plane, tokens, two machines that
//! join, their workloads, and the programs in them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rig::{Rig, RigError};
use crate::status::Status;

const RIG: &str = include_str!("../../examples/quickstart/rig.toml");
const MESH: [(&str, &str); 2] = [
    (
        "mesh.toml",
        include_str!("../../examples/quickstart/mesh/mesh.toml"),
    ),
    (
        "shop.toml",
        include_str!("../../examples/quickstart/mesh/shop.toml"),
    ),
];
/// The machines that join.
pub const EDGES: [&str; 2] = ["edge-1", "edge-2"];
/// Where the control plane is.
const CONTROL: &str = "https://10.77.0.1:15012";
/// A text that the servers say and that nobody on the wire may see.
pub const MARKER: &str = "the-number-of-the-safe-is-7431";
/// Longest wait for a step.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between looks at whether a step is done.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a program that wait to be read; a reader that is behind loses the newest.
const LINES: usize = 1024;

/// Why the demo did not come up.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The rig did not.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// A file or program could not be used.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A command of ours said no.
    #[error("{doing} failed: {said}")]
    Command {
        /// What was being done.
        doing: String,
        /// What it said.
        said: String,
    },
    /// A step took too long.
    #[error("{waiting} did not happen within {} s; last seen: {last}", PATIENCE.as_secs())]
    Timeout {
        /// What was waited for.
        waiting: String,
        /// How it stood.
        last: String,
    },
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
    let doing = doing.into();
    move |source| DemoError::Io { doing, source }
}

/// The running fleet. Dropping it ends everything in it.
pub struct Fleet {
    programs: Vec<Program>,
    rig: Option<Rig>,
    binary: PathBuf,
    state: PathBuf,
}

/// A program whose lines are read as they come.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// The lines that have come since the last call.
    pub fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// All lines that are still to come; returns when the program has closed its output.
    pub fn finished(&self) -> Vec<String> {
        self.lines.iter().collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ended = reader.join();
        }
    }
}

impl Fleet {
    /// Brings the mesh up; `step` is told what is being done.
    ///
    /// # Errors
    /// [`DemoError`], naming the step.
    pub fn up(binary: &Path, mut step: impl FnMut(&str)) -> Result<Self, DemoError> {
        let name = format!("lateen-demo-{}", std::process::id());
        let state = std::env::temp_dir().join(name);
        fs::create_dir_all(&state).map_err(io_error(format!("making {}", state.display())))?;
        step("building three hosts");
        let rig = Rig::up(RIG, binary, &state)?;
        let mut fleet = Self {
            programs: Vec::new(),
            rig: Some(rig),
            binary: binary.to_owned(),
            state,
        };
        fleet.write_files()?;
        step("starting the control plane");
        fleet.daemon("control", "--control")?;
        fleet.wait("a first revision", |fleet| {
            let status = fleet.status("control")?;
            Ok(status.control.and_then(|c| c.revision).is_some())
        })?;
        for edge in EDGES {
            step(&format!("{edge} joins with a one-time token"));
            fleet.join(edge)?;
            fleet.daemon(edge, "--node")?;
        }
        step("capturing the workloads and fetching their certificates");
        fleet.wait("capture of four workloads", Self::settled)?;
        step("starting the programs");
        fleet.programs()?;
        fleet.wait("every endpoint to pass its probe", Self::healthy)?;
        Ok(fleet)
    }

    /// Where the logs are.
    pub fn state(&self) -> &Path {
        &self.state
    }

    fn rig(&self) -> Result<&Rig, DemoError> {
        self.rig.as_ref().ok_or_else(|| DemoError::Command {
            doing: "using the rig".to_owned(),
            said: "it is down".to_owned(),
        })
    }

    fn write_files(&self) -> Result<(), DemoError> {
        let mesh = self.state.join("mesh");
        fs::create_dir_all(&mesh).map_err(io_error("making the mesh directory"))?;
        for (name, text) in MESH {
            fs::write(mesh.join(name), text).map_err(io_error(format!("writing {name}")))?;
        }
        for host in ["control", "edge-1", "edge-2"] {
            // A user of its own for the proxy, as a number so that this machine need not know it.
            let text = format!(
                "node = \"{host}\"\nuser = 1337\nstate-dir = \"/run/lateen-state\"\n\n\
                 [control]\naddresses = [\"{CONTROL}\"]\nnames = [\"10.77.0.1\", \"fd77::1\"]\n\
                 mesh-dir = \"{}\"\n",
                mesh.display()
            );
            let path = self.config(host);
            fs::write(&path, text).map_err(io_error(format!("writing {}", path.display())))?;
        }
        Ok(())
    }

    fn config(&self, host: &str) -> PathBuf {
        self.state.join(host).join("lateen.toml")
    }

    /// A command of lateen's own on a host, with that host's settings.
    fn lateen(&self, host: &str, arguments: &[&str]) -> Result<Command, DemoError> {
        let binary = self.binary.display().to_string();
        let mut command = self.rig()?.command(host, None, &binary);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config(host));
        Ok(command)
    }

    fn daemon(&mut self, host: &str, role: &str) -> Result<(), DemoError> {
        let log = self.state.join(host).join("lateen.log");
        let doing = format!("starting lateen on {host}");
        let file = File::create(&log).map_err(io_error(doing.clone()))?;
        let mut command = self.lateen(host, &["run", role])?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        // Ended with its host, like everything in the rig.
        let child = command.spawn().map_err(io_error(doing))?;
        let (_none, lines) = sync_channel(1);
        self.programs.push(Program {
            child,
            lines,
            reader: None,
        });
        Ok(())
    }

    fn output(&self, doing: &str, command: &mut Command, input: &str) -> Result<String, DemoError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error(doing))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input says why on its way out.
            let _closed = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(io_error(doing))?;
        match output.stdout.is_empty() && !output.status.success() {
            false => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            true => Err(DemoError::Command {
                doing: doing.to_owned(),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    fn join(&self, edge: &str) -> Result<(), DemoError> {
        let mut create = self.lateen("control", &["token", "create", edge])?;
        let token = self.output("making a token", &mut create, "")?;
        let mut join = self.lateen(edge, &["join", CONTROL, "--token-file", "-"])?;
        self.output(&format!("joining {edge}"), &mut join, &token)?;
        Ok(())
    }

    /// The status of a host's lateen.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, host: &str) -> Result<Status, DemoError> {
        let mut command = self.lateen(host, &["status", "-o", "json"])?;
        let text = self.output(&format!("asking {host}"), &mut command, "")?;
        serde_json::from_str(&text).map_err(|e| DemoError::Command {
            doing: format!("asking {host}"),
            said: e.to_string(),
        })
    }

    /// Whether every workload is captured and every node has the revision that says so.
    fn settled(&self) -> Result<bool, DemoError> {
        let Some(control) = self.status("control")?.control else {
            return Ok(false);
        };
        let there = |n: &crate::status::NodeLine| n.captured == 2 && n.revision == control.revision;
        if control.nodes.len() != EDGES.len() || !control.nodes.iter().all(there) {
            return Ok(false);
        }
        for edge in EDGES {
            let node = self.status(edge)?.node;
            let ready = node.is_some_and(|n| {
                n.revision == control.revision && n.certificates.iter().all(|c| c.serial.is_some())
            });
            if !ready {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether every endpoint is given traffic, and every node knows.
    fn healthy(&self) -> Result<bool, DemoError> {
        let control = self.status("control")?.control;
        let all =
            |c: crate::status::ControlStatus| c.endpoints.iter().all(|e| e.healthy == e.total);
        Ok(control.is_some_and(all) && self.settled()?)
    }

    fn wait(
        &self,
        waiting: &str,
        done: impl Fn(&Self) -> Result<bool, DemoError>,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match done(self) {
                Ok(true) => return Ok(()),
                Ok(false) => "not yet".to_owned(),
                Err(e) => e.to_string(),
            };
            if Instant::now() >= deadline {
                let waiting = waiting.to_owned();
                return Err(DemoError::Timeout { waiting, last });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn programs(&mut self) -> Result<(), DemoError> {
        let own = self.binary.display().to_string();
        let server = |name| {
            vec![
                "sample",
                "http-server",
                "--listen",
                "[::]:8080",
                "--name",
                name,
                "--text",
                MARKER,
            ]
        };
        for (host, namespace, arguments) in [
            ("edge-1", "cart-1", server("cart-1")),
            ("edge-2", "cart-2", server("cart-2")),
            (
                "edge-2",
                "ledger",
                vec!["sample", "tcp-echo", "--listen", "[::]:7000"],
            ),
        ] {
            let program = self.program(host, Some(namespace), &own, &arguments)?;
            self.programs.push(program);
        }
        self.wait("the programs to listen", |fleet| {
            let probe = |host: &str, namespace: &str, port: &str| -> Result<bool, DemoError> {
                let arguments = ["sample", "tcp-many", port];
                let mut command = fleet.rig()?.command(host, Some(namespace), &own);
                let output = command.args(arguments).output();
                let output = output.map_err(io_error("probing a program"))?;
                // A server that speaks another language still counts as one that listens.
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(!said.contains("refused"))
            };
            Ok(probe("edge-2", "ledger", "127.0.0.1:7000")?
                && listens(fleet.rig()?, "edge-1", "cart-1", &own)?
                && listens(fleet.rig()?, "edge-2", "cart-2", &own)?)
        })
    }

    /// Starts a program in the rig and reads its lines.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn program(
        &self,
        host: &str,
        namespace: Option<&str>,
        program: &str,
        arguments: &[&str],
    ) -> Result<Program, DemoError> {
        let mut command = self.rig()?.command(host, namespace, program);
        command.args(arguments).stdin(Stdio::null());
        read_lines(command)
    }

    /// Starts the tap on the link of `edge-1`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn tap(&self) -> Result<Program, DemoError> {
        let mut command = Command::new(&self.binary);
        command
            .args(["rig", "tap", "--state"])
            .arg(self.rig()?.state())
            .args([EDGES[0], "--marker", MARKER])
            // Open for as long as we are.
            .stdin(Stdio::piped());
        read_lines(command)
    }

    /// The metrics page of an edge.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, edge: &str) -> Result<String, DemoError> {
        let own = self.binary.display().to_string();
        let mut command = self.rig()?.command(edge, None, &own);
        command.args([
            "sample",
            "http-client",
            "127.0.0.1:15020",
            "--path",
            "/metrics",
            "--count",
            "1",
        ]);
        self.output(&format!("asking {edge} for metrics"), &mut command, "")
    }

    /// Where this program is.
    pub fn binary(&self) -> String {
        self.binary.display().to_string()
    }
}

fn listens(rig: &Rig, host: &str, namespace: &str, own: &str) -> Result<bool, DemoError> {
    let mut command = rig.command(host, Some(namespace), own);
    command.args(["sample", "http-client", "127.0.0.1:8080", "--count", "1"]);
    let output = command.output().map_err(io_error("probing a program"))?;
    Ok(output.status.success())
}

fn read_lines(mut command: Command) -> Result<Program, DemoError> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(io_error("starting a program"))?;
    let stdout = child.stdout.take();
    let (tell, lines): (SyncSender<String>, Receiver<String>) = sync_channel(LINES);
    let reader = stdout.map(|stdout| {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Err(TrySendError::Disconnected(_)) = tell.try_send(line) {
                    return;
                }
            }
        })
    });
    Ok(Program {
        child,
        lines,
        reader,
    })
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.programs.clear();
        drop(self.rig.take());
        let _gone = fs::remove_dir_all(&self.state);
    }
}
