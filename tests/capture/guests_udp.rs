//! Datagrams of guests behind an interface: each comes to the proxy as its guest's, what is for a port that
//! a guest declares as well, and nothing of either gets past.

use std::net::{SocketAddr, UdpSocket};

use lateen::capture::{Datagrams, Mark, Target, Wanted};

use crate::guests::{GATEWAY, GUEST, build, inside};
use crate::keeper::Keeper;
use crate::relay::{Came, Relay};
use crate::room::{CART, OUTSIDE, Room, at, cases, eventually, sh};
use crate::site::Site;
use crate::udp::{OWN, PORT, SERVICE, SILENCE, any, asked, bound, echoed, hear, here, server};
use crate::wire::{TOKEN, Wire};

/// Another port of the guest, which it does not declare.
pub(crate) const OTHER: u16 = 7947;

pub(crate) fn some() -> Datagrams {
    let peers = GUEST.into_iter().chain(OUTSIDE).map(|ip| at(ip, OWN));
    let services = SERVICE.map(|ip| at(ip, PORT)).into_iter();
    Datagrams {
        destinations: services.chain(peers).collect(),
        ports: [].into(),
    }
}

pub(crate) fn mark() -> Mark {
    Mark::all().nth(300).unwrap()
}

pub(crate) fn guest() -> Vec<Wanted> {
    vec![Wanted {
        mark: mark(),
        target: Target::Interface("tap3".into()),
        addresses: GUEST.map(|ip| ip.parse().unwrap()).into(),
        ports: [].into(),
        udp_ports: [OWN].into(),
    }]
}

/// A guest and a proxy that serves it; the case is for those who may have units too.
fn served<'a>(room: &'a Room, kept: bool) -> Option<(Site<'a>, Relay)> {
    let site = Site::of(room)?;
    let relay = Relay::on_host(&site, kept, guest(), some());
    Some((site, relay))
}

pub(crate) fn deaf(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    hear(socket).is_err()
}

cases! {
    fn what_a_guest_sends_into_the_mesh_comes_as_its_own(room: &Room) {
        build(room);
        let _keeper = Keeper::on_host(room);
        for kept in [false, true] {
            let Some((_site, relay)) = served(room, kept) else { return };
            for ((guest, service), outside) in GUEST.into_iter().zip(SERVICE).zip(OUTSIDE) {
                for to in [at(service, PORT), at(outside, OWN)] {
                    let program = inside(|| bound(any(to), 0));
                    let from = here(&program, guest);
                    for _again in 0..2 {
                        echoed(&program, to, b"into the mesh");
                        assert_eq!(relay.seen(), [Came::Of { mark: mark(), from, to }], "kept {kept}");
                    }
                    program.connect(to).unwrap();
                    program.send(&[7; 1400]).unwrap();
                    assert_eq!(hear(&program).unwrap().0, [7; 1400]);
                    assert_eq!(relay.seen(), [Came::Of { mark: mark(), from, to }], "kept {kept}");
                }
            }
            relay.stop();
            room.sh("nft delete table inet lateen");
        }
    }

    fn a_guests_declared_port_is_reached_through_the_proxy_and_no_other_is(room: &Room) {
        build(room);
        let Some((_site, relay)) = served(room, false) else { return };
        inside(|| {
            server(bound("::", OWN));
            server(bound("::", OTHER));
        });
        for ((guest, outside), gateway) in GUEST.into_iter().zip(OUTSIDE).zip(GATEWAY) {
            let (to, client) = (at(guest, OWN), bound(outside, 0));
            let from = here(&client, outside);
            let back = |from| Came::Back { from: to, to: from };
            for _again in 0..2 {
                assert_eq!(asked(&client, to).unwrap(), from.to_string());
                assert_eq!(relay.seen(), [Came::Inbound { from, to }, back(from)]);
            }
            assert_eq!(asked(&client, at(guest, OTHER)).unwrap(), from.to_string());
            assert_eq!(relay.seen(), [], "undeclared");
            // A program of the host itself.
            let program = room.workload(|| bound(any(to), 0));
            let from = here(&program, gateway);
            let seen: SocketAddr = asked(&program, to).unwrap().parse().unwrap();
            assert_eq!(seen.ip(), from.ip());
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, back(from)]);
            // Who has called from there goes on to be a client of whom it likes.
            let program = inside(|| bound(any(to), 0));
            server(bound(outside, OTHER));
            asked(&program, at(outside, OTHER)).unwrap();
            assert_eq!(relay.seen(), [], "not of the mesh");
        }
    }

    fn without_the_proxy_nothing_of_a_guest_gets_past(room: &Room) {
        build(room);
        let Some((_site, relay)) = served(room, false) else { return };
        relay.stop();
        let wire = Wire::of(&[GUEST[0], GUEST[1], "10.2.0.9"]);
        let guests = GUEST.map(|ip| inside(|| bound(ip, OWN)));
        let peers = OUTSIDE.map(|ip| bound(ip, OWN));
        for family in 0..2 {
            let (guest, outside) = (GUEST[family], OUTSIDE[family]);
            let program = inside(|| bound(guest, 0));
            for to in [at(SERVICE[family], PORT), at(outside, OWN)] {
                let _refused = program.send_to(TOKEN, to);
            }
            // As if it were an answer, and by the proxy's ports.
            let _refused = guests[family].send_to(TOKEN, at(outside, OWN));
            for port in [15001, 15006, 15008] {
                let program = inside(|| bound(guest, port));
                let _refused = program.send_to(TOKEN, at(outside, OWN));
            }
            assert!(deaf(&peers[family]));
            assert_eq!(wire.escapes(), [""; 0]);
            let client = bound(outside, 0);
            client.send_to(TOKEN, at(guest, OWN)).unwrap();
            let own = room.workload(|| bound(any(at(guest, OWN)), 0));
            let _refused = own.send_to(TOKEN, at(guest, OWN));
            assert!(deaf(&guests[family]));
            let _what_was_sent_to_it = wire.escapes();
        }
        // Under an address that is not its own, and in pieces.
        let program = inside(|| bound("10.2.0.9", 0));
        let _refused = program.send_to(TOKEN, at(OUTSIDE[0], OWN));
        let long = [TOKEN, &[0; 4000]].concat();
        let _refused = guests[0].send_to(&long, at(OUTSIDE[0], OWN));
        assert!(deaf(&peers[0]));
        assert_eq!(wire.escapes(), [""; 0]);
    }

    fn what_a_guest_answers_a_proxy_that_has_gone_stays_here(room: &Room) {
        build(room);
        let Some((_site, relay)) = served(room, false) else { return };
        let guests = GUEST.map(|ip| inside(|| bound(ip, OWN)));
        let asked = OUTSIDE.into_iter().zip(GUEST).zip(&guests).map(|((outside, guest), program)| {
            let client = bound(outside, 0);
            client.send_to(b"question", at(guest, OWN)).unwrap();
            let (_question, from) = hear(program).unwrap();
            assert_eq!(from, here(&client, outside));
            program.send_to(b"answer", from).unwrap();
            assert_eq!(hear(&client).unwrap().0, b"answer");
            (client, from)
        });
        let asked: Vec<_> = asked.collect();
        relay.stop();
        let wire = Wire::of(&GUEST);
        for ((client, from), program) in asked.iter().zip(&guests) {
            let _dropped = program.send_to(TOKEN, from);
            assert!(deaf(client));
        }
        assert_eq!(wire.escapes(), [""; 0]);
    }

    fn what_a_guest_asks_from_its_declared_port_is_answered(room: &Room) {
        build(room);
        room.sh("
            nft add table ip others
            nft 'add chain ip others out { type nat hook postrouting priority 100; }'
            nft add rule ip others out oifname eth0 ip saddr 10.2.0.0/24 masquerade
        ");
        let Some((_site, relay)) = served(room, false) else { return };
        server(bound(OUTSIDE[0], OTHER));
        let program = inside(|| bound(GUEST[0], OWN));
        let seen = asked(&program, at(OUTSIDE[0], OTHER)).unwrap();
        assert!(seen.starts_with(CART[0]), "{seen}");
        assert_eq!(relay.seen(), []);
    }

    fn that_a_guest_has_nobody_there_tells_the_proxy_alone(room: &Room) {
        build(room);
        let Some((_site, relay)) = served(room, false) else { return };
        let wire = Wire::of(&GUEST);
        for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
            let client = bound(outside, 0);
            client.send_to(TOKEN, at(guest, OWN)).unwrap();
            assert!(deaf(&client));
            // It has gone before it is answered.
            let to = at(outside, OWN);
            let program = inside(|| bound(guest, 0));
            let from = here(&program, guest);
            program.send_to(TOKEN, to).unwrap();
            drop(program);
            eventually("it came", || match relay.seen() {
                seen if seen.contains(&Came::Of { mark: mark(), from, to }) => Ok(()),
                seen => Err(seen),
            });
            assert!(deaf(&client));
        }
        assert_eq!(wire.complaints(), [""; 0]);
        // As it would be seen.
        bound(OUTSIDE[0], 0).send_to(TOKEN, at(GUEST[0], OTHER)).unwrap();
        eventually("a complaint of what is let alone", || match wire.complaints().len() {
            1 => Ok(()),
            others => Err(others),
        });
    }

    fn another_address_behind_a_guests_interface_is_nobodys(room: &Room) {
        build(room);
        let Some((_site, relay)) = served(room, false) else { return };
        sh("ip -n vm address add 10.2.0.77/24 dev eth0");
        let answered = inside(|| bound("::", OWN));
        let client = bound(OUTSIDE[0], 0);
        client.send_to(b"question", at(GUEST[0], OWN)).unwrap();
        let (_question, from) = hear(&answered).unwrap();
        assert_eq!(from, here(&client, OUTSIDE[0]));
        // From another address of the same link the same is no answer of the guest's.
        let other = inside(|| bound("10.2.0.77", OWN + 9));
        other.send_to(b"forged", from).unwrap();
        let (heard, from) = hear(&client).unwrap();
        assert_eq!((heard, from), (b"forged".to_vec(), at("10.2.0.77", OWN + 9)));
        assert_eq!(relay.seen(), [Came::Inbound { from: here(&client, OUTSIDE[0]), to: at(GUEST[0], OWN) }]);
        // For the mesh it is nobody.
        let peer = bound(OUTSIDE[0], OWN);
        let other = inside(|| bound("10.2.0.77", 0));
        let _refused = other.send_to(TOKEN, at(OUTSIDE[0], OWN));
        assert!(deaf(&peer));
        assert_eq!(relay.seen(), []);
    }
}
