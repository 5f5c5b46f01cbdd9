//! The escape matrix (`spec/reliability.md` §2, row 50): what a program with NET_RAW tries to get onto
//! the wire in clear, by each kind of socket and each trick, while the proxy is up, dead, and being
//! replaced. The proxy goes on to nobody here: whatever is on the wire has gone beside it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lateen::capture::ruleset::{FIRST_MARK, HBONE_PORT, OUTBOUND_PORT, PROXY_MARK, RETURN_MARK};
use lateen::capture::{Exclusions, Netns, Strict, Terms};
use lateen::sys;
use rustix::net::{SendFlags, send};
use rustix::thread::CapabilitySet;
use socket2::{Domain, SockRef, Socket, Type};

use crate::forgery::{SYN, filled, packet, segment, send_marked};
use crate::proxy::{Proxy, SINK};
use crate::room::{CART, PROXY, Room, Users, at, cases, sh};
use crate::site::{CART_PORT, HostProxy, Site, wanted};
use crate::wire::{TOKEN, Wire};

/// A host beyond the one that the workload is on.
const FAR: [&str; 2] = ["10.3.0.2", "fd03::2"];

const BUILD: &str = "
    ip netns add far
    ip link add uplink type veth peer name eth0 netns far
    ip address add 10.3.0.1/24 dev uplink
    ip address add fd03::1/64 dev uplink nodad
    ip link set uplink up
    ip -n far address add 10.3.0.2/24 dev eth0
    ip -n far address add fd03::2/64 dev eth0 nodad
    ip -n far link set eth0 up
    ip -n far link set lo up
    ip -n far route add default via 10.3.0.1
    ip -n far route add default via fd03::1
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Raw,
    Packet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    /// The marks that rules know.
    Mark,
    /// The proxy's user.
    Uid,
    /// From a loopback address.
    Loopback,
    /// From its own address, under a port of its choice.
    OwnAddress,
    /// To and from the ports that the proxy has.
    ProxyPorts,
}

const KINDS: [Kind; 4] = [Kind::Tcp, Kind::Udp, Kind::Raw, Kind::Packet];
const TRICKS: [Trick; 5] = [
    Trick::Mark,
    Trick::Uid,
    Trick::Loopback,
    Trick::OwnAddress,
    Trick::ProxyPorts,
];
const MARKS: [u32; 3] = [PROXY_MARK, RETURN_MARK, FIRST_MARK];

/// One packet's way: from where, to where, under which mark.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
    mark: Option<u32>,
}

fn ways(family: usize, trick: Trick) -> Vec<Way> {
    let (own, far) = (CART[family], FAR[family]);
    let loopback = ["127.0.0.1", "::1"][family];
    let plain = Way {
        from: at(own, 0),
        to: at(far, SINK),
        mark: None,
    };
    match trick {
        Trick::Mark => MARKS
            .map(|mark| Way {
                mark: Some(mark),
                ..plain
            })
            .into(),
        Trick::Uid => vec![plain],
        Trick::Loopback => vec![Way {
            from: at(loopback, 0),
            ..plain
        }],
        Trick::OwnAddress => vec![Way {
            from: at(own, 40_001),
            ..plain
        }],
        Trick::ProxyPorts => [HBONE_PORT, OUTBOUND_PORT]
            .into_iter()
            .flat_map(|port| {
                let to = Way {
                    to: at(far, port),
                    ..plain
                };
                let from = Way {
                    from: at(own, port),
                    ..plain
                };
                [to, from]
            })
            .collect(),
    }
}

/// Tries it; that it fails is as good as that nothing comes of it.
fn attempt(kind: Kind, way: Way, gateway: [u8; 6]) -> io::Result<()> {
    match kind {
        Kind::Tcp => {
            let socket = Socket::new(Domain::for_address(way.to), Type::STREAM, None)?;
            prepare(&socket, way)?;
            socket.connect_timeout(&way.to.into(), Duration::from_millis(300))?;
            socket.send(TOKEN)?;
            Ok(())
        }
        Kind::Udp => {
            let socket = Socket::new(Domain::for_address(way.to), Type::DGRAM, None)?;
            prepare(&socket, way)?;
            UdpSocket::from(socket).send_to(TOKEN, way.to)?;
            Ok(())
        }
        Kind::Raw => {
            let from = numbered(way.from);
            let bytes = packet(from, way.to, &segment(from, way.to, SYN));
            send_marked(way.to, &bytes, way.mark)
        }
        Kind::Packet => {
            let socket = sys::packet_socket("eth0")?;
            if let Some(mark) = way.mark {
                SockRef::from(&socket).set_mark(mark)?;
            }
            send(&socket, &frame(way, gateway), SendFlags::empty())?;
            Ok(())
        }
    }
}

fn prepare(socket: &Socket, way: Way) -> io::Result<()> {
    if let Some(mark) = way.mark {
        socket.set_mark(mark)?;
    }
    socket.set_reuse_address(true)?;
    // Of the kernel's choice otherwise, as most programs have it.
    if way.from.port() != 0 || way.from.ip().is_loopback() {
        socket.bind(&way.from.into())?;
    }
    Ok(())
}

fn numbered(from: SocketAddr) -> SocketAddr {
    match from.port() {
        0 => SocketAddr::new(from.ip(), 40_002),
        _ => from,
    }
}

/// An opening segment and what a program would say, in one frame to the host.
fn frame(way: Way, gateway: [u8; 6]) -> Vec<u8> {
    let from = numbered(way.from);
    let mut bytes = gateway.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend(match way.to {
        SocketAddr::V4(_) => [0x08, 0x00],
        SocketAddr::V6(_) => [0x86, 0xdd],
    });
    bytes.extend(packet(from, way.to, &segment(from, way.to, SYN)));
    filled(bytes)
}

/// The hardware address of the host's end of the link.
fn gateway() -> [u8; 6] {
    let text = sh("ip -o link show outside | sed 's/.*link.ether \\([0-9a-f:]*\\).*/\\1/'");
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// How far the captured network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// By the rules where the program is.
    Usual,
    /// On the host's side of its link as well.
    Strict,
}

impl Hold {
    /// Whether something of it may be on the wire: datagrams are not captured, frames pass below all
    /// rules of their namespace, and outside of it nobody can tell who speaks to a tunnel's port.
    fn lets_alone(self, kind: Kind, way: Way) -> bool {
        let tunnel = [way.from.port(), way.to.port()].contains(&HBONE_PORT);
        match (self, kind) {
            (Self::Usual, Kind::Udp | Kind::Packet) => true,
            (Self::Strict, Kind::Udp | Kind::Packet) => tunnel,
            (Self::Usual | Self::Strict, _) => false,
        }
    }
}

type Act<'a> = &'a (dyn Fn(u32, Kind, Way) -> io::Result<()> + Sync);

/// Tries everything once; what was let alone, for those who want to know that the wire is one.
fn all(hold: Hold, wire: &Wire, proxy: &str, act: Act<'_>) -> usize {
    let mut alone = 0;
    for family in 0..2 {
        for kind in KINDS {
            for trick in TRICKS {
                for way in ways(family, trick) {
                    let user = if trick == Trick::Uid { PROXY } else { 1000 };
                    let outcome = act(user, kind, way);
                    let escaped = wire.escapes();
                    if hold.lets_alone(kind, way) {
                        alone += escaped.len();
                        continue;
                    }
                    assert!(
                        escaped.is_empty(),
                        "{hold:?} {kind:?} {trick:?}, proxy {proxy}: {way:?} {outcome:?}: {escaped:?}"
                    );
                }
            }
        }
    }
    alone
}

fn capabilities(user: u32) -> CapabilitySet {
    // Commands that probe run as the proxy's user, without powers.
    match user {
        PROXY => CapabilitySet::empty(),
        _ => CapabilitySet::NET_RAW,
    }
}

fn only_among_many_users(room: &Room) -> bool {
    if room.users == Users::One {
        eprintln!("skipped: the escape matrix among one user, where a mark is all there is");
    }
    room.users == Users::Many
}

/// Replaces a proxy again and again while something is tried.
fn while_replaced<T: Send>(replace: impl Fn() + Sync, tried: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                replace();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(tried));
        done.store(true, Ordering::SeqCst);
        replacing.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn in_namespace(room: &Room, hold: Hold, wire: &Wire) {
    let mut terms = Terms::from(room.exemption());
    terms.strict = hold == Hold::Strict;
    let gateway = gateway();
    let act = |user: u32, kind: Kind, way: Way| {
        room.program(user, capabilities(user), || attempt(kind, way, gateway))
    };
    let proxy = Proxy::start_on(room, terms.clone());
    let alone = all(hold, wire, "up", &act);
    assert!(alone > 0, "the wire shows what is let alone");
    proxy.stop();
    all(hold, wire, "dead", &act);
    let replace = || Proxy::start_on(room, terms.clone()).stop();
    while_replaced(replace, || all(hold, wire, "replaced", &act));
    assert_eq!(wire.openings(), [""; 0], "afterwards");
}

cases! {
    fn nothing_captured_escapes_from_a_namespace(room: &Room) {
        if !only_among_many_users(room) { return }
        sh(BUILD);
        in_namespace(room, Hold::Usual, &Wire::of(&[CART[0], CART[1], "127.0.0.1", "::1"]));
    }

    fn nothing_but_tunnels_escapes_from_a_strict_namespace(room: &Room) {
        if !only_among_many_users(room) { return }
        sh(BUILD);
        in_namespace(room, Hold::Strict, &Wire::on("uplink", &[CART[0], CART[1], "127.0.0.1", "::1"]));
    }

    fn what_is_no_longer_strict_is_not_filtered_any_more(room: &Room) {
        let filters = || sh("nft list table netdev lateen 2>&1 || true");
        let mut terms = Terms::from(room.exemption());
        terms.strict = true;
        Proxy::start_on(room, terms.clone()).stop();
        assert!(filters().contains("counter packets"), "{}", filters());
        terms.strict = false;
        Proxy::start_on(room, terms).stop();
        assert!(!filters().contains("chain"), "{}", filters());
    }

    fn a_namespace_with_a_link_that_cannot_be_filtered_is_not_strict(room: &Room) {
        let host = Netns::current().unwrap();
        let strict = Strict::new(host, room.cart.clone(), Exclusions::default());
        let apply = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(strict.apply())
        };
        apply().unwrap();
        sh("ip netns add far; ip -n cart link add side type veth peer name eth9 netns far");
        let error = apply().unwrap_err().to_string();
        assert!(error.contains("`side`"), "{error}");
        sh("ip -n cart link del side");
        apply().unwrap();
        // Within the namespace links go nowhere.
        sh("ip -n cart link add in0 type veth peer name in1; ip -n cart link add br0 type bridge");
        apply().unwrap();
    }

    fn nothing_captured_escapes_from_a_unit_or_a_user(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        sh(BUILD);
        site.start("cart");
        let gateway = gateway();
        let wire = Wire::of(&[CART[0], CART[1], "127.0.0.1", "::1"]);
        let workloads = || vec![
            wanted(0, site.unit("cart"), CART_PORT),
            wanted(1, lateen::capture::Target::User("1000".into()), 8081),
        ];
        let in_unit = |user: u32, kind: Kind, way: Way| {
            site.within_as("cart", user, capabilities(user), || attempt(kind, way, gateway))
        };
        let as_user = |user: u32, kind: Kind, way: Way| {
            // Who runs as the proxy outside of the unit is nobody's workload.
            match user {
                PROXY => Ok(()),
                _ => room.program(user, capabilities(user), || attempt(kind, way, gateway)),
            }
        };
        for act in [&in_unit as Act<'_>, &as_user] {
            let proxy = HostProxy::start(room, site.terms(), workloads());
            let alone = all(Hold::Usual, &wire, "up", act);
            assert!(alone > 0, "the wire shows what is let alone");
            proxy.stop();
            all(Hold::Usual, &wire, "dead", act);
            let replace = || HostProxy::start(room, site.terms(), workloads()).stop();
            while_replaced(replace, || all(Hold::Usual, &wire, "replaced", act));
            assert_eq!(wire.openings(), [""; 0], "afterwards");
        }
    }

    fn rules_are_replaced_without_their_chains_going(room: &Room) {
        // A handle names a table for as long as it is there, and a chain within its table.
        let chains = || {
            let listed = room.sh("nft -a list table inet lateen");
            let heads = ["table ", "\tchain "];
            let lines = listed.lines();
            let heads = lines.filter(|line| heads.iter().any(|head| line.starts_with(head)));
            heads.map(str::to_owned).collect::<Vec<_>>()
        };
        Proxy::start(room).stop();
        let before = chains();
        assert_eq!(before.len(), 7, "{before:?}");
        Proxy::start(room).stop();
        assert_eq!(chains(), before, "of a namespace");

        let Some(site) = Site::of(room) else { return };
        room.sh("nft delete table inet lateen");
        site.start("cart");
        let workloads = || vec![wanted(0, site.unit("cart"), CART_PORT)];
        HostProxy::start(room, site.terms(), workloads()).stop();
        let before = chains();
        assert!(before.len() > 7, "{before:?}");
        HostProxy::start(room, site.terms(), workloads()).stop();
        assert_eq!(chains(), before, "of a host");
    }
}
