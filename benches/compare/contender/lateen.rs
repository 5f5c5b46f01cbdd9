//! Lateen: a control plane, two machines that join, and three captured workloads.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Mesh, PATIENCE};
use crate::exec::{Daemon, output, until};
use crate::fault::Fault;
use crate::rig::{BRIEF, Ground, Stage};

/// The user the proxy runs as: a number, so that this machine need not know it.
const USER: u32 = 1337;

/// Brings it up, as an operator would.
pub(super) fn up(stage: &Stage, ground: &Ground, binary: &Path) -> Result<Mesh, Fault> {
    let lateen = Lateen {
        stage,
        ground,
        binary,
    };
    lateen.write_files()?;
    let (control, _address) = ground.control;
    let mut mesh = Mesh::transparent(ground);
    mesh.daemons.push(lateen.daemon(control, "--control")?);
    until("publishing a first revision", PATIENCE, || {
        Ok(lateen.status(control)?["control"]["revision"].is_u64())
    })?;
    let [(left, _), (right, _)] = ground.hosts();
    for (host, side) in [
        (left, &mut mesh.client_side),
        (right, &mut mesh.server_side),
    ] {
        lateen.join(host)?;
        let daemon = lateen.daemon(host, "--node")?;
        side.push(daemon.pid());
        mesh.daemons.push(daemon);
    }
    until("capturing the workloads", PATIENCE, || lateen.settled())?;
    mesh.tunnel_port = Some(::lateen::capture::ruleset::HBONE_PORT);
    Ok(mesh)
}

struct Lateen<'a> {
    stage: &'a Stage,
    ground: &'a Ground,
    binary: &'a Path,
}

impl Lateen<'_> {
    fn write_files(&self) -> Result<(), Fault> {
        let name = self.ground.name;
        let mesh = self
            .stage
            .write(&format!("{name}/mesh/mesh.toml"), &self.mesh())?;
        let directory = mesh.parent().unwrap_or(&mesh).display();
        let (control, address) = self.ground.control;
        let [(left, _), (right, _)] = self.ground.hosts();
        for host in [control, left, right] {
            let text = format!(
                "node = \"{host}\"\nuser = {USER}\nstate-dir = \"/run/lateen-state\"\n\n\
                 [control]\naddresses = [\"https://{address}:15012\"]\nnames = [\"{address}\"]\n\
                 mesh-dir = \"{directory}\"\n"
            );
            self.stage.write(&format!("{name}/{host}.toml"), &text)?;
        }
        Ok(())
    }

    fn mesh(&self) -> String {
        let mut text = "default-namespace = \"bench\"\n\n\
                        [[namespace]]\nname = \"bench\"\ndataplane-mode = \"ambient\"\n"
            .to_owned();
        for (host, address) in self.ground.hosts() {
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
                 node = \"{}\"\naddresses = {addresses:?}\ncapture = {{ netns = \"{name}\" }}\n",
                place.host
            );
        }
        text
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

    fn daemon(&self, host: &str, role: &str) -> Result<Daemon, Fault> {
        let log = self.stage.file(&format!("{}/{host}.log", self.ground.name));
        Daemon::start(&mut self.command(host, &["run", role]), &log)
    }

    fn join(&self, host: &str) -> Result<(), Fault> {
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
