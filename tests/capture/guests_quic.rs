//! Tunnels by QUIC to guests behind an interface end at the proxy, which answers from their addresses.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use lateen::capture::ruleset::HBONE_PORT;
use lateen::capture::{Datagrams, Exclusions, HostPlan, host};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::thread::CapabilitySet;

use crate::guests::{GATEWAY, GUEST, build, build_bridge, inside, member, run};
use crate::guests_udp::deaf;
use crate::keeper::{Keeper, as_proxy};
use crate::programs::{Server, connect, listen};
use crate::quic::as_itself;
use crate::room::{OUTSIDE, Room, at, cases};
use crate::udp::{any, asked, bound, echoed, here, server};

/// Where a datagram of a tunnel came from, and for which address.
type Came = (SocketAddr, IpAddr);

fn apply(room: &Room, port: Option<&str>, udp: bool) {
    let none = Exclusions::default();
    let members = [member(port)];
    let plan = HostPlan::new(room.exemption(), &none, &members);
    let plan = match udp {
        true => plan.with_udp(&none, &members, &Datagrams::default()),
        false => plan,
    };
    run(host::apply::apply(&room.cart, &plan)).unwrap();
}

/// The proxy's end of tunnels on the host's network, which sends all back; where each came from is told.
fn tunnels(room: &Room, kept: bool) -> Receiver<Came> {
    let socket: UdpSocket = match kept {
        true => as_proxy(room, async |sockets| {
            let host = sockets.host().await.unwrap();
            sockets.listen_tunnels_udp(&host).await.unwrap()
        }),
        false => as_itself(room, async |sockets| {
            room.cart.settle().unwrap();
            let host = sockets.host().await.unwrap();
            sockets.listen_tunnels_udp(&host).await.unwrap()
        }),
    };
    let state = UdpSocketState::new((&socket).into()).unwrap();
    socket.set_nonblocking(false).unwrap();
    let (tell, came) = channel();
    thread::spawn(move || while answer(&socket, &state, |came| tell.send(came).is_ok()).is_ok() {});
    came
}

/// As QUIC does: from the address that was asked.
fn answer(
    socket: &UdpSocket,
    state: &UdpSocketState,
    tell: impl Fn(Came) -> bool,
) -> io::Result<()> {
    let mut heard = [0; 2048];
    let mut meta = [RecvMeta::default()];
    let came = {
        let mut room = [IoSliceMut::new(&mut heard)];
        state.recv(socket.into(), &mut room, &mut meta)?;
        let to = meta[0].dst_ip.unwrap().to_canonical();
        let from = meta[0].addr;
        (SocketAddr::new(from.ip().to_canonical(), from.port()), to)
    };
    if !tell(came) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    state.send(
        socket.into(),
        &Transmit {
            destination: meta[0].addr,
            ecn: None,
            contents: &heard[..meta[0].len],
            segment_size: None,
            src_ip: meta[0].dst_ip,
        },
    )
}

fn taken(room: &Room, came: &Receiver<Came>) {
    for ((guest, outside), gateway) in GUEST.into_iter().zip(OUTSIDE).zip(GATEWAY) {
        let to = at(guest, HBONE_PORT);
        // Peers ask from the same port.
        for port in [0, HBONE_PORT] {
            let peer = bound(outside, port);
            let from = here(&peer, outside);
            echoed(&peer, to, b"from outside");
            assert_eq!(came.recv().unwrap(), (from, to.ip()));
        }
        let program = room.workload(|| bound(any(to), 0));
        let from = here(&program, gateway);
        echoed(&program, to, b"from this host");
        assert_eq!(came.recv().unwrap(), (from, to.ip()));
    }
    assert!(came.try_recv().is_err());
}

cases! {
    fn tunnels_to_a_guest_end_at_the_proxy(room: &Room) {
        build(room);
        apply(room, None, false);
        taken(room, &tunnels(room, false));
    }

    fn tunnels_to_a_guest_end_at_a_proxy_without_powers_too(room: &Room) {
        build(room);
        let _keeper = Keeper::on_host(room);
        apply(room, None, true);
        taken(room, &tunnels(room, true));
    }

    fn tunnels_to_a_guest_of_a_bridge_do_as_well(room: &Room) {
        build_bridge(room);
        apply(room, Some("tap3"), true);
        taken(room, &tunnels(room, false));
    }

    fn without_the_proxy_no_tunnel_comes_to_a_guest(room: &Room) {
        build(room);
        for udp in [false, true] {
            apply(room, None, udp);
            for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
                let program = inside(|| bound(guest, HBONE_PORT));
                let to = at(guest, HBONE_PORT);
                let _refused = bound(outside, 0).send_to(b"from outside", to);
                let own = room.workload(|| bound(any(to), 0));
                let _refused = own.send_to(b"from this host", to);
                assert!(deaf(&program), "{to}");
            }
        }
    }

    fn whoever_takes_the_dead_proxys_port_is_given_no_tunnel_to_a_guest(room: &Room) {
        build(room);
        let squatting = || (bound("::", HBONE_PORT), listen(HBONE_PORT));
        let (squatter, listening) = room.program(1002, CapabilitySet::empty(), squatting);
        let listening = Server::on(listening);
        for udp in [false, true] {
            apply(room, None, udp);
            for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
                let to = at(guest, HBONE_PORT);
                let _refused = bound(outside, 0).send_to(b"from outside", to);
                let own = room.workload(|| bound(any(to), 0));
                let _refused = own.send_to(b"from this host", to);
                assert!(deaf(&squatter), "{to}");
                assert!(room.workload(|| connect(to)).is_err(), "{to}");
                assert!(connect(to).is_err(), "{to}");
            }
        }
        assert_eq!(listening.accepted(), 0);
    }

    fn that_port_of_others_is_a_guests_to_speak_to(room: &Room) {
        build(room);
        apply(room, None, true);
        let came = tunnels(room, false);
        for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
            server(bound(outside, HBONE_PORT));
            let to = at(outside, HBONE_PORT);
            // Of itself the host can find no neighbour for another, without an address of the link's.
            let own = room.workload(|| bound(any(to), 0));
            asked(&own, to).unwrap();
            let program = inside(|| bound(guest, 0));
            let seen = asked(&program, to).unwrap();
            assert_eq!(seen, here(&program, guest).to_string());
        }
        assert!(came.try_recv().is_err());
    }
}
