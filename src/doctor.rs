//! What keeps lateen from working on this host, or soon will: each with a stable code, what was
//! seen and the command that mends it.
//!
//! One file an area. There, facts are a value that is read once, and small functions judge it; what
//! cannot be read is none, and nothing follows from it. [`Facts`] has them all, [`examine`] asks
//! every area.

mod account;
mod clock;
mod codes;
mod firewall;
mod kernel;
mod ports;
mod program;
mod reach;
mod resolver;
mod running;
mod settings;
mod storage;
mod tools;
mod trust;
mod units;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use tracing::{error, info, warn};

use crate::config::daemon::Config;

pub use codes::Code;
pub use settings::Roles;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something cannot work as it is.
    Error,
    /// Something does not work as well as it might, or soon will not.
    Warning,
    /// Nothing is wrong, and whoever runs it should know.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// How grave it is.
    pub severity: Severity,
    /// What was seen.
    pub seen: String,
    /// The command that mends it, or what to do where no command does.
    pub remedy: String,
}

impl Finding {
    fn new(code: Code, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            seen: printable(seen.into()),
            remedy: printable(remedy.into()),
        }
    }
}

/// Without what a terminal takes for a command: some of it comes from processes that are not root's, and
/// root reads it.
fn printable(text: String) -> String {
    let hidden = |c: char| c.is_control() && c != '\n';
    match text.contains(hidden) {
        true => text.replace(hidden, "\u{fffd}"),
        false => text,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.as_str();
        writeln!(f, "{severity}[{}]: {}", self.code.as_str(), self.seen)?;
        writeln!(f, "  mend: {}", self.remedy)
    }
}

/// What is known of this host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    settings: settings::Facts,
    kernel: kernel::Facts,
    account: account::Facts,
    storage: storage::Facts,
    trust: trust::Facts,
    clock: clock::Facts,
    resolver: resolver::Facts,
    tools: tools::Facts,
    firewall: firewall::Facts,
    ports: ports::Facts,
    reach: reach::Facts,
    units: units::Facts,
    running: running::Facts,
}

impl Facts {
    /// All that can be known, by the settings in the file `config`: programs are run and control
    /// planes are called. Blocks for some seconds.
    pub fn read(config: Option<&Path>) -> Self {
        let units = units::Facts::read();
        let settings = settings::Facts::read(config, units.roles());
        let tools = tools::Facts::read(settings.config());
        let reach = reach::Facts::read(settings.config());
        let ports = ports::Facts::read(settings.config());
        let resolver = resolver::Facts::with_host(settings.config());
        let running = running::Facts::read(settings.config());
        let firewall = firewall::Facts::read(settings.config());
        Self {
            tools,
            firewall,
            ports,
            reach,
            units,
            running,
            resolver,
            ..Self::of(settings)
        }
    }

    /// What files say, for a process that starts with these settings and roles; whom it runs as is what
    /// it has checked itself. Blocks on the file system.
    pub fn at_start(config: &Config, roles: Roles) -> Self {
        Self {
            kernel: kernel::Facts::of_this_process(),
            account: account::Facts::default(),
            ..Self::of(settings::Facts::given(config.clone(), roles))
        }
    }

    fn of(settings: settings::Facts) -> Self {
        let Some(config) = settings.config() else {
            return Self {
                settings,
                kernel: kernel::Facts::read(),
                ..Self::default()
            };
        };
        Self {
            kernel: kernel::Facts::read(),
            account: account::Facts::read(config),
            storage: storage::Facts::read(config),
            trust: trust::Facts::read(config),
            clock: clock::Facts::read(config),
            resolver: resolver::Facts::read(),
            settings,
            ..Self::default()
        }
    }
}

/// All that follows from the facts, the gravest first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let roles = facts.settings.roles();
    let mut found = Vec::new();
    found.extend(facts.settings.check());
    found.extend(facts.kernel.check(roles));
    found.extend(facts.account.check(roles));
    found.extend(facts.storage.check(&facts.account));
    found.extend(facts.trust.check(roles));
    found.extend(facts.clock.check());
    found.extend(facts.resolver.check(roles));
    found.extend(facts.tools.check(roles));
    found.extend(facts.firewall.check(roles));
    found.extend(facts.ports.check(roles));
    found.extend(facts.reach.check(roles));
    found.extend(facts.units.check());
    found.extend(facts.running.check());
    found.sort_by_key(|finding| finding.severity);
    found
}

/// Logs findings, as a process that starts does.
pub fn log(findings: &[Finding]) {
    for Finding {
        code,
        severity,
        seen,
        remedy,
    } in findings
    {
        let code = code.as_str();
        match severity {
            Severity::Error => error!(code, seen, remedy, "something keeps this host from working"),
            Severity::Warning => warn!(code, seen, remedy, "something is amiss on this host"),
            Severity::Note => info!(code, seen, remedy, "about this host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_known_nothing_is_found() {
        assert_eq!(examine(&Facts::default()), Vec::new());
    }

    #[test]
    fn nothing_in_a_finding_is_a_command_to_a_terminal() {
        let seen = "two\nlines, and \u{1b}]0;a title\u{7}".to_owned();
        let finding = Finding::new(Code::UnitFailed, seen, "mend\r it");
        let want = "two\nlines, and \u{fffd}]0;a title\u{fffd}";
        assert_eq!(
            (&*finding.seen, &*finding.remedy),
            (want, "mend\u{fffd} it")
        );
    }

    #[test]
    fn the_gravest_come_first_and_are_told_with_their_remedy() {
        let facts = Facts {
            kernel: kernel::Facts {
                release: Some("4.19.0".to_owned()),
                ..kernel::Facts::default()
            },
            resolver: resolver::Facts {
                text: Some("search a b\noptions ndots:5\nnameserver 10.0.0.1\n".to_owned()),
                ..resolver::Facts::default()
            },
            ..Facts::default()
        };
        let found = examine(&facts);
        let codes: Vec<_> = found.iter().map(|f| f.code).collect();
        assert_eq!(codes, [Code::KernelOld, Code::NdotsHigh]);
        let text = found[0].to_string();
        assert!(
            text.starts_with("error[kernel-old]: Linux 4.19.0"),
            "{text}"
        );
        assert!(text.contains("\n  mend: "), "{text}");
        let json = serde_json::to_value(&found[0]).unwrap();
        assert_eq!(json["code"], "kernel-old");
        assert_eq!(json["severity"], "error");
        assert!(json["seen"].is_string() && json["remedy"].is_string());
    }
}
