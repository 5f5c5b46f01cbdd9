//! Datagrams of tunnels pass as they are.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lateen::capture::ruleset::HBONE_PORT;
use lateen::capture::{Sockets, Target, Terms};
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use rustix::thread::CapabilitySet;
use socket2::SockRef;

use crate::keeper::{Keeper, as_proxy};
use crate::proxy::Proxy;
use crate::room::{CART, OUTSIDE, PROXY, Room, Users, at, cases, sh};

/// Longest wait for a datagram that should come.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for one that should not.
const SILENCE: Duration = Duration::from_millis(200);

fn bound(ip: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(at(ip, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The proxy's end of tunnels, opened by this process or by the keeper.
fn tunnels(room: &Room, kept: bool) -> UdpSocket {
    let open = async |sockets: Sockets| {
        let place = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
        sockets.listen_tunnels_udp(&place).await.unwrap()
    };
    let socket = match kept {
        true => as_proxy(room, open),
        false => as_itself(room, open),
    };
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Does something as the proxy, with powers, and sockets that it opens itself.
pub(crate) fn as_itself<T: Send, F: Future<Output = T>>(
    room: &Room,
    work: impl FnOnce(Sockets) -> F + Send,
) -> T {
    let (users, exemption) = (room.users, room.exemption());
    let act = || {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW;
        users.become_user(PROXY, needed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work(Sockets::own(exemption)))
    };
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// Sends a datagram and has the other end answer it; whom the other end saw.
fn exchange(from: &UdpSocket, to: SocketAddr, other: &UdpSocket) -> SocketAddr {
    let mut heard = [0; 64];
    from.send_to(b"there", to).unwrap();
    let (length, seen) = other.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"there", "to {to}");
    other.send_to(b"back", seen).unwrap();
    let (length, answered) = from.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"back", "from {answered}");
    assert_eq!(answered.ip().to_canonical(), to.ip(), "the answer to {to}");
    SocketAddr::new(seen.ip().to_canonical(), seen.port())
}

cases! {
    fn tunnels_arrive_and_leave_whatever_the_rules(room: &Room) {
        let _keeper = Keeper::start();
        let mut terms = Terms::from(room.exemption());
        for strict in [false, true] {
            terms.strict = strict;
            Proxy::start_on(room, terms.clone()).stop();
            for kept in [false, true] {
                let here = tunnels(room, kept);
                for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
                    let there = bound(outside, 0);
                    let port = there.local_addr().unwrap().port();
                    let seen = exchange(&there, at(cart, HBONE_PORT), &here);
                    assert_eq!(seen, at(outside, port), "strict {strict}, kept {kept}");
                    let other = bound(outside, HBONE_PORT);
                    let mapped = match outside.contains(':') {
                        true => at(outside, HBONE_PORT),
                        false => at(&format!("::ffff:{outside}"), HBONE_PORT),
                    };
                    here.send_to(b"there", mapped).unwrap();
                    let (_length, seen) = other.recv_from(&mut [0; 8]).unwrap();
                    assert_eq!(seen, at(cart, HBONE_PORT), "strict {strict}, kept {kept}");
                }
            }
        }
    }

    fn the_socket_of_tunnels_is_marked_and_wide_and_alone(room: &Room) {
        let _keeper = Keeper::start();
        for kept in [false, true] {
            let socket = tunnels(room, kept);
            let bare = SockRef::from(&socket);
            assert_eq!(bare.mark().unwrap(), 0x539, "kept {kept}");
            // Over its own network alone nobody has more than the limit of everybody.
            if room.users == Users::Many {
                assert!(bare.recv_buffer_size().unwrap() >= 4 << 20, "kept {kept}");
                assert!(bare.send_buffer_size().unwrap() >= 4 << 20, "kept {kept}");
            }
            let other = room.program(PROXY, CapabilitySet::empty(), || UdpSocket::bind(at("::", HBONE_PORT)));
            assert!(other.is_err(), "kept {kept}: a second one would take datagrams from the first");
        }
    }

    fn how_long_packets_may_be_is_told_of_the_places_own_links(room: &Room) {
        let _keeper = Keeper::start();
        let ask = async |sockets: Sockets| {
            let place = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
            let [ipv4, ipv6] = sockets.scouts(&place).await.map(Option::unwrap);
            let [to_ipv4, to_ipv6] = OUTSIDE.map(|ip| at(ip, HBONE_PORT));
            ipv4.connect(to_ipv4).unwrap();
            ipv6.connect(to_ipv6).unwrap();
            [ip_mtu(&ipv4).unwrap(), ipv6_mtu(&ipv6).unwrap()]
        };
        for mtu in [1500, 9000] {
            sh(&format!("ip -n cart link set eth0 mtu {mtu}"));
            assert_eq!(as_itself(room, ask), [mtu; 2]);
            assert_eq!(as_proxy(room, ask), [mtu; 2], "by the keeper");
        }
    }

    fn without_ipv6_tunnels_arrive_by_ipv4(room: &Room) {
        let _keeper = Keeper::start();
        room.set("ipv6/conf/all/disable_ipv6", "1");
        for kept in [false, true] {
            let here = tunnels(room, kept);
            exchange(&bound(OUTSIDE[0], 0), at(CART[0], HBONE_PORT), &here);
        }
    }

    fn a_strict_namespace_lets_out_no_other_datagrams(room: &Room) {
        let mut terms = Terms::from(room.exemption());
        terms.strict = true;
        Proxy::start_on(room, terms).stop();
        for outside in OUTSIDE {
            let there = bound(outside, 0);
            there.set_read_timeout(Some(SILENCE)).unwrap();
            let to = there.local_addr().unwrap();
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            room.workload(|| bound(any, 0).send_to(b"escaped", to)).unwrap();
            assert!(there.recv_from(&mut [0; 8]).is_err(), "to {to}");
        }
    }
}
