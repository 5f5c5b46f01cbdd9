//! Datagrams for the mesh, and forgeries of them: nothing gets past the proxy, also while it is away.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use lateen::capture::ruleset::{OUTBOUND_PORT, PLAINTEXT_PORT};
use lateen::sys::packet_socket;
use rustix::thread::CapabilitySet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::forgery::{UDP, datagram, filled, nodefrag, packet_of, send_marked};
use crate::relay::{Came, Relay};
use crate::room::{CART, OUTSIDE, Room, Users, at, cases};
use crate::udp::{OWN, PATIENCE, PORT, SERVICE, SILENCE, any, bound, echoed, hear, here, some};
use crate::wire::{TOKEN, Wire};

/// That nobody hears anything.
pub(crate) fn silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = hear(socket);
    assert!(heard.is_err(), "{heard:?}");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

cases! {
    fn without_the_proxy_nothing_passes(room: &Room) {
        let peers = OUTSIDE.map(|ip| bound(ip, OWN));
        Relay::start(room, some()).stop();
        let wire = Wire::new();
        for squatted in [false, true] {
            let squatters = [OUTBOUND_PORT, PLAINTEXT_PORT].map(|port| squatted.then(||
                room.program(1002, CapabilitySet::empty(), || bound("::", port))
            ));
            for (family, cart) in CART.into_iter().enumerate() {
                let program = room.workload(|| bound(any(at(cart, 1)), OWN));
                let _forbidden = program.send_to(TOKEN, at(OUTSIDE[family], OWN));
                silent(&peers[family]);
                assert_eq!(wire.escapes(), [""; 0], "{cart}");
                peers[family].send_to(b"in", at(cart, OWN)).unwrap();
                silent(&program);
            }
            squatters.iter().flatten().for_each(silent);
        }
    }

    /// Not even by marks, which a program with NET_RAW may set.
    fn nothing_for_the_mesh_gets_past_whatever_is_forged(room: &Room) {
        let _peers = OUTSIDE.map(|ip| bound(ip, OWN));
        let mut relay = Some(Relay::start(room, some()));
        let wire = Wire::of(&[CART[0], CART[1], "127.0.0.1", "::1"]);
        let marks = [None, Some(0x111), Some(0x222), Some(0x539), Some(0x600), Some(0x1222), Some(0x1111)];
        for proxy in ["up", "away"] {
            for (family, outside) in OUTSIDE.into_iter().enumerate() {
                let to = at(outside, OWN);
                for mark in marks {
                    // Among one user, the mark is all there is.
                    if room.users == Users::One && mark == Some(0x539) { continue }
                    for trick in TRICKS {
                        let outcome = room.workload(|| attempt(trick, family, to, mark));
                        let escaped = wire.escapes();
                        assert!(
                            escaped.is_empty(),
                            "{trick:?} {mark:x?} to {to}, proxy {proxy}: {outcome:?}, {escaped:x?}"
                        );
                    }
                }
                let probe = room.probe(|| attempt(Trick::Plain, family, to, None));
                assert_eq!(wire.escapes(), [""; 0], "a command that probes: {probe:?}");
            }
            if let Some(relay) = relay.take() {
                relay.stop();
            }
        }
    }

    /// What reaches the proxy is for the mesh and from the workload, whatever is forged.
    fn nothing_else_comes_to_the_proxy_whatever_is_forged(room: &Room) {
        let relay = Relay::start(room, some());
        let frame = |from, to| frame(from, to, 0x222);
        for (cart, (service, outside)) in CART.into_iter().zip(SERVICE.into_iter().zip(OUTSIDE)) {
            room.workload(|| {
                // To whom the mesh has nothing to say, and as somebody else.
                frame(at(cart, 9), at(outside, 9));
                frame(at(outside, 9), at(service, PORT));
                let _either = attempt(Trick::Plain, usize::from(cart.contains(':')), at(outside, 9), Some(0x222));
                bound(cart, 0).send_to(b"to itself", at(cart, OUTBOUND_PORT)).unwrap();
            });
            bound(outside, 0).send_to(b"directly", at(cart, PLAINTEXT_PORT)).unwrap();
            let program = room.workload(|| bound(cart, 0));
            echoed(&program, at(service, PORT), b"after them");
            let (from, to) = (here(&program, cart), at(service, PORT));
            assert_eq!(relay.seen(), [Came::Outbound { from, to }]);
        }
    }
}

/// Forges a datagram onto the loopback interface.
pub(crate) fn frame(from: SocketAddr, to: SocketAddr, mark: u32) {
    let socket = packet_socket("lo").unwrap();
    SockRef::from(&socket).set_mark(mark).unwrap();
    let head: &[u8] = if to.is_ipv4() {
        &[0x08, 0]
    } else {
        &[0x86, 0xdd]
    };
    let bytes = [
        &[0; 12],
        head,
        &packet_of(UDP, from, to, &datagram(from, to)),
    ]
    .concat();
    rustix::net::send(&socket, &filled(bytes), rustix::net::SendFlags::empty()).unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    Plain,
    /// Its socket is bound to the link, past which no mark leads.
    Device,
    Loopback,
    ProxyPort,
    /// A packet made by itself.
    Raw,
    /// The same, as whom it is not.
    RawAsAnother,
    /// In pieces, of which only the first has ports.
    Fragments,
}

pub(crate) const TRICKS: [Trick; 7] = [
    Trick::Plain,
    Trick::Device,
    Trick::Loopback,
    Trick::ProxyPort,
    Trick::Raw,
    Trick::RawAsAnother,
    Trick::Fragments,
];

/// Tries it; that it fails is as good as that nothing comes of it.
pub(crate) fn attempt(
    trick: Trick,
    family: usize,
    to: SocketAddr,
    mark: Option<u32>,
) -> io::Result<()> {
    let own = at(CART[family], 0);
    let from = match trick {
        Trick::Plain | Trick::Device => SocketAddr::new(own.ip(), 0),
        Trick::Loopback => at(["127.0.0.1", "::1"][family], 0),
        Trick::ProxyPort => at(CART[family], OUTBOUND_PORT),
        Trick::Raw => {
            let from = at(CART[family], 40_003);
            return send_marked(to, &packet_of(UDP, from, to, &datagram(from, to)), mark);
        }
        Trick::RawAsAnother => {
            let from = at(["10.9.9.9", "fd09::9"][family], 40_003);
            return send_marked(to, &packet_of(UDP, from, to, &datagram(from, to)), mark);
        }
        Trick::Fragments => return fragments(at(CART[family], 40_003), to, mark),
    };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_reuse_address(true)?;
    if trick == Trick::Device {
        socket.bind_device(Some(b"eth0"))?;
    }
    socket.bind(&from.into())?;
    socket.send_to(TOKEN, &to.into())?;
    Ok(())
}

fn fragments(from: SocketAddr, to: SocketAddr, mark: Option<u32>) -> io::Result<()> {
    let whole = datagram(from, to);
    let mut outcome = Ok(());
    // All that it says is in the second.
    for (offset, more, part) in [(0, true, &whole[..8]), (8, false, &whole[8..])] {
        let place = |unit: u16| offset / 8 * unit;
        let packet = match to {
            SocketAddr::V4(_) => {
                let mut packet = packet_of(UDP, from, to, part);
                let flags = place(1) | if more { 0x2000 } else { 0 };
                packet[6..8].copy_from_slice(&flags.to_be_bytes());
                packet
            }
            SocketAddr::V6(_) => {
                let place = (place(8) | u16::from(more)).to_be_bytes();
                let head = [UDP, 0, place[0], place[1], 0, 0, 0, 7];
                packet_of(44, from, to, &[&head, part].concat())
            }
        };
        let socket = Socket::new(
            Domain::for_address(to),
            Type::RAW,
            Some(Protocol::from(255)),
        )?;
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        if to.is_ipv4() {
            // Else they are put together before any rule sees them.
            nodefrag(&socket)?;
        }
        // The second whatever becomes of the first.
        let sent = socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into());
        let sent = sent.map(drop);
        outcome = outcome.and(sent);
    }
    outcome
}
