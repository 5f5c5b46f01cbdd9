//! Datagrams of guests behind an interface: each comes to the proxy as its guest's, what is for a port that
//! a guest declares as well, and nothing of either gets past.

use std::net::{SocketAddr, UdpSocket};

use lateen::capture::{Datagrams, Mark, Target, Wanted};

use crate::guests::{GATEWAY, GUEST, NEIGHBOUR, build, build_bridge, inside, within};
use crate::keeper::Keeper;
use crate::relay::{Came, Relay};
use crate::room::{CART, OUTSIDE, Room, at, cases, eventually, sh};
use crate::site::Site;
use crate::udp::{OWN, PORT, SERVICE, SILENCE, any, asked, bound, echoed, hear, here, server};
use crate::wire::{TOKEN, Wire};

/// Another port of the guest, which it does not declare.
const OTHER: u16 = 7947;

fn some() -> Datagrams {
    let peers = GUEST.into_iter().chain(OUTSIDE).map(|ip| at(ip, OWN));
    let services = SERVICE.map(|ip| at(ip, PORT)).into_iter();
    Datagrams {
        destinations: services.chain(peers).collect(),
        ports: [].into(),
    }
}

fn mark() -> Mark {
    Mark::all().nth(300).unwrap()
}

fn guest() -> Vec<Wanted> {
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

/// The same with the guest on a bridge, where a neighbour has a port that is of the mesh as well.
fn served_on_bridge<'a>(room: &'a Room) -> Option<(Site<'a>, Relay)> {
    build_bridge(room);
    let site = Site::of(room)?;
    let relay = Relay::on_host(&site, false, guest(), with_neighbour());
    Some((site, relay))
}

fn with_neighbour() -> Datagrams {
    let mut datagrams = some();
    datagrams
        .destinations
        .extend(NEIGHBOUR.map(|ip| at(ip, OWN)));
    datagrams
}

fn neighbour<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    within("other", work)
}

fn deaf(socket: &UdpSocket) -> bool {
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

    fn a_guest_of_a_bridge_is_in_the_mesh_as_any_other(room: &Room) {
        let Some((_site, relay)) = served_on_bridge(room) else { return };
        inside(|| server(bound("::", OWN)));
        for ((guest, service), outside) in GUEST.into_iter().zip(SERVICE).zip(OUTSIDE) {
            let program = inside(|| bound(guest, 0));
            let (from, to) = (here(&program, guest), at(service, PORT));
            echoed(&program, to, b"into the mesh");
            assert_eq!(relay.seen(), [Came::Of { mark: mark(), from, to }]);
            let (client, to) = (bound(outside, 0), at(guest, OWN));
            let from = here(&client, outside);
            assert_eq!(asked(&client, to).unwrap(), from.to_string());
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, Came::Back { from: to, to: from }]);
        }
    }

    fn guests_of_a_bridge_send_each_other_nothing_below_the_proxy(room: &Room) {
        let Some((_site, relay)) = served_on_bridge(room) else { return };
        let guests = [OWN, OTHER].map(|port| inside(|| bound("::", port)));
        let neighbours = [OWN, OTHER].map(|port| neighbour(|| bound("::", port)));
        let client = |to| inside(|| bound(any(to), 0));
        let caller = |to| neighbour(|| bound(any(to), 0));
        let short = TOKEN.to_vec();
        // In pieces, of which the first alone says for which port it is.
        let long = [TOKEN, &[0; 8000]].concat();
        let meet = |family: usize, payload: &[u8]| {
            let (guest, other) = (GUEST[family], NEIGHBOUR[family]);
            let to = at(other, OTHER);
            client(to).send_to(payload, to).unwrap();
            let to = at(guest, OTHER);
            caller(to).send_to(payload, to).unwrap();
            for heard in [&guests[1], &neighbours[1]] {
                assert_eq!(hear(heard).unwrap().0.len(), payload.len(), "not of the mesh");
            }
            let to = at(other, OWN);
            let _dropped = client(to).send_to(payload, to);
            let to = at(guest, OWN);
            let _dropped = caller(to).send_to(payload, to);
        };
        for family in 0..2 {
            for payload in [&short, &long] {
                meet(family, payload);
            }
        }
        assert!(deaf(&guests[0]) && deaf(&neighbours[0]));
        assert_eq!(relay.seen(), []);
        // Nor once the proxy is away.
        relay.stop();
        for family in 0..2 {
            meet(family, &short);
        }
        assert!(deaf(&guests[0]) && deaf(&neighbours[0]));
    }

    fn a_guest_of_a_bridge_sends_into_the_mesh_as_itself_or_not_at_all(room: &Room) {
        let Some((_site, relay)) = served_on_bridge(room) else { return };
        sh("ip -n vm address add fd02::9/64 dev eth0 nodad");
        let peers = OUTSIDE.map(|ip| bound(ip, OWN));
        let others = OUTSIDE.map(|ip| bound(ip, OTHER));
        let wire = Wire::of(&["10.2.0.9", "fd02::9"]);
        for (family, ip) in ["10.2.0.9", "fd02::9"].into_iter().enumerate() {
            let program = inside(|| bound(ip, 0));
            for payload in [TOKEN.to_vec(), [TOKEN, &[0; 8000]].concat()] {
                let _dropped = program.send_to(&payload, at(OUTSIDE[family], OWN));
            }
            assert!(deaf(&peers[family]));
            assert_eq!(wire.escapes(), [""; 0]);
            let to = at(OUTSIDE[family], OTHER);
            // Of itself the host can find no neighbour for another, without an address of the link's.
            room.workload(|| bound(any(to), 0).send_to(b"the host", to)).unwrap();
            assert_eq!(hear(&others[family]).unwrap().0, b"the host");
            program.send_to(b"not of the mesh", to).unwrap();
            assert_eq!(hear(&others[family]).unwrap().0, b"not of the mesh");
        }
        assert_eq!(relay.seen(), []);
    }

    fn what_a_bridge_knows_of_the_mesh_changes_and_is_put_back(room: &Room) {
        let Some((_site, relay)) = served_on_bridge(room) else { return };
        let rules = || room.sh("nft -a -t list table bridge lateen");
        let sets = || room.sh("nft list table bridge lateen | sed -n '/set /,/}/p'");
        let (was, whole) = (rules(), sets());
        let mut more = with_neighbour();
        more.destinations.insert(at(OUTSIDE[0], OTHER));
        relay.tell(more);
        let wanted = format!("{} . {OTHER}", OUTSIDE[0]);
        eventually("another destination", || match sets() {
            now if now.contains(&wanted) => Ok(()),
            now => Err(now),
        });
        relay.tell(with_neighbour());
        eventually("it has gone", || match sets() {
            now if now == whole => Ok(()),
            now => Err(now),
        });
        assert_eq!(rules(), was, "by elements alone");
        for harm in [
            "nft flush set bridge lateen udp4",
            "nft add element bridge lateen declared_udp4 '{ 10.2.0.9 . 1 }'",
            "nft flush chain bridge lateen meeting",
            "nft add chain bridge lateen meeting '{ policy drop; }'",
            "nft delete table bridge lateen",
        ] {
            let whole = room.sh("nft -s list table bridge lateen");
            room.sh(harm);
            eventually(harm, || match room.sh("nft -s list table bridge lateen 2>&1 || true") {
                now if now == whole => Ok(()),
                now => Err(now),
            });
        }
    }
}
