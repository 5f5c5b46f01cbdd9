//! The ways to one service in one lateen mesh: straight, and through the waypoints of all who make
//! one. The same nodes carry all of them, each to an address of its own; only the waypoint differs.
//!
//! Each waypoint is on a host of its own, alone on it, and is idle while others are measured. The
//! mesh's authority is brought along, so that a waypoint that is not lateen's can be certified.

mod authority;
mod envoy;

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

use super::lateen::{Besides, Lateen};
use super::{
    Candidate, Contender, ESTABLISHED, Kind, LISTENING, Mesh, PATIENCE, http, lists, output, until,
};
use crate::exec::Daemon;
use crate::fault::Fault;
use crate::process::resident;
use crate::record::Record;
use crate::rig::{BRIEF, Ground, Host, Place, Stage};
use crate::ruled;
use authority::Authority;

/// Where waypoints take tunnels.
const TUNNELS: u16 = ::lateen::capture::ruleset::HBONE_PORT;
/// For lateen's waypoints: each request is a line of the level below, and no other waypoint has such
/// lines unless it is asked to.
const NO_ACCESS_LOG: &str = "\n[log]\nlevel = \"warn\"\n";

/// Where services have their addresses: on the hosts' own net, so that the client has a way there.
const SERVICES: &str = "\n[mesh]\nservice-range = [\"10.77.90.0/24\"]\n";

/// What waypoints do with a request, told to each in its own words.
struct Routing {
    /// What the mesh file has of it besides the service.
    resources: String,
    /// Envoy's routes; [`envoy::ENDPOINTS`] is the service.
    routes: Value,
}

/// All requests go to the service itself.
fn plain() -> Routing {
    Routing {
        resources: String::new(),
        routes: json!([{
            "match": { "prefix": "/" },
            "route": { "cluster": envoy::ENDPOINTS, "timeout": "0s" },
        }]),
    }
}

/// A way: whose waypoint is on it, and where that is.
struct Way {
    name: &'static str,
    kind: Kind,
    /// The host of the waypoint.
    host: Host,
    /// The service by this way.
    address: Ipv4Addr,
}

impl Way {
    fn is_straight(&self) -> bool {
        matches!(self.kind, Kind::None)
    }

    /// A service, the waypoint that it is bound to, and where that is ours the same service under policies.
    fn resources(&self, server: &Place) -> String {
        let service = |name: &str, address: Ipv4Addr| {
            let port = http::PORT;
            format!(
                "\n[[service]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n\
                 ports = [{{ port = {port}, app-protocol = \"http\" }}]\n\
                 selector = {{ app = \"{}\" }}\n",
                server.namespace
            )
        };
        let name = format!("by-{}", self.name);
        let mut text = service(&name, self.address);
        if self.is_straight() {
            return text;
        }
        let (host, _address) = self.host;
        let bound = format!("use-waypoint = \"{host}\"\n");
        text += &bound;
        if let Kind::Lateen(_) = self.kind {
            for (rules, offset) in ruled::SERVICES {
                let name = format!("{name}-{rules}");
                text += &service(&name, ruled::address(self.address, offset));
                text += &bound;
                text += &ruled::policies(&name, rules);
            }
        }
        text +=
            &format!("\n[[gateway]]\nname = \"{host}\"\nclass = \"waypoint\"\nnode = \"{host}\"\n");
        text
    }
}

/// All ways, in one mesh of our own.
pub(crate) struct Ways {
    ground: Ground,
    ways: Vec<Way>,
}

impl Ways {
    /// By no waypoint, and through one of each candidate that has such a thing.
    pub(crate) fn of(candidates: &[Candidate]) -> Self {
        let way = |(index, candidate): (u8, &Candidate)| {
            let (host, last) = match (&candidate.kind, candidate.name) {
                (Kind::None, _) => ("", 0),
                (Kind::Lateen(_), "base") => ("wp-base", 32),
                (Kind::Lateen(_), _) => ("wp-lateen", 31),
                (Kind::Envoy(_), _) => ("wp-envoy", 33),
                (Kind::Ztunnel(_) | Kind::Nebula(..) | Kind::Wireguard(_), _) => return None,
            };
            Some(Way {
                name: candidate.name,
                kind: candidate.kind.clone(),
                host: (host, Ipv4Addr::new(10, 77, 0, last)),
                address: Ipv4Addr::new(10, 77, 90, index + 1),
            })
        };
        let mut ground = Ground::new("lateen", 0);
        // One endpoint, so that all ways end alike.
        ground.server.addresses.truncate(1);
        Self {
            ground,
            ways: (0..).zip(candidates).filter_map(way).collect(),
        }
    }

    fn waypoints(&self) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(|way| !way.is_straight())
    }

    /// The hosts of the mesh and of all waypoints.
    ///
    /// # Errors
    /// See [`Stage::up`].
    pub(crate) fn stage(&self, congestion: &str, pass: usize) -> Result<Stage, Fault> {
        let hosts: Vec<Host> = self.waypoints().map(|way| way.host).collect();
        Stage::up(std::slice::from_ref(&self.ground), &hosts, congestion, pass)
    }

    /// The ways that come up; the mesh itself belongs to the one by no waypoint.
    pub(crate) fn up(&self, stage: &Stage, record: &mut Record) -> Vec<Contender> {
        let mut fail = |what: &str, fault: &Fault| {
            let fault = ::lateen::causes::chain(fault);
            let failure = format!("{what} did not come up: {fault}");
            eprintln!("  {failure}");
            record.fail(failure);
        };
        eprintln!("  starting a mesh with waypoints");
        let routing = plain();
        let mesh = Authority::make(stage).and_then(|authority| {
            let mesh = self.mesh(stage, &authority, &routing)?;
            Ok((mesh, authority))
        });
        let (mesh, authority) = match mesh {
            Ok(made) => made,
            Err(fault) => {
                fail("the mesh with waypoints", &fault);
                return Vec::new();
            }
        };
        let mut mesh = Some(mesh);
        let mut contenders = Vec::new();
        for way in &self.ways {
            let made = match mesh.take_if(|_| way.is_straight()) {
                Some(mesh) => self.straight(stage, way, mesh),
                None => self.through(stage, way, &authority, &routing),
            };
            match made {
                Ok(contender) => contenders.push(contender),
                Err(fault) => fail(&format!("the waypoint of {}", way.name), &fault),
            }
        }
        contenders
    }

    /// The whole mesh but for its waypoints.
    fn mesh(&self, stage: &Stage, authority: &Authority, routing: &Routing) -> Result<Mesh, Fault> {
        let resources = self.ways.iter().map(|w| w.resources(&self.ground.server));
        let resources: String = resources.collect();
        let besides = Besides {
            nodes: self.waypoints().map(|w| (w.host, NO_ACCESS_LOG)).collect(),
            resources: resources + &routing.resources + SERVICES,
            authority: Some(authority.directory()),
        };
        let ours = self.ways.iter().find_map(|way| match &way.kind {
            Kind::Lateen(binary) if way.name == "lateen" => Some(binary.as_path()),
            _ => None,
        });
        let binary = ours.unwrap_or_else(|| Path::new(crate::settings::OWN));
        self.lateen(stage, binary).up(&besides)
    }

    fn lateen<'a>(&'a self, stage: &'a Stage, binary: &'a Path) -> Lateen<'a> {
        Lateen {
            stage,
            ground: &self.ground,
            binary,
        }
    }

    /// The way by no waypoint.
    fn straight(&self, stage: &Stage, way: &Way, mut mesh: Mesh) -> Result<Contender, Fault> {
        let server = &self.ground.server;
        let log = stage.file(&format!("{}-nginx.log", server.namespace));
        let nginx = http::server(stage, server, &log)?;
        mesh.server = way.address;
        let contender = self.contender(way, mesh, vec![nginx]);
        // Until the client's node has heard that the server's takes tunnels, it goes without.
        until("sending a request through the tunnel", PATIENCE, || {
            self.probe(stage, way)?;
            super::tunnelled(stage, server, TUNNELS).map(|()| true)
        })?;
        Ok(contender)
    }

    /// A way through a waypoint.
    fn through(
        &self,
        stage: &Stage,
        way: &Way,
        authority: &Authority,
        routing: &Routing,
    ) -> Result<Contender, Fault> {
        eprintln!("  starting the waypoint of {}", way.name);
        let (host, _address) = way.host;
        let daemon = match &way.kind {
            Kind::Envoy(binary) => {
                let server = &self.ground.server;
                envoy::start(stage, way.host, binary, server, authority, routing)?
            }
            Kind::Lateen(binary) => {
                let lateen = self.lateen(stage, binary);
                lateen.join(host)?;
                lateen.daemon(host, &["--waypoint", &format!("bench/{host}")])?
            }
            _ => return Err(Fault::said("starting a waypoint", "there is none")),
        };
        let waypoint = daemon.pid();
        let mut mesh = Mesh {
            daemons: vec![daemon],
            server: way.address,
            waypoint: Some(waypoint),
            ..Mesh::transparent(&self.ground)
        };
        let listening = || host_has_socket(stage, host, LISTENING);
        until(&format!("listening on {host}"), PATIENCE, || {
            // Nobody who has ended will ever listen.
            Ok(mesh.alive().is_err() || listening()?)
        })?;
        mesh.alive()?;
        let mut contender = self.contender(way, mesh, Vec::new());
        contender.idle.1 = resident(waypoint)?;
        self.probe(stage, way)?;
        match host_has_socket(stage, host, ESTABLISHED)? {
            true => Ok(contender),
            false => Err(Fault::said(
                "sending a request through the waypoint",
                format!("answered, but nothing is connected to port {TUNNELS} of {host}"),
            )),
        }
    }

    fn contender(&self, way: &Way, mesh: Mesh, servers: Vec<Daemon>) -> Contender {
        Contender {
            name: way.name,
            ground: self.ground.clone(),
            mesh,
            idle: (0, 0),
            _servers: servers,
        }
    }

    /// One request.
    fn probe(&self, stage: &Stage, way: &Way) -> Result<(), Fault> {
        let mut command = crate::load::command(stage, &self.ground.client, "probe")?;
        command.arg(format!("{}:{}", way.address, http::PORT));
        output(&mut command, "", PATIENCE)?;
        Ok(())
    }
}

/// Whether there is a socket for tunnels on a host itself, in this state.
fn host_has_socket(stage: &Stage, host: &str, state: &str) -> Result<bool, Fault> {
    let mut command = stage.on(host, "cat");
    command.args(["/proc/net/tcp", "/proc/net/tcp6"]);
    Ok(lists(&output(&mut command, "", BRIEF)?, TUNNELS, state))
}
