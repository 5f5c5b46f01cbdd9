//! Nebula: an overlay network of its own. The work goes to addresses inside it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::{Mesh, helper};
use crate::exec::{Daemon, until};
use crate::fault::Fault;
use crate::rig::{Ground, Place, Stage};

/// The UDP port it tunnels by.
const PORT: u16 = 4242;
/// Its device.
const DEVICE: &str = "nebula1";

/// Brings up the overlay between the three places.
pub(super) fn up(
    stage: &Stage,
    ground: &Ground,
    binary: &Path,
    signer: &Path,
) -> Result<Mesh, Fault> {
    let nebula = Nebula { stage, ground };
    let ca = ["ca", "-name", "bench"].map(str::to_owned);
    nebula.sign(signer, &ca, "ca")?;
    let mut mesh = Mesh::transparent(ground);
    mesh.server = nebula.inner(2);
    mesh.neighbour = nebula.inner(3);
    mesh.destinations = (1..=crate::rig::DESTINATIONS)
        .map(|last| nebula.behind(last))
        .collect();
    for (place, last) in ground.places().into_iter().zip(1..) {
        nebula.certify(signer, place, last)?;
        let text = nebula.settings(place, last);
        let name = format!("{}/{}.yaml", ground.name, place.namespace);
        let file = stage.write(&name, &text)?;
        let mut command = stage.within(place, &binary.display().to_string());
        let log = stage.file(&format!("{}/{}.log", ground.name, place.namespace));
        let daemon = Daemon::start(command.arg("-config").arg(file), &log)?;
        match last {
            1 => mesh.client_side.push(daemon.pid()),
            2 => mesh.server_side.push(daemon.pid()),
            _ => {}
        }
        mesh.daemons.push(daemon);
        until("making a tunnel device", super::PATIENCE, || {
            Ok(stage
                .shell(place, &format!("ip -o addr show dev {DEVICE}"))?
                .contains(&nebula.inner(last).to_string()))
        })?;
    }
    let add = mesh.destinations.iter();
    let add = add.map(|a| format!("ip addr add {a}/32 dev {DEVICE}\n"));
    stage.shell(&ground.server, &add.collect::<String>())?;
    Ok(mesh)
}

struct Nebula<'a> {
    stage: &'a Stage,
    ground: &'a Ground,
}

impl Nebula<'_> {
    /// An address of a member.
    fn inner(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 90, self.ground.index, last)
    }

    /// An address behind the server.
    fn behind(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.ground.index, last)
    }

    fn path(&self, file: &str) -> String {
        let name = format!("{}/{file}", self.ground.name);
        self.stage.file(&name).display().to_string()
    }

    fn sign(&self, signer: &Path, words: &[String], name: &str) -> Result<(), Fault> {
        self.stage.directory(self.ground.name)?;
        let mut command = Command::new(signer);
        command.args(words);
        command.args(["-out-crt", &self.path(&format!("{name}.crt"))]);
        command.args(["-out-key", &self.path(&format!("{name}.key"))]);
        helper(&mut command, "").map(drop)
    }

    fn certify(&self, signer: &Path, place: &Place, last: u8) -> Result<(), Fault> {
        let mut words = vec![
            "sign".to_owned(),
            "-name".to_owned(),
            place.namespace.clone(),
            "-ip".to_owned(),
            format!("{}/24", self.inner(last)),
            "-ca-crt".to_owned(),
            self.path("ca.crt"),
            "-ca-key".to_owned(),
            self.path("ca.key"),
        ];
        if last == 2 {
            words.extend(["-subnets".to_owned(), format!("{}/24", self.behind(0))]);
        }
        self.sign(signer, &words, &place.namespace)
    }

    fn settings(&self, place: &Place, last: u8) -> String {
        let hosts = self.ground.places().into_iter().zip(1..);
        let hosts: String = hosts
            .map(|(p, n)| format!("  \"{}\": [\"{}:{PORT}\"]\n", self.inner(n), p.address()))
            .collect();
        let route = match last {
            2 => String::new(),
            _ => format!(
                "  unsafe_routes:\n    - route: {}/24\n      via: {}\n",
                self.behind(0),
                self.inner(2)
            ),
        };
        format!(
            "pki:\n  ca: {ca}\n  cert: {crt}\n  key: {key}\n\
             static_host_map:\n{hosts}\
             lighthouse:\n  am_lighthouse: false\n\
             listen:\n  host: 0.0.0.0\n  port: {PORT}\n\
             tun:\n  dev: {DEVICE}\n{route}\
             firewall:\n  default_local_cidr_any: true\n  outbound:\n    - {any}\n  inbound:\n    - {any}\n",
            ca = self.path("ca.crt"),
            crt = self.path(&format!("{}.crt", place.namespace)),
            key = self.path(&format!("{}.key", place.namespace)),
            any = "{ port: any, proto: any, host: any }",
        )
    }
}
