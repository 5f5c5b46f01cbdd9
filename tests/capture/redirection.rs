//! What is redirected, and what is let alone.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;

use lateen::capture::ruleset::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};

use crate::programs::{Server, connect, exchange, greeting, visit};
use crate::proxy::{Proxy, Seen};
use crate::room::{CART, OUTSIDE, Room, at, cases};

cases! {
    fn what_a_workload_opens_comes_to_the_proxy_with_its_destination(room: &Room) {
        let _server = Server::outside(80);
        let proxy = Proxy::start(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let to = at(outside, 80);
            let greeting = room.workload(|| visit(to)).unwrap();
            assert_eq!(greeting, format!("from {cart}"));
            assert_eq!(proxy.seen(), [Seen::Outbound(to)]);
        }
    }

    fn plain_connections_come_to_the_proxy_and_keep_their_source(room: &Room) {
        for interface in ["all", "default", "lo", "eth0"] {
            room.set(&format!("ipv4/conf/{interface}/rp_filter"), "1");
        }
        let _server = Server::in_cart(room, 8080);
        let proxy = Proxy::start(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let to = at(cart, 8080);
            assert_eq!(visit(to).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.seen(), [Seen::Plaintext(to)]);
        }
    }

    fn clients_and_the_proxy_may_use_the_same_ports(room: &Room) {
        // As many ports as connections: the proxy gets each port that a client has.
        let ports = "40000 40007";
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).unwrap();
        room.set("ipv4/ip_local_port_range", ports);
        let _servers = [8080, 8081].map(|port| Server::in_cart(room, port));
        let _proxy = Proxy::start(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            // And a port serves as many connections as there are destinations.
            let open: Vec<_> = (0..16)
                .map(|n| {
                    let mut stream = connect(at(cart, 8080 + n % 2)).unwrap();
                    let greeting = greeting(&mut stream);
                    let greeting = greeting.unwrap_or_else(|e| panic!("connection {n}: {e}"));
                    assert_eq!(greeting, format!("from {outside}"));
                    stream
                })
                .collect();
            for stream in open {
                exchange(&stream, 1000).unwrap();
            }
        }
    }

    fn a_workload_reaches_itself_without_the_proxy(room: &Room) {
        let _server = Server::in_cart(room, 8080);
        let proxy = Proxy::start(room);
        for ip in CART.into_iter().chain(["127.0.0.1", "::1"]) {
            let greeting = room.workload(|| visit(at(ip, 8080))).unwrap();
            assert_eq!(greeting, format!("from {ip}"));
        }
        assert_eq!(proxy.seen(), []);
    }

    fn tunnels_arrive_as_they_are(room: &Room) {
        let proxy = Proxy::start(room);
        for ip in CART {
            let mut stream = connect(at(ip, HBONE_PORT)).unwrap();
            assert_eq!(greeting(&mut stream).unwrap(), "tunnel");
            exchange(&stream, 1 << 20).unwrap();
            let source = stream.local_addr().unwrap();
            let [Seen::Tunnel(peer)] = &proxy.seen()[..] else {
                panic!("not a tunnel")
            };
            assert_eq!(peer.ip().to_canonical(), source.ip());
        }
    }

    fn from_outside_the_proxys_own_ports_look_like_any_other(room: &Room) {
        let proxy = Proxy::start(room);
        for ip in CART {
            for port in [OUTBOUND_PORT, PLAINTEXT_PORT] {
                let to = at(ip, port);
                let mut stream = connect(to).unwrap();
                // The proxy knows its own ports, and closes.
                assert!(greeting(&mut stream).is_err(), "{to}");
                assert_eq!(proxy.seen(), [Seen::Plaintext(to)], "{to}");
            }
        }
    }

    fn datagrams_are_let_alone(room: &Room) {
        let server = UdpSocket::bind("[::]:53").unwrap();
        let proxy = Proxy::start(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            room.workload(|| {
                let any = if outside.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                let client = UdpSocket::bind(any).unwrap();
                client.send_to(b"question", at(outside, 53)).unwrap();
            });
            let (_length, peer) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(peer.ip().to_canonical(), at(cart, 0).ip());
        }
        assert_eq!(proxy.seen(), []);
    }

    fn connections_older_than_the_rules_live_on(room: &Room) {
        let _outside = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        let mut open = Vec::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            open.push(room.workload(|| connect(at(outside, 80))).unwrap());
            open.push(connect(at(cart, 8080)).unwrap());
        }
        // Read no earlier than under the rules: of some, the other end speaks first.
        let proxy = Proxy::start(room);
        for stream in &mut open {
            stream.write_all(b"x").unwrap();
            greeting(stream).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            exchange(stream, 1 << 20).unwrap();
        }
        assert_eq!(proxy.seen(), []);
    }

    fn a_namespace_without_ipv6_is_captured_all_the_same(room: &Room) {
        for interface in ["all", "lo", "eth0"] {
            room.set(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
        }
        let _outside = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        let proxy = Proxy::start(room);
        let (out, plain) = (at(OUTSIDE[0], 80), at(CART[0], 8080));
        room.workload(|| visit(out)).unwrap();
        visit(plain).unwrap();
        assert_eq!(proxy.seen(), [Seen::Outbound(out), Seen::Plaintext(plain)]);
    }
}
