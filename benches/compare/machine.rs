//! What the figures were taken on, and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::contender::{Candidate, Kind};
use crate::exec::anything;
use crate::rig::BRIEF;
use crate::settings::Settings;

/// The congestion controls that are compared, where the machine lets namespaces have them.
const CONGESTIONS: [&str; 2] = ["cubic", "bbr"];

/// The machine, its kernel, and who takes part.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    /// What the kernel gives connections when nobody says otherwise.
    congestion: String,
    /// Those of [`CONGESTIONS`] that a namespace may have as its default.
    pub(crate) congestions: Vec<String>,
    /// Those that the kernel has and only the machine itself may use.
    withheld: Vec<String>,
    versions: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks at everything.
    pub(crate) fn look(candidates: &[Candidate]) -> Self {
        let setting = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
            text.unwrap_or_default().trim().to_owned()
        };
        let allowed = setting("tcp_allowed_congestion_control");
        let there = setting("tcp_available_congestion_control");
        let has = |list: &str, name: &str| list.split_whitespace().any(|w| w == name);
        let congestion = setting("tcp_congestion_control");
        let known = CONGESTIONS.iter().filter(|c| has(&there, c));
        let known = known.map(|c| (*c).to_owned());
        let (mut congestions, withheld): (Vec<_>, Vec<_>) = known.partition(|c| has(&allowed, c));
        if congestions.is_empty() {
            congestions.push(congestion.clone());
        }
        let uname = rustix::system::uname();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: processor(),
            kernel: uname.release().to_string_lossy().into_owned(),
            congestion,
            congestions,
            withheld,
            versions: versions(candidates),
        }
    }

    /// For people: above the table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} cores, {}, Linux {}; congestion control of the host: {}\n",
            self.cores, self.processor, self.kernel, self.congestion
        );
        for name in &self.withheld {
            text.push_str(&format!(
                "no rows under {name}: namespaces may not use it here; add it to what \
                 sysctl net.ipv4.tcp_allowed_congestion_control lists\n"
            ));
        }
        for (name, version) in &self.versions {
            text.push_str(&format!("{name}: {version}\n"));
        }
        text.push_str(
            "everyone logs at the default level of the product, to a file; but waypoints have \
             their access logs off\n",
        );
        text
    }

    /// For programs.
    pub(crate) fn to_json(&self, settings: &Settings) -> Value {
        json!({
            "cores": self.cores,
            "processor": self.processor,
            "kernel": self.kernel,
            "congestion-control": self.congestion,
            "versions": self.versions.iter().map(|(n, v)| (*n, v.clone())).collect::<std::collections::BTreeMap<_, _>>(),
            "rounds": settings.rounds,
            "seconds": settings.seconds,
        })
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name"));
    let name = line
        .and_then(|l| l.split_once(':'))
        .map(|(_key, name)| name);
    name.unwrap_or("processor unknown").trim().to_owned()
}

fn versions(candidates: &[Candidate]) -> Vec<(&'static str, String)> {
    let mut versions: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| {
            let (program, flag) = match &candidate.kind {
                Kind::None => return None,
                Kind::Lateen(program) | Kind::Wireguard(program) | Kind::Envoy(program) => {
                    (program, "--version")
                }
                Kind::Ztunnel(program) => (program, "version"),
                Kind::Nebula(program, _signer) => (program, "-version"),
            };
            Some((candidate.name, version(program, flag)))
        })
        .collect();
    for (name, flag) in [("iperf3", "--version"), ("wrk", "-v")] {
        versions.push((name, version(Path::new(name), flag)));
    }
    versions.push(("nginx", version(Path::new("/usr/sbin/nginx"), "-v")));
    versions
}

/// The first line that a program says of itself.
fn version(program: &Path, flag: &str) -> String {
    let said = anything(Command::new(program).arg(flag), BRIEF);
    let said = said.unwrap_or_else(|_absent| "not to be run".to_owned());
    let line = said.lines().find(|l| !l.trim().is_empty());
    let line = line.unwrap_or("unknown").trim();
    // Some print a structure with the version in it.
    let inner = line
        .split_once("Version:\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    inner.map_or(line, |(version, _)| version).to_owned()
}
