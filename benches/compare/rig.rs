//! The fleet under every contender: hosts on one switch, and in them three namespaces for each.
//!
//! Whoever is compared has the same ground: its client in a namespace on one host, its server on
//! another, both one bridge away from the switch, and a second server beside the client.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lateen::rig::Rig;

use crate::exec::output;
use crate::fault::Fault;
use crate::settings::{self, OWN};

/// Addresses of each server: as many destinations as one client talks to at once.
pub(crate) const DESTINATIONS: u8 = 64;
/// Longest a small administrator's command may take.
pub(crate) const BRIEF: Duration = Duration::from_secs(10);
/// Ports that connections are made from: the same for everybody, above all that listen, and enough
/// for ten thousand connections to one address.
const PORTS: &str = "20000 65000";

/// One network namespace of a contender.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The host it is on.
    pub(crate) host: String,
    /// Its name there.
    pub(crate) namespace: String,
    /// Its addresses.
    pub(crate) addresses: Vec<Ipv4Addr>,
}

impl Place {
    /// The first of its addresses.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}

/// What a contender stands on.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// The contender's name.
    pub(crate) name: &'static str,
    /// Tells its addresses from others'; below 100.
    pub(crate) index: u8,
    /// The host of its control plane, where it has one.
    pub(crate) control: Host,
    /// Where the work comes from.
    pub(crate) client: Place,
    /// Where it goes.
    pub(crate) server: Place,
    /// A server on the client's host.
    pub(crate) neighbour: Place,
}

/// A host by its name and address.
pub(crate) type Host = (&'static str, Ipv4Addr);
/// A control plane and two hosts.
type Hosts = [Host; 3];
/// What all contenders share, but for a second lateen: a host has one of it.
const HOSTS: Hosts = [
    ("control", Ipv4Addr::new(10, 77, 0, 1)),
    ("left", Ipv4Addr::new(10, 77, 0, 11)),
    ("right", Ipv4Addr::new(10, 77, 0, 12)),
];
const BASE_HOSTS: Hosts = [
    ("base-control", Ipv4Addr::new(10, 77, 0, 2)),
    ("base-left", Ipv4Addr::new(10, 77, 0, 21)),
    ("base-right", Ipv4Addr::new(10, 77, 0, 22)),
];

impl Ground {
    /// Ground for the contender `name`.
    pub(crate) fn new(name: &'static str, index: u8) -> Self {
        let [control, left, right] = hosts_of(name);
        let place = |host: &str, part: &str, net: u8, from: u8, count: u8| Place {
            host: host.to_owned(),
            namespace: format!("{name}-{part}"),
            addresses: (from..from + count)
                .map(|last| Ipv4Addr::new(10, 77, net + index, last))
                .collect(),
        };
        Self {
            name,
            index,
            control,
            client: place(left.0, "client", 100, 1, 1),
            server: place(right.0, "server", 200, 1, DESTINATIONS),
            neighbour: place(left.0, "near", 100, 2, 1),
        }
    }

    /// Its namespaces.
    pub(crate) fn places(&self) -> [&Place; 3] {
        [&self.client, &self.server, &self.neighbour]
    }

    /// The addresses of its two hosts.
    pub(crate) fn hosts(&self) -> [Host; 2] {
        let [_control, left, right] = hosts_of(self.name);
        [left, right]
    }
}

fn hosts_of(name: &str) -> Hosts {
    match name {
        "base" => BASE_HOSTS,
        _ => HOSTS,
    }
}

/// A running rig and the ground in it.
pub(crate) struct Stage {
    // In this order: the rig ends before its files go.
    rig: Rig,
    scratch: Scratch,
}

/// The rig's files; gone when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Logs and settings are left on request, for a look at what went wrong.
        if !settings::keeps_files() {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl Stage {
    /// Builds the hosts and namespaces of all `grounds` and the hosts `besides`, with this congestion
    /// control for whatever is connected in them from now on. `pass` tells its files from those of
    /// other stages.
    ///
    /// # Errors
    /// When the rig does not come up or the kernel lacks the congestion control.
    pub(crate) fn up(
        grounds: &[Ground],
        besides: &[Host],
        congestion: &str,
        pass: usize,
    ) -> Result<Self, Fault> {
        let name = format!("lateen-bench-{}-{pass}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        let hosts = hosts(grounds, besides);
        let rig = Rig::up(&text(&hosts, grounds), Path::new(OWN), &scratch.0)?;
        let stage = Self { rig, scratch };
        let script = format!(
            "echo {congestion} > /proc/sys/net/ipv4/tcp_congestion_control && \
             echo {PORTS} > /proc/sys/net/ipv4/ip_local_port_range"
        );
        for (host, _address) in hosts {
            let mut command = stage.on(host, "sh");
            output(command.args(["-c", &script]), "", BRIEF)?;
        }
        for place in grounds.iter().flat_map(Ground::places) {
            stage.shell(place, &script)?;
        }
        Ok(stage)
    }

    /// A program in a place.
    pub(crate) fn within(&self, place: &Place, program: &str) -> Command {
        self.rig
            .command(&place.host, Some(&place.namespace), program)
    }

    /// A program on a host itself.
    pub(crate) fn on(&self, host: &str, program: &str) -> Command {
        self.rig.command(host, None, program)
    }

    /// Runs a script in a place.
    ///
    /// # Errors
    /// When its last command fails.
    pub(crate) fn shell(&self, place: &Place, script: &str) -> Result<String, Fault> {
        let path = "export PATH=\"$PATH:/usr/sbin:/sbin\"\n";
        let mut command = self.within(place, "sh");
        output(command.args(["-c", &format!("{path}{script}")]), "", BRIEF)
    }

    /// A file for whoever is in the rig.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    /// Makes a directory for such files.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn directory(&self, name: &str) -> Result<(), Fault> {
        let made = std::fs::create_dir_all(self.file(name));
        made.map_err(Fault::io(format!("making {name}")))
    }

    /// Writes such a file.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Fault> {
        let path = self.file(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Fault::io(format!("writing {name}")))?;
        }
        std::fs::write(&path, text).map_err(Fault::io(format!("writing {name}")))?;
        Ok(path)
    }
}

fn hosts(grounds: &[Ground], besides: &[Host]) -> Vec<Host> {
    let mut hosts = Vec::from(HOSTS);
    if grounds.iter().any(|g| g.name == "base") {
        hosts.extend(BASE_HOSTS);
    }
    hosts.extend(besides);
    hosts
}

/// The `rig.toml`.
fn text(hosts: &[Host], grounds: &[Ground]) -> String {
    let mut text = String::new();
    for (host, address) in hosts {
        // Writing to a string cannot fail, here and below.
        let _infallible = write!(
            text,
            "[[host]]\nname = \"{host}\"\naddresses = [\"{address}/16\"]\n"
        );
        for place in grounds.iter().flat_map(Ground::places) {
            if place.host != *host {
                continue;
            }
            let addresses = place.addresses.iter().map(|a| format!("{a}/16"));
            let addresses: Vec<_> = addresses.collect();
            let _infallible = write!(
                text,
                "[[host.namespace]]\nname = \"{}\"\naddresses = {addresses:?}\n",
                place.namespace
            );
        }
    }
    text
}
