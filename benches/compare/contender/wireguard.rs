//! WireGuard as an ordinary program, one in each namespace. The work goes to addresses inside it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::{Mesh, helper};
use crate::exec::{Daemon, until};
use crate::fault::Fault;
use crate::rig::{Ground, Place, Stage};

/// The UDP port it tunnels by.
const PORT: u16 = 51820;

/// A place with its keys.
struct Member<'a> {
    place: &'a Place,
    /// Last byte of its address inside.
    last: u8,
    /// Names are per host, not per namespace: its control socket is a file.
    device: String,
    private: String,
    public: String,
}

/// Brings up the tunnels between the three places.
pub(super) fn up(stage: &Stage, ground: &Ground, binary: &Path) -> Result<Mesh, Fault> {
    let members = ground.places().into_iter().zip(1..);
    let members: Vec<_> = members
        .map(|(place, last)| member(place, last))
        .collect::<Result<_, _>>()?;
    let mut mesh = Mesh::transparent(ground);
    mesh.server = inner(ground, 2);
    mesh.neighbour = inner(ground, 3);
    mesh.destinations = (1..=crate::rig::DESTINATIONS)
        .map(|last| behind(ground, last))
        .collect();
    for own in &members {
        let mut command = stage.within(own.place, &binary.display().to_string());
        let log = stage.file(&format!("{}.log", own.place.namespace));
        let daemon = Daemon::start(command.args(["-f", &own.device]), &log)?;
        match own.last {
            1 => mesh.client_side.push(daemon.pid()),
            2 => mesh.server_side.push(daemon.pid()),
            _ => {}
        }
        mesh.daemons.push(daemon);
        configure(stage, ground, own, &members)?;
    }
    Ok(mesh)
}

fn member(place: &Place, last: u8) -> Result<Member<'_>, Fault> {
    let private = helper(Command::new("wg").arg("genkey"), "")?;
    let public = helper(Command::new("wg").arg("pubkey"), &private)?;
    Ok(Member {
        place,
        last,
        device: format!("wg{last}"),
        private: private.trim().to_owned(),
        public: public.trim().to_owned(),
    })
}

/// An address of a member.
fn inner(ground: &Ground, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 92, ground.index, last)
}

/// An address behind the server.
fn behind(ground: &Ground, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 93, ground.index, last)
}

fn configure(
    stage: &Stage,
    ground: &Ground,
    own: &Member<'_>,
    members: &[Member<'_>],
) -> Result<(), Fault> {
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n",
        own.private
    );
    for peer in members.iter().filter(|m| m.last != own.last) {
        let mut allowed = format!("{}/32", inner(ground, peer.last));
        if peer.last == 2 {
            // Writing to a string cannot fail, here and below.
            let _infallible = write!(allowed, ", {}/24", behind(ground, 0));
        }
        let _infallible = write!(
            text,
            "[Peer]\nPublicKey = {}\nAllowedIPs = {allowed}\nEndpoint = {}:{PORT}\n",
            peer.public,
            peer.place.address()
        );
    }
    let file = stage.write(&format!("{}/{}.conf", ground.name, own.device), &text)?;
    let device = &own.device;
    let mut script = format!(
        "set -e\nip addr add {}/24 dev {device}\nip link set {device} up mtu 1420\n",
        inner(ground, own.last)
    );
    let last = if own.last == 2 {
        (1..=crate::rig::DESTINATIONS)
            .map(|n| format!("ip addr add {}/32 dev {device}\n", behind(ground, n)))
            .collect()
    } else {
        format!("ip route add {}/24 dev {device}\n", behind(ground, 0))
    };
    script.push_str(&last);
    until("opening a tunnel device", super::PATIENCE, || {
        let set = format!("wg setconf {device} {}", file.display());
        stage.shell(own.place, &set).map(|_nothing| true)
    })?;
    stage.shell(own.place, &script)?;
    Ok(())
}
