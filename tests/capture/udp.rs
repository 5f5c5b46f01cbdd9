//! Datagrams for the mesh come to the proxy with their destination, those from outside with their source,
//! and answers from where they were asked; whatever else is let alone.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use lateen::capture::{Datagrams, Target};

use crate::keeper::Keeper;
use crate::proxy::Proxy;
use crate::quic::as_itself;
use crate::relay::{Came, Relay};
use crate::room::{CART, OUTSIDE, Room, at, cases};

/// Addresses of a service, where nobody is.
pub(crate) const SERVICE: [&str; 2] = ["10.200.0.1", "fd99::1"];
/// Its port, below those that take no powers, and the workload's own.
pub(crate) const PORT: u16 = 514;
pub(crate) const OWN: u16 = 7946;
/// Longest wait for a datagram that should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for one that should not.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);

/// The service's port, and the workload's own at every address there is.
pub(crate) fn some() -> Datagrams {
    let service = SERVICE.map(|ip| at(ip, PORT));
    let peers = OUTSIDE.map(|ip| at(ip, OWN));
    Datagrams {
        destinations: service.into_iter().chain(peers).collect(),
        ports: [OWN].into(),
    }
}

pub(crate) fn bound(ip: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(at(ip, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn any(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "0.0.0.0" } else { "::" }
}

pub(crate) fn here(socket: &UdpSocket, ip: &str) -> SocketAddr {
    at(ip, socket.local_addr().unwrap().port())
}

pub(crate) fn hear(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut heard = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut heard)?;
    heard.truncate(length);
    Ok((
        heard,
        SocketAddr::new(from.ip().to_canonical(), from.port()),
    ))
}

/// Sends and hears the same back, from there.
pub(crate) fn echoed(socket: &UdpSocket, to: SocketAddr, payload: &[u8]) {
    socket.send_to(payload, to).unwrap();
    let heard = hear(socket).unwrap_or_else(|e| panic!("from {to}: {e}"));
    assert!(heard.0 == payload, "{} bytes from {to}", heard.0.len());
    assert_eq!(heard.1, to);
}

/// A program that says whom it sees, then echoes.
pub(crate) fn server(socket: UdpSocket) {
    socket.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        while let Ok((heard, from)) = hear(&socket) {
            let said = [format!("{from} ").as_bytes(), &heard].concat();
            let mapped = match (socket.local_addr().unwrap(), from) {
                (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                    at(&format!("::ffff:{}", v4.ip()), from.port())
                }
                _ => from,
            };
            socket.send_to(&said, mapped).unwrap();
        }
    });
}

/// Asks one of those; whom it saw.
pub(crate) fn asked(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.send_to(b"question", to)?;
    let (heard, from) = hear(socket)?;
    assert_eq!(from, to, "who answers");
    let text = String::from_utf8(heard).unwrap();
    Ok(text.strip_suffix(" question").unwrap().to_owned())
}

cases! {
    fn what_is_for_the_mesh_comes_to_the_proxy_and_its_answers_from_there(room: &Room) {
        let _keeper = Keeper::start();
        for kept in [false, true] {
            let relay = match kept {
                true => Relay::kept(room, Some(some().into())),
                false => Relay::start(room, some()),
            };
            for (cart, service) in CART.into_iter().zip(SERVICE) {
                let to = at(service, PORT);
                let program = room.workload(|| bound(any(to), 0));
                echoed(&program, to, b"unconnected");
                let from = here(&program, cart);
                assert_eq!(relay.seen(), [Came::Outbound { from, to }], "kept {kept}");
                program.connect(to).unwrap();
                program.send(b"connected").unwrap();
                assert_eq!(hear(&program).unwrap().0, b"connected");
                assert_eq!(relay.seen(), [Came::Outbound { from, to }], "kept {kept}");
            }
            relay.stop();
        }
    }

    /// Peers that all speak from the port at which they are called.
    fn a_program_that_has_the_port_everywhere_is_in_nobodys_way(room: &Room) {
        let relay = Relay::start(room, some());
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let to = at(outside, OWN);
            let program = room.workload(|| bound(any(to), OWN));
            echoed(&program, to, b"peer");
            assert_eq!(relay.seen(), [Came::Outbound { from: at(cart, OWN), to }]);
        }
    }

    fn what_comes_from_outside_comes_to_the_proxy_and_goes_back_through_it(room: &Room) {
        let _keeper = Keeper::start();
        server(room.workload(|| bound("::", OWN)));
        for kept in [false, true] {
            let relay = match kept {
                true => Relay::kept(room, Some(some().into())),
                false => Relay::start(room, some()),
            };
            for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
                let to = at(cart, OWN);
                let client = bound(outside, 0);
                let from = here(&client, outside);
                for _again in 0..3 {
                    // The program has the client's port for nobody else's, and sees it.
                    assert_eq!(asked(&client, to).unwrap(), from.to_string(), "kept {kept}");
                    let back = Came::Back { from: to, to: from };
                    assert_eq!(relay.seen(), [Came::Inbound { from, to }, back], "kept {kept}");
                }
            }
            relay.stop();
        }
    }

    fn a_client_whose_port_a_program_has_is_seen_under_another(room: &Room) {
        let relay = Relay::start(room, some());
        server(room.workload(|| bound("::", OWN)));
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (client, to) = (bound(outside, OWN), at(cart, OWN));
            let seen: SocketAddr = asked(&client, to).unwrap().parse().unwrap();
            assert!(seen.ip() == at(outside, 0).ip() && seen.port() != OWN, "{seen}");
            let from = at(outside, OWN);
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, Came::Back { from: to, to: from }]);
        }
    }

    fn what_is_not_declared_is_let_alone(room: &Room) {
        let relay = Relay::start(room, some());
        server(room.workload(|| bound("::", OWN)));
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let there = bound(outside, 0);
            server(there.try_clone().unwrap());
            let program = room.workload(|| bound(any(at(cart, 1)), 0));
            let seen = asked(&program, here(&there, outside)).unwrap();
            assert_eq!(seen, here(&program, cart).to_string());
            let own = room.workload(|| bound(cart, 0));
            server(own.try_clone().unwrap());
            let client = bound(outside, 0);
            assert_eq!(asked(&client, here(&own, cart)).unwrap(), here(&client, outside).to_string());
            // To itself, also at a port that it declares, and on loopback.
            for ip in [cart, if cart.contains(':') { "::1" } else { "127.0.0.1" }] {
                let program = room.workload(|| bound(ip, 0));
                assert_eq!(asked(&program, at(ip, OWN)).unwrap(), here(&program, ip).to_string());
            }
        }
        assert_eq!(relay.seen(), []);
    }

    /// Connection tracking has them, and knows nothing of the proxy.
    fn conversations_older_than_the_rules_are_taken_over(room: &Room) {
        // Of connections alone; nothing is tracked where there are none.
        Proxy::start(room).stop();
        server(room.workload(|| bound("::", OWN)));
        let peer = bound("::", PORT);
        server(peer);
        let talks = CART.into_iter().zip(OUTSIDE).map(|(cart, outside)| {
            let program = room.workload(|| bound(cart, 0));
            let client = bound(outside, 0);
            asked(&program, at(outside, PORT)).unwrap();
            asked(&client, at(cart, OWN)).unwrap();
            (cart, outside, program, client)
        });
        let talks: Vec<_> = talks.collect();
        let mut datagrams = some();
        datagrams.destinations.extend(OUTSIDE.map(|ip| at(ip, PORT)));
        let relay = Relay::start(room, datagrams);
        for (cart, outside, program, client) in &talks {
            let (from, to) = (here(program, cart), at(outside, PORT));
            echoed(program, to, b"later");
            assert_eq!(relay.seen(), [Came::Outbound { from, to }]);
            let (from, to) = (here(client, outside), at(cart, OWN));
            assert_eq!(asked(client, to).unwrap(), from.to_string());
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, Came::Back { from: to, to: from }]);
        }
    }

    fn what_is_not_tracked_is_captured_all_the_same(room: &Room) {
        room.sh("nft 'add table inet other; add chain inet other out { type filter hook output priority -300; }
                 add rule inet other out udp dport 514 notrack'");
        let relay = Relay::start(room, some());
        for service in SERVICE {
            let to = at(service, PORT);
            echoed(&room.workload(|| bound(any(to), 0)), to, b"untracked");
            assert_eq!(relay.seen().len(), 1, "{service}");
        }
    }

    /// As when connection tracking has forgotten the question.
    fn who_is_answered_unasked_asks_the_proxy_all_the_same(room: &Room) {
        let relay = Relay::start(room, some());
        for (cart, service) in CART.into_iter().zip(SERVICE) {
            let to = at(service, PORT);
            let program = room.workload(|| bound(cart, 0));
            let from = here(&program, cart);
            as_itself(room, async |sockets| {
                let place = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
                let answering = sockets.answer_udp(&place, to).await.unwrap();
                answering.send_to(b"unasked", from).unwrap();
            });
            assert_eq!(hear(&program).unwrap(), (b"unasked".to_vec(), to));
            for _again in 0..3 {
                echoed(&program, to, b"asked");
                assert_eq!(relay.seen(), [Came::Outbound { from, to }]);
            }
        }
    }

    fn questions_for_names_are_the_name_proxys(room: &Room) {
        for dns in [false, true] {
            let mut datagrams = some();
            datagrams.destinations.extend(SERVICE.map(|ip| at(ip, 53)));
            let relay = Relay::start_on(room, room.exemption(), dns, datagrams);
            for service in SERVICE {
                let to = at(service, 53);
                let program = room.workload(|| bound(any(to), 0));
                program.connect(to).unwrap();
                program.send(b"name").unwrap();
                // The proxy of names is not there.
                assert_eq!(hear(&program).is_ok(), !dns, "{to}");
                assert_eq!(relay.seen().len(), usize::from(!dns), "{to}");
                echoed(&room.workload(|| bound(any(to), 0)), at(service, PORT), b"other");
                assert_eq!(relay.seen().len(), 1);
            }
            relay.stop();
        }
    }

    fn large_datagrams_pass_whole_both_ways(room: &Room) {
        let _relay = Relay::start(room, some());
        let payload: Vec<u8> = (0..20_000).map(|i| (i % 251) as u8).collect();
        for (cart, (service, outside)) in CART.into_iter().zip(SERVICE.into_iter().zip(OUTSIDE)) {
            let program = room.workload(|| bound(cart, 0));
            echoed(&program, at(service, PORT), &payload);
            let program = room.workload(|| bound(cart, OWN));
            let client = bound(outside, 0);
            client.send_to(&payload, at(cart, OWN)).unwrap();
            let (heard, from) = hear(&program).unwrap();
            assert!(heard == payload && from == here(&client, outside), "{from}");
            program.send_to(&payload, from).unwrap();
            assert!(hear(&client).unwrap() == (payload.clone(), at(cart, OWN)), "{cart}");
        }
    }
}
