//! Who is compared, and how each is brought up.

mod envoy;
mod lateen;
mod nebula;
pub(crate) mod waypoint;
mod wireguard;
mod ztunnel;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::exec::{Daemon, output, until};
use crate::fault::Fault;
use crate::process::resident;
use crate::rig::{BRIEF, Ground, Place, Stage};
use crate::settings::Settings;
use crate::work::http;

/// Longest a mesh may take until it carries its first request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One of those compared: how it is run.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a candidate is, with its programs.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// No mesh.
    None,
    /// This repository's, of whatever build.
    Lateen(PathBuf),
    /// Istio's node proxy.
    Ztunnel(PathBuf),
    /// Nebula and what signs its certificates.
    Nebula(PathBuf, PathBuf),
    /// WireGuard as a program.
    Wireguard(PathBuf),
    /// A pair of Envoys.
    Envoy(PathBuf),
}

/// Everybody whom the settings name, `none` first.
pub(crate) fn candidates(settings: &Settings) -> Vec<Candidate> {
    let nebula = settings.nebula.clone().zip(settings.nebula_cert.clone());
    let all = [
        ("none", Some(Kind::None)),
        ("lateen", Some(Kind::Lateen(settings.lateen.clone()))),
        ("base", settings.base.clone().map(Kind::Lateen)),
        ("ztunnel", settings.ztunnel.clone().map(Kind::Ztunnel)),
        ("nebula", nebula.map(|(run, sign)| Kind::Nebula(run, sign))),
        ("wireguard", settings.wireguard.clone().map(Kind::Wireguard)),
        ("envoy", settings.envoy.clone().map(Kind::Envoy)),
    ];
    let named = all.into_iter();
    named
        .filter_map(|(name, kind)| kind.map(|kind| Candidate { name, kind }))
        .collect()
}

/// A mesh that is up.
pub(crate) struct Mesh {
    /// Its programs.
    pub(crate) daemons: Vec<Daemon>,
    /// Processes that carry the client's side.
    pub(crate) client_side: Vec<u32>,
    /// Processes that carry the server's side.
    pub(crate) server_side: Vec<u32>,
    /// Where the client reaches the server.
    pub(crate) server: Ipv4Addr,
    /// The same server's many addresses.
    pub(crate) destinations: Vec<Ipv4Addr>,
    /// Where the client reaches the server on its own host.
    pub(crate) neighbour: Ipv4Addr,
    /// The port on which its tunnels arrive in the server's namespace, where they do.
    pub(crate) tunnel_port: Option<u16>,
    /// The waypoint's process, where one is on the way.
    pub(crate) waypoint: Option<u32>,
}

impl Mesh {
    /// One whose client uses the servers' own addresses.
    fn transparent(ground: &Ground) -> Self {
        Self {
            daemons: Vec::new(),
            client_side: Vec::new(),
            server_side: Vec::new(),
            server: ground.server.address(),
            destinations: ground.server.addresses.clone(),
            neighbour: ground.neighbour.address(),
            tunnel_port: None,
            waypoint: None,
        }
    }

    /// Fails when one of its programs has ended, with what it said last.
    fn alive(&mut self) -> Result<(), Fault> {
        let ended = self.daemons.iter_mut().find_map(Daemon::ended);
        ended.map_or(Ok(()), |said| {
            Err(Fault::said("one of its programs ended", said))
        })
    }
}

/// A contender that carries requests.
pub(crate) struct Contender {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// Where its programs are.
    pub(crate) ground: Ground,
    /// The mesh.
    pub(crate) mesh: Mesh,
    /// Resident bytes of the client's and the server's side before the first request.
    pub(crate) idle: (u64, u64),
    /// The programs that are talked to.
    _servers: Vec<Daemon>,
}

impl Contender {
    /// Brings it up and sees a request through.
    ///
    /// # Errors
    /// What did not work.
    pub(crate) fn up(stage: &Stage, candidate: &Candidate, ground: &Ground) -> Result<Self, Fault> {
        let mesh = match &candidate.kind {
            Kind::None => Mesh::transparent(ground),
            Kind::Lateen(binary) => lateen::up(stage, ground, binary)?,
            Kind::Ztunnel(binary) => ztunnel::up(stage, ground, binary)?,
            Kind::Nebula(binary, signer) => nebula::up(stage, ground, binary, signer)?,
            Kind::Wireguard(binary) => wireguard::up(stage, ground, binary)?,
            Kind::Envoy(binary) => envoy::up(stage, ground, binary)?,
        };
        let mut contender = Self {
            name: candidate.name,
            ground: ground.clone(),
            mesh,
            idle: (0, 0),
            _servers: servers(stage, ground)?,
        };
        contender.idle = contender.resident()?;
        contender.probe(stage)?;
        Ok(contender)
    }

    /// Resident bytes of the client's and the server's side.
    ///
    /// # Errors
    /// When one of its processes is gone.
    pub(crate) fn resident(&self) -> Result<(u64, u64), Fault> {
        let sum =
            |side: &[u32]| -> Result<u64, Fault> { side.iter().map(|pid| resident(*pid)).sum() };
        Ok((sum(&self.mesh.client_side)?, sum(&self.mesh.server_side)?))
    }

    /// One request to every address, and a look at whether it came by tunnel.
    fn probe(&mut self, stage: &Stage) -> Result<(), Fault> {
        self.mesh.alive()?;
        let mesh = &self.mesh;
        let all = [mesh.server, mesh.neighbour];
        let all = all.iter().chain(&mesh.destinations);
        let mut command = crate::load::command(stage, &self.ground.client, "probe")?;
        command.args(all.map(|to| format!("{to}:{}", http::PORT)));
        output(&mut command, "", PATIENCE)?;
        match mesh.tunnel_port {
            Some(port) => tunnelled(stage, &self.ground.server, port),
            None => Ok(()),
        }
    }
}

/// Fails unless connections are open to `port` in `place`: a capture that captures nothing would
/// look like a very fast mesh.
fn tunnelled(stage: &Stage, place: &Place, port: u16) -> Result<(), Fault> {
    match has_socket(stage, place, port, ESTABLISHED)? {
        true => Ok(()),
        false => Err(Fault::said(
            "sending a request through the tunnel",
            format!("answered, but nothing is connected to port {port}"),
        )),
    }
}

/// States of a socket, as the kernel's list has them.
const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";

/// Whether there is a TCP socket on `port` in a place, in this state.
fn has_socket(stage: &Stage, place: &Place, port: u16, state: &str) -> Result<bool, Fault> {
    let sockets = stage.shell(place, "cat /proc/net/tcp /proc/net/tcp6")?;
    Ok(lists(&sockets, port, state))
}

/// Whether the kernel's list has a socket on `port` in this state.
fn lists(sockets: &str, port: u16, state: &str) -> bool {
    let local = format!(":{port:04X}");
    sockets.lines().any(|line| {
        // Number, local address, remote address, state.
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|w| w.ends_with(&local)) && words.nth(1) == Some(state)
    })
}

/// The programs that are talked to, in both places.
fn servers(stage: &Stage, ground: &Ground) -> Result<Vec<Daemon>, Fault> {
    let mut all = Vec::new();
    for place in [&ground.server, &ground.neighbour] {
        let log = |what: &str| stage.file(&format!("{}-{what}.log", place.namespace));
        let mut iperf = stage.within(place, "iperf3");
        let port = crate::work::throughput::PORT.to_string();
        all.push(Daemon::start(
            iperf.args(["-s", "-p", &port]),
            &log("iperf3"),
        )?);
        all.push(http::server(stage, place, &log("nginx"))?);
        let mut echo = crate::load::command(stage, place, "echo")?;
        let port = crate::work::idle::PORT.to_string();
        all.push(Daemon::start(echo.arg(port), &log("echo"))?);
    }
    Ok(all)
}

/// Waits until a mesh listens on a TCP port in a place.
fn listens(stage: &Stage, place: &Place, port: u16, mesh: &mut Mesh) -> Result<(), Fault> {
    let doing = format!("listening on port {port} in {}", place.namespace);
    until(&doing, PATIENCE, || {
        // Nobody who has ended will ever listen.
        Ok(mesh.alive().is_err() || has_socket(stage, place, port, LISTENING)?)
    })?;
    mesh.alive()
}

/// Captures a place as lateen does, but for a proxy known by a mark.
fn capture_by_mark(stage: &Stage, place: &Place) -> Result<(), Fault> {
    let plan = ::lateen::capture::plan(&::lateen::capture::Exemption::Mark);
    stage.shell(place, &plan.render())?;
    Ok(())
}

/// What a helper of a contender's prints, run on no host.
fn helper(command: &mut std::process::Command, input: &str) -> Result<String, Fault> {
    output(command, input, BRIEF)
}
