//! Datagrams of units and users on the host's network: each comes to the proxy as its workload's, nothing
//! that is for the mesh gets past, and nobody passes for another.

use std::net::{SocketAddr, UdpSocket};

use lateen::capture::ruleset::{DATAGRAM_MARK, FIRST_MARK, PROXY_MARK, RETURN_MARK};
use lateen::capture::{Datagrams, Mark, Target, Wanted};
use rustix::thread::CapabilitySet;
use socket2::{Domain, SockRef, Socket, Type};

use crate::keeper::Keeper;
use crate::relay::{Came, Relay};
use crate::room::{CART, OUTSIDE, Room, at, cases};
use crate::site::{STRANGER, Site, WEB, wanted};
use crate::smuggling::{TRICKS, Trick, attempt, frame, silent};
use crate::udp::{OWN, PORT, SERVICE, SILENCE, any, asked, bound, echoed, hear, here, server};
use crate::wire::{TOKEN, Wire};

/// The service's port, and the workload's own at every address there is.
fn some() -> Datagrams {
    let peers = CART.into_iter().chain(OUTSIDE).map(|ip| at(ip, OWN));
    Datagrams {
        destinations: SERVICE
            .map(|ip| at(ip, PORT))
            .into_iter()
            .chain(peers)
            .collect(),
        ports: [].into(),
    }
}

/// A unit that is called at its own port, and a user.
fn workloads(site: &Site<'_>) -> Vec<Wanted> {
    let mut cart = wanted(0, site.unit("cart"), 8080);
    cart.udp_ports = [OWN].into();
    let web = Target::User(WEB.to_string().into());
    vec![cart, wanted(1, web, 8081)]
}

fn mark(nth: usize) -> Mark {
    Mark::all().nth(nth).unwrap()
}

fn web(room: &Room, at: SocketAddr) -> UdpSocket {
    room.program(WEB, CapabilitySet::NET_RAW, || bound(any(at), 0))
}

fn stranger(room: &Room, at: SocketAddr) -> UdpSocket {
    room.program(STRANGER, CapabilitySet::NET_RAW, || bound(any(at), 0))
}

cases! {
    fn whose_a_datagram_is_its_mark_says(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let _keeper = Keeper::on_host(room);
        let _peers = OUTSIDE.map(|ip| server(bound(ip, OWN)));
        for kept in [false, true] {
            let relay = Relay::on_host(&site, kept, workloads(&site), some());
            for (cart, (service, outside)) in CART.into_iter().zip(SERVICE.into_iter().zip(OUTSIDE)) {
                for to in [at(service, PORT), at(outside, OWN)] {
                    for (nth, program) in [
                        (0, site.within("cart", || bound(any(to), 0))),
                        (1, web(room, to)),
                    ] {
                        let (mark, from) = (mark(nth), here(&program, cart));
                        for _again in 0..2 {
                            echoed(&program, to, b"into the mesh");
                            assert_eq!(relay.seen(), [Came::Of { mark, from, to }], "kept {kept}");
                        }
                    }
                }
                // Of nobody captured.
                let program = stranger(room, at(outside, OWN));
                let seen = asked(&program, at(outside, OWN)).unwrap();
                assert_eq!(seen, here(&program, cart).to_string());
                assert_eq!(relay.seen(), [], "kept {kept}");
            }
            relay.stop();
            // Else those of this one would do for the next, until it has its own.
            room.sh("nft delete table inet lateen");
        }
    }

    fn a_declared_port_is_reached_through_the_proxy_and_no_other_is(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let relay = Relay::on_host(&site, false, workloads(&site), some());
        server(site.within("cart", || bound("::", OWN)));
        server(site.within("cart", || bound("::", 9999)));
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (to, client) = (at(cart, OWN), bound(outside, 0));
            let from = here(&client, outside);
            for _again in 0..2 {
                assert_eq!(asked(&client, to).unwrap(), from.to_string());
                let back = Came::Back { from: to, to: from };
                assert_eq!(relay.seen(), [Came::Inbound { from, to }, back]);
            }
            assert_eq!(asked(&client, at(cart, 9999)).unwrap(), from.to_string());
            assert_eq!(relay.seen(), [], "undeclared");
            // From this host: who is captured is itself, who is not is nobody.
            let program = stranger(room, to);
            let from = here(&program, cart);
            let seen: SocketAddr = asked(&program, to).unwrap().parse().unwrap();
            assert!(seen.ip() == from.ip() && seen != from, "{seen}");
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, Came::Back { from: to, to: from }]);
            let program = web(room, to);
            echoed(&program, to, b"of the mesh");
            let from = here(&program, cart);
            assert_eq!(relay.seen(), [Came::Of { mark: mark(1), from, to }]);
            let loopback = if cart.contains(':') { "::1" } else { "127.0.0.1" };
            let program = web(room, to);
            assert_eq!(asked(&program, at(loopback, OWN)).unwrap(), here(&program, loopback).to_string());
            assert_eq!(relay.seen(), [], "over loopback");
        }
    }

    /// Whatever is tried, up or away; and who it is nobody can say of himself.
    fn nothing_for_the_mesh_gets_past_whatever_is_forged(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let _peers = OUTSIDE.map(|ip| bound(ip, OWN));
        let mut relay = Some(Relay::on_host(&site, false, workloads(&site), some()));
        let wire = Wire::of(&[CART[0], CART[1], "127.0.0.1", "::1"]);
        let marks = [0, RETURN_MARK, DATAGRAM_MARK, PROXY_MARK, FIRST_MARK + 1, 0xfff, 0x1601, 0xca6c];
        for proxy in ["up", "away"] {
            for (family, outside) in OUTSIDE.into_iter().enumerate() {
                for (to, forged) in [at(outside, OWN), at(SERVICE[family], PORT)]
                    .into_iter()
                    .flat_map(|to| marks.map(|mark| (to, (mark != 0).then_some(mark))))
                {
                    for trick in TRICKS {
                        let outcome = site.within("cart", || attempt(trick, family, to, forged));
                        let escaped = wire.escapes();
                        assert!(
                            escaped.is_empty(),
                            "{trick:?} {forged:x?} to {to}, proxy {proxy}: {outcome:?}, {escaped:x?}"
                        );
                        for came in relay.iter().flat_map(Relay::seen) {
                            let own = matches!(came, Came::Of { mark: of, .. } if of == mark(0));
                            assert!(own, "{trick:?} {forged:x?} to {to}: {came:?}");
                        }
                    }
                }
            }
            if let Some(relay) = relay.take() {
                relay.stop();
            }
        }
    }

    fn nobody_passes_for_a_workload(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let relay = Relay::on_host(&site, false, workloads(&site), some());
        for (family, cart) in CART.into_iter().enumerate() {
            let (service, outside) = (at(SERVICE[family], PORT), OUTSIDE[family]);
            // One that the mesh takes, at an address of this host: a frame gets there by itself.
            let own = at(cart, OWN);
            room.program(STRANGER, CapabilitySet::NET_RAW, || {
                for forged in [FIRST_MARK, FIRST_MARK + 1, DATAGRAM_MARK] {
                    for trick in [Trick::Plain, Trick::Raw] {
                        let _passes_by = attempt(trick, family, service, Some(forged));
                    }
                    for to in [service, own] {
                        frame(at(cart, 9), to, forged);
                        frame(at(outside, 9), to, forged);
                    }
                }
            });
            // Nor one workload for another: what is remembered of its own end does not help.
            let program = web(room, service);
            let from = here(&program, cart);
            for to in [service, own] {
                echoed(&program, to, b"its own");
                assert_eq!(relay.seen(), [Came::Of { mark: mark(1), from, to }]);
                room.program(WEB, CapabilitySet::NET_RAW, || frame(from, to, FIRST_MARK));
            }
            // To the proxy's ports themselves.
            for port in [15001, 15006] {
                room.program(WEB, CapabilitySet::NET_RAW, || {
                    let socket = bound(cart, 0);
                    SockRef::from(&socket).set_mark(FIRST_MARK).unwrap();
                    socket.send_to(b"directly", at(cart, port)).unwrap();
                });
                bound(outside, 0).send_to(b"directly", at(cart, port)).unwrap();
            }
            echoed(&program, service, b"after them");
            assert_eq!(relay.seen(), [Came::Of { mark: mark(1), from, to: service }]);
        }
    }

    /// Sockets that share an end are still each its own program's.
    fn programs_that_share_a_port_are_told_apart(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let relay = Relay::on_host(&site, false, workloads(&site), some());
        let to = at(SERVICE[0], PORT);
        let shared = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&at(CART[0], 4000).into()).unwrap();
            UdpSocket::from(socket)
        };
        let unit = site.within("cart", shared);
        let user = room.program(WEB, CapabilitySet::empty(), shared);
        // The one floods, the other says little.
        let times = [500, 20_000];
        std::thread::scope(|scope| {
            for (socket, times) in [&unit, &user].into_iter().zip(times) {
                scope.spawn(move || {
                    for _each in 0..times {
                        socket.send_to(b"shared", to).unwrap();
                    }
                });
            }
        });
        std::thread::sleep(SILENCE);
        // What was remembered of the other is dropped, and never taken for its.
        let seen = relay.seen();
        for (nth, times) in times.into_iter().enumerate() {
            let own = |came: &&Came| matches!(came, Came::Of { mark: of, .. } if *of == mark(nth));
            let count = seen.iter().filter(own).count();
            assert!((1..=times).contains(&count), "{count} of {times}");
        }
    }

    fn without_the_proxy_nobody_is_given_what_is_its(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        Relay::on_host(&site, false, workloads(&site), some()).stop();
        let wire = Wire::new();
        let squatters = [PORT, 15001, 15006].map(|port| {
            room.program(STRANGER, CapabilitySet::NET_BIND_SERVICE, || bound("::", port))
        });
        let called = site.within("cart", || bound("::", OWN));
        for (family, cart) in CART.into_iter().enumerate() {
            let (service, own) = (at(SERVICE[family], PORT), at(cart, OWN));
            for program in [site.within("cart", || bound(any(own), 0)), web(room, own)] {
                for to in [service, own, at(OUTSIDE[family], OWN)] {
                    let _refused = program.send_to(TOKEN, to);
                }
            }
            let _refused = stranger(room, own).send_to(b"in", own);
            bound(OUTSIDE[family], 0).send_to(b"in", own).unwrap();
            squatters.iter().chain([&called]).for_each(silent);
            assert_eq!(wire.escapes(), [""; 0], "{cart}");
        }
    }

    /// A tunnel of others that goes by datagrams marks its own, with the same bits.
    fn what_others_mark_passes_by(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let relay = Relay::on_host(&site, false, workloads(&site), some());
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (elsewhere, taken) = (bound(outside, 51_820), bound(outside, OWN));
            for (there, forged) in [&elsewhere, &taken]
                .into_iter()
                .flat_map(|there| [0xca6c, FIRST_MARK, FIRST_MARK + 1].map(|mark| (there, mark)))
            {
                let program = room.program(STRANGER, CapabilitySet::NET_RAW, || {
                    let socket = bound(any(at(cart, 1)), 0);
                    SockRef::from(&socket).set_mark(forged).unwrap();
                    socket
                });
                program.send_to(b"tunnel", here(there, outside)).unwrap();
                assert_eq!(hear(there).unwrap(), (b"tunnel".to_vec(), here(&program, cart)), "{forged:#x}");
                there.send_to(b"back", here(&program, cart)).unwrap();
                assert!(hear(&program).is_ok(), "{forged:#x}");
            }
        }
        assert_eq!(relay.seen(), []);
    }

    fn what_is_told_later_is_captured_then_and_by_who_comes_next(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let mut keeper = Keeper::on_host(room);
        let _peers = OUTSIDE.map(|ip| server(bound(ip, 7000)));
        let mut more = some();
        more.destinations.extend(OUTSIDE.map(|ip| at(ip, 7000)));
        for kept in [false, true] {
            let relay = Relay::on_host(&site, kept, workloads(&site), some());
            let to = at(OUTSIDE[0], 7000);
            let program = site.within("cart", || bound(any(to), 0));
            let from = here(&program, CART[0]);
            assert_eq!(asked(&program, to).unwrap(), from.to_string(), "past");
            relay.tell(more.clone());
            relay.settled(room);
            echoed(&program, to, b"now");
            assert_eq!(relay.seen(), [Came::Of { mark: mark(0), from, to }], "kept {kept}");
            if kept {
                // Another keeper learns all of it.
                keeper.kill();
                echoed(&program, to, b"without a keeper");
                keeper = Keeper::on_host(room);
                for told in [some(), more.clone()] {
                    relay.tell(told);
                    relay.settled(room);
                }
                echoed(&program, to, b"by another keeper");
                assert_eq!(relay.seen().len(), 2);
            }
            relay.stop();
        }
    }
}
