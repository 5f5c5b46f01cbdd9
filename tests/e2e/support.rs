//! The shared rig, and how cases talk to it.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lateen::rig::tap::Seen;
use lateen::rig::{Rig, RunAs};
use lateen::status::{NodeLine, Status};

/// The binary under test.
pub(crate) const LATEEN: &str = env!("CARGO_BIN_EXE_lateen");
/// What the servers say and nobody on the wire may see.
pub(crate) const MARKER: &str = "the-secret-of-the-e2e-rig";
/// The control plane.
pub(crate) const CONTROL: &str = "https://10.77.0.1:15012";
/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

const RIG: &str = r#"
[[host]]
name = "control"
addresses = ["10.77.0.1/16", "fd77::1/64"]

[[host]]
name = "edge-1"
addresses = ["10.77.0.11/16", "fd77::11/64"]
[[host.namespace]]
name = "web"
addresses = ["10.77.1.11/16", "fd77::1:11/64"]
[[host.namespace]]
name = "cart-1"
addresses = ["10.77.1.12/16", "fd77::1:12/64"]

[[host]]
name = "edge-2"
addresses = ["10.77.0.12/16", "fd77::12/64"]
[[host.namespace]]
name = "cart-2"
addresses = ["10.77.2.12/16", "fd77::2:12/64"]
[[host.namespace]]
name = "ledger"
addresses = ["10.77.2.13/16", "fd77::2:13/64"]

[[host]]
name = "outside"
addresses = ["10.77.0.99/16", "fd77::99/64"]
"#;

/// Waits until `done` holds; fails with what was last seen.
pub(crate) fn eventually<T: std::fmt::Debug>(what: &str, done: impl FnMut() -> Result<(), T>) {
    within(PATIENCE, what, done);
}

/// The same, for what takes another time than most.
pub(crate) fn within<T: std::fmt::Debug>(
    patience: Duration,
    what: &str,
    mut done: impl FnMut() -> Result<(), T>,
) {
    let deadline = Instant::now() + patience;
    loop {
        let last = match done() {
            Ok(()) => return,
            Err(last) => last,
        };
        assert!(Instant::now() < deadline, "{what}: last seen {last:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether tunnels of all meshes go over QUIC (`LATEEN_TRANSPORT=quic`), else over TCP.
#[allow(
    clippy::disallowed_methods,
    reason = "a test binary has no flags of its own"
)]
pub(crate) fn quic() -> bool {
    match std::env::var("LATEEN_TRANSPORT").as_deref() {
        Ok("quic") => true,
        Ok("tcp") | Err(_) => false,
        Ok(other) => panic!("LATEEN_TRANSPORT is `tcp` or `quic`, not {other:?}"),
    }
}

/// What tunnels are on the wire.
pub(crate) fn tunnels() -> &'static str {
    match quic() {
        true => "udp/15008",
        false => "tcp/15008",
    }
}

/// The hosts that run lateen, and the roles of each.
pub(crate) type Roles = &'static [(&'static str, &'static [&'static str])];

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("edge-1", &["--node"]),
    ("edge-2", &["--node"]),
];

/// The running mesh.
pub(crate) struct Testbed {
    rig: Rig,
    roles: Roles,
    daemons: Vec<(String, Option<Child>)>,
    programs: Vec<Child>,
}

/// A rig, for one case. Cases take turns: some of them break theirs on purpose, or watch the clock.
pub(crate) struct Turn {
    testbed: MutexGuard<'static, Testbed>,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    /// The next turn, on the rig that `testbed` is to hold.
    pub(crate) fn on(testbed: &'static OnceLock<Mutex<Testbed>>, start: fn() -> Testbed) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let testbed = testbed.get_or_init(|| Mutex::new(start()));
        Self {
            testbed: testbed.lock().unwrap_or_else(PoisonError::into_inner),
            _turn: turn,
        }
    }
}

impl Deref for Turn {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.testbed
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Testbed {
        &mut self.testbed
    }
}

/// The rig that most cases share.
pub(crate) fn testbed() -> Turn {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let mut testbed = Turn::on(&TESTBED, Testbed::start);
    testbed.mend();
    testbed
}

impl Testbed {
    fn start() -> Self {
        Self::ready("e2e", RIG)
    }

    /// The same on links that take packets of so many bytes.
    pub(crate) fn with_mtu(mtu: u32) -> Self {
        let links =
            ["edge-1", "edge-2"].map(|host| format!("[[link]]\nhost = \"{host}\"\nmtu = {mtu}\n"));
        Self::ready(&format!("e2e-{mtu}"), &(RIG.to_owned() + &links.concat()))
    }

    fn ready(name: &str, rig: &str) -> Self {
        let mut testbed = Self::up(name, rig, ROLES);
        testbed.write_mesh();
        testbed.run();
        testbed.programs();
        eventually("every endpoint passes its probe", || {
            let control = testbed.status("control").and_then(|s| s.control);
            match control {
                Some(c) if c.endpoints.iter().all(|e| e.healthy == e.total) => Ok(()),
                other => Err(other),
            }
        });
        testbed
    }

    /// Hosts with their settings, on which nothing runs yet.
    pub(crate) fn up(name: &str, rig: &str, roles: Roles) -> Self {
        // Logs of earlier runs are of no more use.
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _none_yet = fs::remove_dir_all(&home);
        let state = home.join(std::process::id().to_string());
        let rig = Rig::up(rig, Path::new(LATEEN), &state).expect("a rig can be built here");
        let testbed = Self {
            rig,
            roles,
            daemons: Vec::new(),
            programs: Vec::new(),
        };
        testbed.write_config();
        testbed
    }

    /// Starts the control plane, and has the others join and start.
    pub(crate) fn run(&mut self) {
        self.daemon("control");
        eventually("a first revision", || match self.status("control") {
            Some(Status {
                control: Some(c), ..
            }) if c.revision.is_some() => Ok(()),
            other => Err(other),
        });
        for (host, _) in self.roles.iter().filter(|(host, _)| *host != "control") {
            let token = self.token(host);
            let joined = self.join(host, &token, &[]);
            assert!(joined.status.success(), "{joined:?}");
            self.daemon(host);
        }
    }

    /// Starts again what a case has ended, and waits until the mesh is whole.
    fn mend(&mut self) {
        self.write_mesh();
        for host in ["control", "edge-1", "edge-2"] {
            self.daemon(host);
        }
        self.settled();
    }

    pub(crate) fn settled(&self) {
        let written = self.last_written();
        // Between a reading and its revision lies a moment; a revision that stays is the one.
        let mut seen = (None, 0);
        eventually("every workload captured, every node up to date", || {
            let control = self.status("control").and_then(|s| s.control).ok_or(None)?;
            seen = match control.read >= Some(written) && seen.0 == control.revision {
                true => (control.revision, seen.1 + 1),
                false => (control.revision, 0),
            };
            if seen.1 < 5 {
                return Err(Some(control));
            }
            let there = |n: &NodeLine| n.captured == 2 && n.revision == control.revision;
            let same = |edge: &str| {
                let node = self.status(edge).and_then(|s| s.node);
                node.is_some_and(|n| {
                    n.revision == control.revision
                        && n.workloads.iter().all(|w| w.capture == "captured")
                        && n.certificates.len() >= 2
                        && n.certificates.iter().all(|c| c.serial.is_some())
                })
            };
            let done = control.nodes.iter().all(there) && !control.stale;
            match done && same("edge-1") && same("edge-2") {
                true => Ok(()),
                false => Err(Some(control)),
            }
        });
    }

    /// When a mesh file was last written, in milliseconds since 1970.
    pub(crate) fn last_written(&self) -> u64 {
        let files = fs::read_dir(self.mesh_dir()).unwrap().flatten();
        let times = files.map(|f| f.metadata().unwrap().modified().unwrap());
        let since = times.map(|t| t.duration_since(std::time::UNIX_EPOCH).unwrap());
        u64::try_from(since.max().unwrap().as_millis()).unwrap()
    }

    pub(crate) fn state(&self) -> &Path {
        self.rig.state()
    }

    pub(crate) fn mesh_dir(&self) -> PathBuf {
        self.state().join("mesh")
    }

    pub(crate) fn config(&self, host: &str) -> PathBuf {
        self.state().join(host).join("lateen.toml")
    }

    pub(crate) fn log(&self, host: &str) -> String {
        fs::read_to_string(self.state().join(host).join("lateen.log")).unwrap_or_default()
    }

    /// Waits for a line of a host's log that holds all of `parts`.
    pub(crate) fn logged(&self, host: &str, parts: &[&str]) {
        eventually(&format!("{host} logs {parts:?}"), || {
            let log = self.log(host);
            let line = log
                .lines()
                .find(|line| parts.iter().all(|p| line.contains(p)));
            line.map(|_| ()).ok_or_else(|| {
                let skip = log.lines().count().saturating_sub(8);
                log.lines()
                    .skip(skip)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
        });
    }

    fn write_config(&self) {
        fs::create_dir_all(self.mesh_dir()).unwrap();
        for (host, _) in self.roles {
            let text = format!(
                "node = \"{host}\"\nuser = 1337\nstate-dir = \"{}\"\n\n[control]\naddresses = [\"{CONTROL}\"]\n\
                 names = [\"10.77.0.1\"]\nmesh-dir = \"{}\"\n",
                if *host == "control" {
                    self.control_state().display().to_string()
                } else {
                    "/run/lateen-state".to_owned()
                },
                self.mesh_dir().display(),
            );
            fs::write(self.config(host), text).unwrap();
        }
    }

    /// The control plane's state, where cases can reach it.
    pub(crate) fn control_state(&self) -> PathBuf {
        self.state().join("control-state")
    }

    fn write_mesh(&self) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/mesh");
        for name in ["mesh.toml", "shop.toml"] {
            let text = fs::read_to_string(examples.join(name)).unwrap();
            self.write_mesh_file(name, &text);
        }
        // What a case has added is not of the next one's mesh.
        let added = self.mesh_dir().join("policy.toml");
        let _none_was = fs::remove_file(added);
    }

    /// Replaces a mesh file as an editor does; nothing is written when it holds the text already.
    pub(crate) fn write_mesh_file(&self, name: &str, text: &str) {
        let path = self.mesh_dir().join(name);
        let text = match quic() {
            true => &text.replacen("[mesh]\n", "[mesh]\ntransport = \"quic\"\n", 1),
            false => text,
        };
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            return;
        }
        let aside = self.mesh_dir().join(format!(".{name}.swp"));
        fs::write(&aside, text).unwrap();
        fs::rename(&aside, &path).unwrap();
    }

    /// Runs lateen on a host with that host's settings.
    pub(crate) fn lateen(&self, host: &str, arguments: &[&str]) -> Output {
        self.lateen_with(host, arguments, "")
    }

    pub(crate) fn lateen_with(&self, host: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = self.rig.command(host, None, LATEEN);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config(host));
        run(&mut command, input)
    }

    /// Runs a command in `HOST` or a namespace of it.
    pub(crate) fn exec(&self, host: &str, namespace: Option<&str>, command: &[&str]) -> Output {
        let mut inside = self.rig.command(host, namespace, command[0]);
        run(inside.args(&command[1..]), "")
    }

    pub(crate) fn token(&self, node: &str) -> String {
        let made = self.lateen("control", &["token", "create", node, "--replace"]);
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    }

    pub(crate) fn join(&self, host: &str, token: &str, more: &[&str]) -> Output {
        let mut arguments = vec!["join", CONTROL, "--token-file", "-"];
        arguments.extend(more);
        self.lateen_with(host, &arguments, token)
    }

    pub(crate) fn status(&self, host: &str) -> Option<Status> {
        let asked = self.lateen(host, &["status", "-o", "json"]);
        serde_json::from_slice(&asked.stdout).ok()
    }

    /// Starts a host's lateen unless it runs.
    pub(crate) fn daemon(&mut self, host: &str) {
        let running = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_none());
        if let Some((_, Some(child))) = self.daemons.iter_mut().find(|(name, _)| name == host)
            && running(child)
        {
            return;
        }
        self.daemons.retain(|(name, _)| name != host);
        let log = self.state().join(host).join("lateen.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let (_, roles) = self.roles.iter().find(|(name, _)| *name == host).unwrap();
        let mut command = self.rig.command(host, None, LATEEN);
        command.arg("run").args(*roles);
        command.arg("--config").arg(self.config(host));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().unwrap();
        self.daemons.push((host.to_owned(), Some(child)));
    }

    /// The process of a host's lateen.
    pub(crate) fn process(&self, host: &str) -> u32 {
        let found = self.daemons.iter().find(|(name, _)| name == host);
        let (_, child) = found.expect("the daemon was started");
        child.as_ref().expect("it runs").id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, host: &str) {
        let found = self.daemons.iter_mut().find(|(name, _)| name == host);
        let (_, slot) = found.expect("the daemon was started");
        let mut child = slot.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self, host: &str) {
        let found = self.daemons.iter().find(|(name, _)| name == host);
        let (_, child) = found.expect("the daemon was started");
        let pid = child.as_ref().expect("it runs").id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until a stopped daemon has ended by itself, in order.
    pub(crate) fn ended(&mut self, host: &str) {
        let found = self.daemons.iter_mut().find(|(name, _)| name == host);
        let (_, slot) = found.expect("the daemon was started");
        let mut child = slot.take().expect("it ran");
        eventually("the daemon ends", || match child.try_wait().unwrap() {
            Some(status) if status.success() => Ok(()),
            other => Err(other),
        });
    }

    /// A program that is talked to line by line.
    pub(crate) fn session(&self, host: &str, namespace: Option<&str>, command: &[&str]) -> Session {
        let mut inside = self.rig.command(host, namespace, command[0]);
        let inside = inside.args(&command[1..]).stdin(Stdio::piped());
        let mut child = inside.stdout(Stdio::piped()).spawn().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Session { child, output }
    }

    /// Runs a command on a host's own network, as somebody.
    pub(crate) fn exec_as(&self, host: &str, identity: &RunAs, command: &[&str]) -> Output {
        let mut inside = self.rig.command_as(host, identity, command[0]);
        run(inside.args(&command[1..]), "")
    }

    /// Starts a program there, which runs until it or the rig ends.
    pub(crate) fn program_as(&self, host: &str, identity: &RunAs, command: &[&str]) -> Child {
        let mut inside = self.rig.command_as(host, identity, command[0]);
        let inside = inside.args(&command[1..]).stdin(Stdio::null());
        let inside = inside.stdout(Stdio::null()).stderr(Stdio::null());
        inside.spawn().unwrap()
    }

    /// Starts a program that runs until the rig ends.
    pub(crate) fn program(&mut self, host: &str, namespace: Option<&str>, command: &[&str]) {
        let mut inside = self.rig.command(host, namespace, command[0]);
        let inside = inside.args(&command[1..]).stdin(Stdio::null());
        let inside = inside.stdout(Stdio::null()).stderr(Stdio::null());
        self.programs.push(inside.spawn().unwrap());
    }

    fn programs(&mut self) {
        let server = |name| {
            let words = [
                "sample",
                "http-server",
                "--listen",
                "[::]:8080",
                "--name",
                name,
                "--text",
                MARKER,
            ];
            [&[LATEEN][..], &words[..]].concat()
        };
        let echo = vec![LATEEN, "sample", "tcp-echo", "--listen", "[::]:7000"];
        for (host, namespace, command) in [
            ("edge-1", Some("cart-1"), server("cart-1")),
            ("edge-2", Some("cart-2"), server("cart-2")),
            ("edge-2", Some("ledger"), echo),
            ("outside", None, server("outside")),
        ] {
            self.program(host, namespace, &command);
        }
        for (host, namespace) in [
            ("edge-1", Some("cart-1")),
            ("edge-2", Some("cart-2")),
            ("outside", None),
        ] {
            eventually("a server listens", || {
                let asked = self.ask(host, namespace, "127.0.0.1:8080", 1);
                match asked.as_slice() {
                    [answer] if answer.contains("server") => Ok(()),
                    _ => Err(asked),
                }
            });
        }
    }

    /// Asks an HTTP server `count` times; the answers, one a line.
    pub(crate) fn ask(
        &self,
        host: &str,
        namespace: Option<&str>,
        to: &str,
        count: usize,
    ) -> Vec<String> {
        let count = count.to_string();
        let words = [
            LATEEN,
            "sample",
            "http-client",
            to,
            "--every",
            "1",
            "--count",
            &count,
        ];
        let output = self.exec(host, namespace, &words);
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Watches the link of `edge-1` while `work` is done.
    pub(crate) fn tapped<T>(&self, work: impl FnOnce() -> T) -> (T, Seen) {
        let tap = self.tap();
        let result = work();
        (result, tap.seen())
    }

    /// Watches the link of `edge-1` from here on.
    pub(crate) fn tap(&self) -> Tap {
        let mut tap = Command::new(LATEEN);
        tap.args(["rig", "tap", "--state"])
            .arg(self.state())
            .args(["edge-1", "--marker", MARKER]);
        let mut child = tap
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first line says that it listens.
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        Tap { child, output }
    }
}

/// What watches a link.
pub(crate) struct Tap {
    child: Child,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Tap {
    /// Ends it; what it has seen.
    pub(crate) fn seen(mut self) -> Seen {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
        self.child.wait().unwrap();
        let last = rest.lines().last().expect("the tap tells what it saw");
        serde_json::from_str(last).unwrap()
    }
}

/// A running program with its input and output.
pub(crate) struct Session {
    child: Child,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Session {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.output, &mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

pub(crate) fn run(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input says why on its way out.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value of a key in a line of JSON.
pub(crate) fn field(line: &str, key: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    value[key].as_str().unwrap_or_default().to_owned()
}
