//! `lateen.toml`: one host's own settings. Every key has a default, and an empty file is valid.

mod capture;
mod control;
mod dns;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::diagnose::{Code, Diagnostic, Report};
use super::load::{TextFault, text_of};
use super::read::{self, Table, Value, scalar};
use super::source::Source;
use super::suggest;

pub use capture::{CaptureSettings, LocalCapture};
pub use control::{Bearer, Control, ControlUrl, ControlUrlError};
pub use dns::{Dns, HostNames};

/// Where the file is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lateen/lateen.toml";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads the mesh directory, serves it, signs certificates.
    Control,
    /// Captures, tunnels and polices this host's workloads.
    Node,
}

/// What tunnels are carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As the mesh says.
    Auto,
    /// HTTP/2 over TLS over TCP.
    Tcp,
}

/// How QUIC finds out how much a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// By the rate at which what was sent arrives.
    Bbr,
    /// By what is lost.
    Cubic,
}

const CONGESTIONS: [(&str, Congestion); 2] =
    [("bbr", Congestion::Bbr), ("cubic", Congestion::Cubic)];

/// How grave an event must be to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// It was coped with.
    Warn,
    /// Lifecycle.
    Info,
    /// Each connection.
    Debug,
    /// Each frame.
    Trace,
}

impl LogLevel {
    /// The word for it, as log filters take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The user a proxy's packets are known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyUser {
    /// By name.
    Name(Arc<str>),
    /// By number.
    Id(u32),
}

/// Where a process listens besides its data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Metrics; `[::]:15020` unless set.
    pub metrics: SocketAddr,
    /// Readiness; `[::]:15021` unless set.
    pub readiness: SocketAddr,
    /// Names, for programs of the host itself; `127.0.0.1:15053` unless set, none when switched off.
    pub dns: Option<SocketAddr>,
}

/// A host's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    node: Arc<str>,
    roles: BTreeSet<Role>,
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    user: ProxyUser,
    keeper_user: Option<ProxyUser>,
    drain_deadline: Duration,
    transport: Transport,
    congestion: Congestion,
    roaming: bool,
    workers: Option<u32>,
    busy_poll: bool,
    session_key_file: Option<PathBuf>,
    log_level: LogLevel,
    log_format: LogFormat,
    listeners: Listeners,
    control: Control,
    capture: CaptureSettings,
    dns: Dns,
    captures: Vec<LocalCapture>,
}

impl Config {
    /// Reads the file at `path`; without one, the file at [`DEFAULT_PATH`] if it exists. Blocks
    /// on the file system.
    ///
    /// # Errors
    /// Everything that is wrong with the file; that it is missing, when it was asked for.
    pub fn load(path: Option<&Path>) -> Result<Self, Report> {
        match path {
            Some(path) => Self::load_from(path, true),
            None => Self::load_from(Path::new(DEFAULT_PATH), false),
        }
    }

    fn load_from(path: &Path, required: bool) -> Result<Self, Report> {
        let shown = path.display().to_string();
        let text = match text_of(path) {
            Ok(text) => text,
            Err(TextFault::Unreadable(e))
                if !required && e.kind() == std::io::ErrorKind::NotFound =>
            {
                String::new()
            }
            Err(fault) => return Err(Report::from_iter([fault.told(&shown, &shown)])),
        };
        let name = rustix::system::uname();
        Self::parse(&shown, text, &name.nodename().to_string_lossy())
    }

    /// Reads a file's text; `host_name` is the node's name where the file gives none.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(shown: &str, text: String, host_name: &str) -> Result<Self, Report> {
        let source = Source::new(shown, shown, text);
        let outcome = read::document(&source, "lateen.toml", |root| read_config(root, host_name));
        match outcome.findings.is_empty() {
            true => Ok(outcome.value),
            false => Err(Report::from_iter(outcome.findings)),
        }
    }

    /// Takes for what the file does not name what the service manager has loaded (`LoadCredential=` of
    /// systemd.exec(5)): a join token, the secret of session tokens, the files of an authority.
    #[must_use]
    pub fn with_credentials(mut self, directory: &Path) -> Self {
        let loaded = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
        self.session_key_file = self.session_key_file.or_else(|| loaded("session-key"));
        self.control.take_credentials(directory);
        self
    }

    /// The keys by which `self` differs from `other`, but for the level of the log.
    pub fn changes(&self, other: &Self) -> Vec<&'static str> {
        // Named one by one, so that none is forgotten here.
        let Self {
            node,
            roles,
            state_dir,
            runtime_dir,
            user,
            keeper_user,
            drain_deadline,
            transport,
            congestion,
            roaming,
            workers,
            busy_poll,
            session_key_file,
            log_level: _,
            log_format,
            listeners,
            control,
            capture,
            dns,
            captures,
        } = self;
        let differs = [
            ("node", *node != other.node),
            ("roles", *roles != other.roles),
            ("state-dir", *state_dir != other.state_dir),
            ("runtime-dir", *runtime_dir != other.runtime_dir),
            ("user", *user != other.user),
            ("keeper-user", *keeper_user != other.keeper_user),
            ("drain-deadline", *drain_deadline != other.drain_deadline),
            ("transport", *transport != other.transport),
            ("congestion", *congestion != other.congestion),
            ("roaming", *roaming != other.roaming),
            ("workers", *workers != other.workers),
            ("busy-poll", *busy_poll != other.busy_poll),
            (
                "session-key-file",
                *session_key_file != other.session_key_file,
            ),
            ("[log] format", *log_format != other.log_format),
            ("[listen]", *listeners != other.listeners),
            ("[control]", *control != other.control),
            ("[capture]", *capture != other.capture),
            ("[dns]", *dns != other.dns),
            ("[[capture]]", *captures != other.captures),
        ];
        let changed = differs.into_iter().filter(|(_, differs)| *differs);
        changed.map(|(key, _)| key).collect()
    }

    /// The name this machine joins under; its host name unless set.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// What it does when the command line does not say; nothing unless set.
    pub fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// What must survive a reboot; `/var/lib/lateen` unless set.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Sockets and the like; `/run/lateen` unless set.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// Whom the proxy runs as; `lateen` unless set.
    pub fn user(&self) -> &ProxyUser {
        &self.user
    }

    /// Whom the keeper runs as; unless set `lateen-keeper` where there is such a user, and else the
    /// proxy's.
    pub fn keeper_user(&self) -> Option<&ProxyUser> {
        self.keeper_user.as_ref()
    }

    /// How long connections may go on after a stop; 5 s unless set.
    pub fn drain_deadline(&self) -> Duration {
        self.drain_deadline
    }

    /// Threads of the data plane, 1 to 1024; as many as fit the machine unless set.
    pub fn workers(&self) -> Option<u32> {
        self.workers
    }

    /// Whether a thread of the data plane whose next bytes are about to come waits for them awake;
    /// unless set, it does.
    pub fn busy_poll(&self) -> bool {
        self.busy_poll
    }

    /// The file with the secret that instances of this host's waypoints share; none unless set.
    pub fn session_key_file(&self) -> Option<&Path> {
        self.session_key_file.as_deref()
    }

    /// What tunnels are carried over; `auto` unless set.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// How QUIC finds out how much a path takes; `bbr` unless set.
    pub fn congestion(&self) -> Congestion {
        self.congestion
    }

    /// Whether tunnels by QUIC outlive a change of the peer's address; unless set, they do not.
    pub fn roaming(&self) -> bool {
        self.roaming
    }

    /// How grave an event must be to be logged; `info` unless set.
    pub fn log_level(&self) -> LogLevel {
        self.log_level
    }

    /// How log lines are written; `text` unless set.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Where it listens besides the data path.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// The `[control]` table.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How capture goes about here.
    pub fn capture(&self) -> &CaptureSettings {
        &self.capture
    }

    /// The `[dns]` table.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// The workloads of this host, where its control plane does not place them.
    pub fn captures(&self) -> &[LocalCapture] {
        &self.captures
    }
}

const DAY: Duration = Duration::from_secs(86_400);

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

fn read_config(root: &Table<'_>, host_name: &str) -> Config {
    let node = node(root, host_name);
    let roles = root.optional("roles", |value| value.list(role));
    let drain = |value: &Value<'_>| scalar::duration(value, Duration::ZERO..=DAY);
    let (log_level, log_format) = log(root);
    let listeners = listeners(root);
    let control = match root.value("control") {
        Some(value) => control::read(&value, &node),
        None => Control::named(&node),
    };
    let (capture, captures) = capture::read(root, control.bearer().is_some());
    Config {
        roles: roles.into_iter().flatten().collect(),
        state_dir: directory(root, "state-dir", "/var/lib/lateen"),
        runtime_dir: directory(root, "runtime-dir", "/run/lateen"),
        user: root
            .optional("user", user)
            .unwrap_or_else(|| ProxyUser::Name(Arc::from("lateen"))),
        keeper_user: root.optional("keeper-user", user),
        drain_deadline: root
            .optional("drain-deadline", drain)
            .unwrap_or(Duration::from_secs(5)),
        transport: root
            .optional("transport", transport)
            .unwrap_or(Transport::Auto),
        congestion: root
            .optional("congestion", |value| scalar::choice(value, &CONGESTIONS))
            .unwrap_or(Congestion::Bbr),
        roaming: root.optional("roaming", Value::boolean).unwrap_or(false),
        workers: root.optional("workers", |value| value.count(1..=1024)),
        busy_poll: root.optional("busy-poll", Value::boolean).unwrap_or(true),
        session_key_file: root.optional("session-key-file", path),
        log_level,
        log_format,
        dns: dns::read(root, control.bearer().is_some(), listeners.dns.is_some()),
        listeners,
        capture,
        captures,
        control,
        node,
    }
}

/// A host name is no mesh name where it has capitals, underscores or a dot at its end.
fn node(root: &Table<'_>, host_name: &str) -> Arc<str> {
    if let Some(value) = root.value("node") {
        let name = scalar::name(&value);
        return name.map_or_else(|| Arc::from(""), |name| name.value);
    }
    let name = host_name
        .trim_end_matches('.')
        .to_lowercase()
        .replace('_', "-");
    if let Some(fault) = scalar::name_fault(&name) {
        let message = format!("the host name {host_name:?} cannot be this node's name: it {fault}");
        let finding = Diagnostic::new(Code::BadName, root.place().clone(), message);
        root.report(finding.help("add `node = \"NAME\"`, the name of its `[[node]]` in the mesh"));
    }
    Arc::from(name)
}

fn role(value: &Value<'_>) -> Option<Role> {
    match value.text()? {
        "waypoint" => {
            value.unsupported(
                "write `\"control\"`, `\"node\"` or both; which waypoint it is says `lateen run --waypoint NAMESPACE/NAME`",
            );
            None
        }
        _ => scalar::choice(value, &[("control", Role::Control), ("node", Role::Node)]),
    }
}

fn transport(value: &Value<'_>) -> Option<Transport> {
    match value.text()? {
        "quic" => {
            value.unsupported(
                "write `\"auto\"` or `\"tcp\"`; that tunnels go over QUIC alone the mesh says, of a node say",
            );
            None
        }
        _ => scalar::choice(value, &[("auto", Transport::Auto), ("tcp", Transport::Tcp)]),
    }
}

fn log(root: &Table<'_>) -> (LogLevel, LogFormat) {
    let (mut level, mut format) = (None, None);
    if let Some(table) = root.optional("log", |value| value.titled("`[log]`")) {
        level = table.optional("level", |value| scalar::choice(value, &LEVELS));
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        format = table.optional("format", |value| scalar::choice(value, &formats));
        table.finish();
    }
    (
        level.unwrap_or(LogLevel::Info),
        format.unwrap_or(LogFormat::Text),
    )
}

fn listeners(root: &Table<'_>) -> Listeners {
    let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    let mut listeners = Listeners {
        metrics: any(15020),
        readiness: any(15021),
        dns: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15053)),
    };
    let Some(table) = root.optional("listen", |value| value.titled("`[listen]`")) else {
        return listeners;
    };
    if let Some(metrics) = table.optional("metrics", socket_address) {
        listeners.metrics = metrics;
    }
    if let Some(readiness) = table.optional("readiness", socket_address) {
        listeners.readiness = readiness;
    }
    if let Some(dns) = table.optional("dns", dns::listen) {
        listeners.dns = dns;
    }
    table.finish();
    listeners
}

fn socket_address(value: &Value<'_>) -> Option<SocketAddr> {
    scalar::parsed(value, "an address with a port", "[::]:15020")
}

fn directory(table: &Table<'_>, key: &'static str, default: &str) -> PathBuf {
    let own = |value: &Value<'_>| path(value).filter(|path| own(value, path, default));
    let path = table.optional(key, own);
    path.unwrap_or_else(|| PathBuf::from(default))
}

/// Directories of everybody, beside those right below the root.
const SHARED: [&str; 7] = [
    "/var/lib",
    "/var/run",
    "/var/tmp",
    "/var/cache",
    "/var/log",
    "/usr/local",
    "/run/user",
];

/// Whether a directory may be lateen's own, as `example` is: started as root, a node gives all that is in it
/// to the proxy's user.
fn own(value: &Value<'_>, path: &Path, example: &str) -> bool {
    let steps = path.components().skip(1);
    let shared = steps.count() < 2 || SHARED.iter().any(|shared| path == Path::new(shared));
    // From `..` nobody sees where it leads.
    let up = path.components().any(|step| step == Component::ParentDir);
    if shared || up {
        value.bad(
            "is no directory of lateen's own",
            "what else is in it?",
            format!("write one that nothing else uses, as in `\"{example}\"`"),
        );
    }
    !shared && !up
}

/// An absolute path: a daemon has no directory that others would expect it to be in.
fn path(value: &Value<'_>) -> Option<PathBuf> {
    let text = scalar::plain(value)?;
    if !text.starts_with('/') {
        value.bad(
            &format!("is not an absolute path: {text:?}"),
            "not absolute",
            format!("write the whole path, as in `\"/etc/lateen/{text}\"`"),
        );
        return None;
    }
    Some(PathBuf::from(text))
}

fn user(value: &Value<'_>) -> Option<ProxyUser> {
    if value.is_integer() {
        return Some(ProxyUser::Id(value.count(0..=u32::MAX - 1)?));
    }
    let text = scalar::plain(value)?;
    if let Ok(id) = text.parse::<u32>() {
        value.bad(
            "is a number in quotes",
            "a name?",
            format!("write it unquoted: `{id}`"),
        );
        return None;
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.$".contains(&b);
    if text.len() > 32 || text.starts_with('-') || !text.bytes().all(legal) {
        let help = format!(
            "write a name such as `lateen`, or a number; not {}",
            suggest::listed([text])
        );
        value.reject(Code::BadName, "is no user's name", "not a user", help);
        return None;
    }
    Some(ProxyUser::Name(Arc::from(text)))
}

#[cfg(test)]
mod tests;
