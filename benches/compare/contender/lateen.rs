//! Lateen: a control plane, two machines that join, and three captured workloads.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Mesh, PATIENCE};
use crate::exec::{Daemon, output, until};
use crate::fault::Fault;
use crate::rig::{BRIEF, Ground, Host, Stage};

/// The user the proxy runs as: a number, so that this machine need not know it.
const USER: u32 = 1337;

/// Brings it up.
pub(super) fn up(stage: &Stage, ground: &Ground, binary: &Path) -> Result<Mesh, Fault> {
    let lateen = Lateen {
        stage,
        ground,
        binary,
    };
    lateen.up(&Besides::default())
}

/// What a mesh has besides two hosts and their workloads.
#[derive(Default)]
pub(super) struct Besides {
    /// Machines that are nodes of it, with more of their settings.
    pub(super) nodes: Vec<(Host, &'static str)>,
    /// More of the mesh file.
    pub(super) resources: String,
    /// Where the certificate authority is, if it is not the control plane's own.
    pub(super) authority: Option<PathBuf>,
}

/// A mesh that one binary runs, or some of its machines.
pub(super) struct Lateen<'a> {
    /// The rig.
    pub(super) stage: &'a Stage,
    /// Where.
    pub(super) ground: &'a Ground,
    /// The program.
    pub(super) binary: &'a Path,
}

impl Lateen<'_> {
    /// Brings it up, as an operator would; but for what runs on the machines besides.
    pub(super) fn up(&self, besides: &Besides) -> Result<Mesh, Fault> {
        self.write_files(besides)?;
        let (control, _address) = self.ground.control;
        let mut mesh = Mesh::transparent(self.ground);
        mesh.daemons.push(self.daemon(control, &["--control"])?);
        until("publishing a first revision", PATIENCE, || {
            mesh.alive()?;
            Ok(self.status(control)?["control"]["revision"].is_u64())
        })?;
        let [(left, _), (right, _)] = self.ground.hosts();
        for (host, side) in [
            (left, &mut mesh.client_side),
            (right, &mut mesh.server_side),
        ] {
            self.join(host)?;
            let daemon = self.daemon(host, &["--node"])?;
            side.push(daemon.pid());
            mesh.daemons.push(daemon);
        }
        until("capturing the workloads", PATIENCE, || self.settled())?;
        mesh.tunnel_port = Some(::lateen::capture::ruleset::HBONE_PORT);
        Ok(mesh)
    }

    fn write_files(&self, besides: &Besides) -> Result<(), Fault> {
        let name = self.ground.name;
        let mesh = self
            .stage
            .write(&format!("{name}/mesh/mesh.toml"), &self.mesh(besides))?;
        let directory = mesh.parent().unwrap_or(&mesh).display();
        let (control, address) = self.ground.control;
        let authority = besides.authority.as_ref();
        let authority = authority.map(|a| format!("ca-dir = \"{}\"\n", a.display()));
        let authority = authority.unwrap_or_default();
        let [(left, _), (right, _)] = self.ground.hosts();
        let hosts = [(control, ""), (left, ""), (right, "")].into_iter();
        let nodes = besides.nodes.iter();
        for (host, more) in hosts.chain(nodes.map(|((host, _), more)| (*host, *more))) {
            let text = format!(
                "node = \"{host}\"\nuser = {USER}\nstate-dir = \"/run/lateen-state\"\n\n\
                 [control]\naddresses = [\"https://{address}:15012\"]\nnames = [\"{address}\"]\n\
                 mesh-dir = \"{directory}\"\n{authority}{more}"
            );
            self.stage.write(&format!("{name}/{host}.toml"), &text)?;
        }
        Ok(())
    }

    fn mesh(&self, besides: &Besides) -> String {
        let mut text = "default-namespace = \"bench\"\n\n\
                        [[namespace]]\nname = \"bench\"\ndataplane-mode = \"ambient\"\n"
            .to_owned();
        let nodes = besides.nodes.iter().map(|(node, _)| *node);
        for (host, address) in self.ground.hosts().into_iter().chain(nodes) {
            // Writing to a string cannot fail, here and below.
            let _infallible = write!(
                text,
                "\n[[node]]\nname = \"{host}\"\naddresses = [\"{address}\"]\n"
            );
        }
        for place in self.ground.places() {
            let name = &place.namespace;
            let addresses: Vec<_> = place.addresses.iter().map(ToString::to_string).collect();
            let _infallible = write!(
                text,
                "\n[[workload]]\nname = \"{name}\"\nservice-account = \"{name}\"\n\
                 node = \"{}\"\naddresses = {addresses:?}\ncapture = {{ netns = \"{name}\" }}\n\
                 labels = {{ app = \"{name}\" }}\n",
                place.host
            );
        }
        text + &besides.resources
    }

    /// A command of lateen's own on a host, with that host's settings.
    fn command(&self, host: &str, arguments: &[&str]) -> Command {
        let settings = format!("{}/{host}.toml", self.ground.name);
        let binary = self.binary.display().to_string();
        let mut command = self.stage.on(host, &binary);
        command.args(arguments);
        command.arg("--config").arg(self.stage.file(&settings));
        command
    }

    /// Starts roles on a host.
    pub(super) fn daemon(&self, host: &str, roles: &[&str]) -> Result<Daemon, Fault> {
        let log = self.stage.file(&format!("{}/{host}.log", self.ground.name));
        let mut command = self.command(host, &["run"]);
        Daemon::start(command.args(roles), &log)
    }

    /// Makes a host a node of the mesh.
    pub(super) fn join(&self, host: &str) -> Result<(), Fault> {
        let (control, address) = self.ground.control;
        let mut create = self.command(control, &["token", "create", host]);
        let token = output(&mut create, "", BRIEF)?;
        let url = format!("https://{address}:15012");
        let mut join = self.command(host, &["join", &url, "--token-file", "-"]);
        output(&mut join, &token, BRIEF)?;
        Ok(())
    }

    /// As a value, not as this build's type: an older lateen may tell other things.
    fn status(&self, host: &str) -> Result<Value, Fault> {
        let mut command = self.command(host, &["status", "-o", "json"]);
        // What it prints counts, not its exit status: that tells whether all is well already.
        let text = crate::exec::anything(&mut command, BRIEF)?;
        serde_json::from_str(&text).map_err(|_no_json| Fault::said(format!("asking {host}"), text))
    }

    /// Whether every workload is captured and has its certificate, at the revision in force.
    fn settled(&self) -> Result<bool, Fault> {
        let control = self.status(self.ground.control.0)?;
        let revision = &control["control"]["revision"];
        for (host, _address) in self.ground.hosts() {
            let here = self.ground.places().into_iter();
            let expected = here.filter(|p| p.host == host).count();
            let node = &self.status(host)?["node"];
            let all = |list: &str, fits: &dyn Fn(&Value) -> bool| {
                let list = node[list].as_array().filter(|l| l.len() == expected);
                list.is_some_and(|l| l.iter().all(fits))
            };
            let ready = node["revision"] == *revision
                && all("workloads", &|w| w["capture"] == "captured")
                && all("certificates", &|c| c["serial"].is_string());
            if !ready {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
