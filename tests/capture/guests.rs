//! Guests behind an interface of the host: another host to the kernel, and captured in passing.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::thread;

use lateen::capture::host::Standing;
use lateen::capture::ruleset::{By, HBONE_PORT, Member};
use lateen::capture::{Exclusions, HostPlan, Mark, Target, Wanted, host, rollback};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::programs::{How, Server, connect, connect_how, greeting, listen, visit};
use crate::room::{CART, OUTSIDE, Room, at, cases, eventually};
use crate::site::{Came, HostProxy};
use crate::wire::Wire;

/// Addresses of the guest, and of the host's end of its link.
pub(crate) const GUEST: [&str; 2] = ["10.2.0.2", "fd02::2"];
pub(crate) const GATEWAY: [&str; 2] = ["10.2.0.1", "fd02::1"];

const BUILD: &str = "
    ip netns add vm
    ip -n cart link add tap3 type veth peer name eth0 netns vm
    ip -n cart address add 10.2.0.1/24 dev tap3
    ip -n cart address add fd02::1/64 dev tap3 nodad
    ip -n cart link set tap3 up
    ip -n vm address add 10.2.0.2/24 dev eth0
    ip -n vm address add 10.2.0.9/24 dev eth0
    ip -n vm address add fd02::2/64 dev eth0 nodad
    ip -n vm link set eth0 up
    ip -n vm link set lo up
    ip -n vm route add default via 10.2.0.1
    ip -n vm route add default via fd02::1
    ip route add 10.2.0.0/24 via 10.1.0.2
    ip route add fd02::/64 via fd01::2
";

/// Addresses of another on the bridge of the guest.
pub(crate) const NEIGHBOUR: [&str; 2] = ["10.2.0.3", "fd02::3"];

/// The guest as a port of a bridge, beside another.
const BRIDGE: &str = "
    ip -n cart link add br0 type bridge
    ip -n cart address flush dev tap3
    ip -n cart link set tap3 master br0
    ip -n cart address add 10.2.0.1/24 dev br0
    ip -n cart address add fd02::1/64 dev br0 nodad
    ip -n cart link set br0 up
    ip netns add other
    ip -n cart link add tap4 type veth peer name eth0 netns other
    ip -n cart link set tap4 master br0
    ip -n cart link set tap4 up
    ip -n other address add 10.2.0.3/24 dev eth0
    ip -n other address add fd02::3/64 dev eth0 nodad
    ip -n other link set eth0 up
";

pub(crate) fn build(room: &Room) {
    crate::room::sh(BUILD);
    room.set("ipv4/ip_forward", "1");
    room.set("ipv6/conf/all/forwarding", "1");
    for interface in ["all", "default", "lo", "eth0", "tap3"] {
        room.set(&format!("ipv4/conf/{interface}/rp_filter"), "1");
        room.set(&format!("ipv4/conf/{interface}/src_valid_mark"), "1");
    }
}

/// The same, with the guest as a port of a bridge, who has a neighbour there.
pub(crate) fn build_bridge(room: &Room) {
    build(room);
    crate::room::sh(BRIDGE);
    room.set("ipv4/conf/br0/rp_filter", "1");
    room.sh("for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $f || echo 0 > $f; done");
}

/// Does something inside the guest.
pub(crate) fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    within("vm", work)
}

pub(crate) fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let act = || {
        let guest = File::open(format!("/run/netns/{name}")).unwrap();
        move_into_link_name_space(guest.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

fn guest() -> Wanted {
    Wanted {
        mark: Mark::all().nth(300).unwrap(),
        target: Target::Interface("tap3".into()),
        addresses: GUEST.map(|ip| ip.parse().unwrap()).into(),
        ports: [].into(),
        udp_ports: [].into(),
    }
}

/// The guest to the rules, by its own link or as a port of the bridge.
pub(crate) fn member(port: Option<&str>) -> Member {
    Member {
        mark: Mark::all().next().unwrap(),
        by: By::Guest {
            interface: port.map_or("tap3", |_| "br0").into(),
            port: port.map(Into::into),
            addresses: GUEST.map(|ip| ip.parse().unwrap()).into(),
        },
        inbound: [].into(),
        datagrams: [].into(),
    }
}

fn start(room: &Room) -> HostProxy {
    HostProxy::start(room, room.exemption().into(), vec![guest()])
}

cases! {
    fn what_a_guest_opens_comes_with_its_mark_and_destination(room: &Room) {
        build(room);
        let _server = Server::outside(80);
        let _host = Server::in_cart(room, 9999);
        let proxy = start(room);
        assert_eq!(proxy.standing(300), Some(Standing::Captured));
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            for (to, seen) in [(at(outside, 80), format!("from {cart}")), (at(cart, 9999), format!("from {cart}"))] {
                assert_eq!(inside(|| visit(to)).unwrap(), seen);
                assert_eq!(proxy.came(), [Came::Outbound(Mark::all().nth(300), to)]);
            }
        }
    }

    fn what_is_opened_to_a_guest_comes_to_the_proxy_first(room: &Room) {
        build(room);
        let _server = Server::on(inside(|| listen(8080)));
        let proxy = start(room);
        for ((guest, outside), gateway) in GUEST.into_iter().zip(OUTSIDE).zip(GATEWAY) {
            let to = at(guest, 8080);
            assert_eq!(visit(to).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.came(), [Came::Plaintext(to)]);
            // A program of the host itself.
            assert_eq!(room.workload(|| visit(to)).unwrap(), format!("from {gateway}"));
            assert_eq!(proxy.came(), [Came::Plaintext(to)]);
            // A program of the host itself may be a waypoint.
            let tunnel = || greeting(&mut connect(at(guest, HBONE_PORT)).unwrap()).unwrap();
            assert_eq!(tunnel(), "tunnel");
            assert_eq!(proxy.came(), [Came::Tunnel]);
            assert_eq!(room.workload(tunnel), "tunnel");
            assert_eq!(proxy.came(), [Came::Tunnel]);
        }
    }

    fn without_the_proxy_a_guest_is_alone(room: &Room) {
        build(room);
        let server = Server::outside(80);
        let guests = Server::on(inside(|| listen(8080)));
        start(room).stop();
        let wire = Wire::of(&[GUEST[0], GUEST[1], "10.2.0.9"]);
        for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
            for outcome in [
                inside(|| connect(at(outside, 80))),
                connect(at(guest, 8080)),
                room.workload(|| connect(at(guest, 8080))),
            ] {
                assert!(outcome.is_err(), "{outcome:?}");
            }
        }
        // Under an address that is not its own.
        let from = Some(at("10.2.0.9", 0));
        let outcome = inside(|| connect_how(at(OUTSIDE[0], 80), How { from, ..How::default() }));
        assert!(outcome.is_err(), "{outcome:?}");
        assert_eq!((server.accepted(), guests.accepted()), (0, 0));
        assert_eq!(wire.openings(), [""; 0]);
        let _proxy = start(room);
        inside(|| visit(at(OUTSIDE[0], 80))).unwrap();
        visit(at(GUEST[1], 8080)).unwrap();
    }

    fn a_guests_link_comes_and_goes_under_the_rules(room: &Room) {
        build(room);
        let _server = Server::outside(80);
        let proxy = start(room);
        room.sh("ip link del tap3");
        proxy.eventually(300, &Standing::Absent);
        // As whatever starts the guest makes it anew.
        crate::room::sh("ip netns del vm; ip route flush 10.2.0.0/24; ip -6 route flush fd02::/64");
        crate::room::sh(BUILD);
        let to = at(OUTSIDE[0], 80);
        inside(|| visit(to)).unwrap();
        assert_eq!(proxy.came(), [Came::Outbound(Mark::all().nth(300), to)]);
        proxy.eventually(300, &Standing::Captured);
    }

    fn without_a_guest_the_routes_of_guests_go(room: &Room) {
        build(room);
        let before = room.sh("ip -4 rule; ip -6 rule");
        let proxy = start(room);
        assert_ne!(room.sh("ip -4 rule; ip -6 rule"), before);
        proxy.capture(vec![]);
        eventually("no routes", || match room.sh("ip -4 rule; ip -6 rule") {
            now if now == before => Ok(()),
            now => Err(now),
        });
    }

    fn others_on_the_bridge_of_a_guest_are_let_alone(room: &Room) {
        build(room);
        crate::room::sh(BRIDGE);
        crate::room::sh("
            ip -n other route add default via 10.2.0.1
            ip -n other route add default via fd02::1
        ");
        room.sh("for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $f || echo 0 > $f; done");
        let server = Server::outside(80);
        let _host = Server::in_cart(room, 9999);
        let proxy = start(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            // Of itself the host can find no neighbour for another, without an address of the link's.
            room.workload(|| visit(at(outside, 80))).unwrap();
            within("other", || visit(at(outside, 80))).unwrap();
            within("other", || visit(at(cart, 9999))).unwrap();
        }
        assert_eq!(proxy.came(), []);
        // The guest is itself, or nobody.
        let wire = Wire::of(&["10.2.0.9"]);
        let reached = server.accepted();
        let from = Some(at("10.2.0.9", 0));
        let how = How { from, ..How::default() };
        for to in [at(OUTSIDE[0], 80), at(CART[0], 9999)] {
            let outcome = inside(|| connect_how(to, how));
            assert!(outcome.is_err(), "{outcome:?}");
        }
        proxy.stop();
        let outcome = inside(|| connect(at(OUTSIDE[0], 80)));
        assert!(outcome.is_err(), "{outcome:?}");
        assert_eq!(server.accepted(), reached);
        assert_eq!(wire.openings(), [""; 0]);
    }

    fn what_is_taken_back_is_the_table_of_the_bridge_too(room: &Room) {
        build(room);
        let plan = |port| HostPlan::new(room.exemption(), &Exclusions::default(), &[member(port)]);
        let state = "nft -s list ruleset; ip -4 rule; ip -6 rule";
        for (name, was, then) in [
            ("there is one then", None, Some("tap3")),
            ("there was one", Some("tap3"), None),
            ("there was another", Some("tap3"), Some("tap4")),
        ] {
            run(async {
                host::apply::apply(&room.cart, &plan(was)).await.unwrap();
                let whole = room.sh(state);
                let before = rollback::before(&room.cart).await.unwrap();
                host::apply::apply(&room.cart, &plan(then)).await.unwrap();
                assert_ne!(room.sh(state), whole, "{name}");
                rollback::restore(&room.cart, &before).await.unwrap();
                assert_eq!(room.sh(state), whole, "{name}");
            });
        }
    }

    fn guests_of_a_bridge_are_captured_and_do_not_meet(room: &Room) {
        build(room);
        crate::room::sh(BRIDGE);
        room.set("ipv4/conf/br0/rp_filter", "1");
        let proxy = start(room);
        // Where there is the hook that gives bridges' frames to the rules twice, it says so.
        match proxy.standing(300) {
            Some(Standing::Failed(reason)) => assert!(reason.contains("bridge-nf-call"), "{reason}"),
            other => assert_eq!(other, Some(Standing::Captured)),
        }
        drop(proxy);
        room.sh("for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $f || echo 0 > $f; done");
        let _server = Server::outside(80);
        let _inside = Server::on(inside(|| listen(8080)));
        let others = Server::on(within("other", || listen(8080)));
        let proxy = start(room);
        assert_eq!(proxy.standing(300), Some(Standing::Captured));
        for (guest, outside) in GUEST.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(guest, 8080));
            inside(|| visit(out)).unwrap();
            assert_eq!(visit(plain).unwrap(), format!("from {outside}"));
            let came = [Came::Outbound(Mark::all().nth(300), out), Came::Plaintext(plain)];
            assert_eq!(proxy.came(), came);
        }
        for (guest, other) in GUEST.into_iter().zip(NEIGHBOUR) {
            assert!(inside(|| connect(at(other, 8080))).is_err(), "{other}");
            assert!(within("other", || connect(at(guest, 8080))).is_err(), "{guest}");
        }
        assert_eq!(others.accepted(), 0);
        // A neighbour that takes the guest's address is not heard.
        crate::room::sh("ip -n other address add 10.2.0.2/32 dev eth0; ip -n other route add default via 10.2.0.1");
        let from = Some(at("10.2.0.2", 0));
        let stolen = within("other", || connect_how(at(OUTSIDE[0], 80), How { from, ..How::default() }));
        assert!(stolen.is_err(), "{stolen:?}");
        assert_eq!(proxy.came(), []);
        proxy.capture(vec![]);
        eventually("no table of the bridge", || match room.sh("nft list tables") {
            now if now.is_empty() => Ok(()),
            now => Err(now),
        });
    }
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}
