//! Questions for names: they come to the proxy, the answer comes from whom was asked, and without the
//! proxy nobody is asked.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use lateen::capture::{Place, Sockets, Target, Terms, apply};
use rustix::thread::CapabilitySet;
use socket2::SockRef;

use lateen::capture::ruleset::{PROXY_MARK, RETURN_MARK};

use crate::programs::connect;
use crate::room::{CART, OUTSIDE, PROXY, Room, Users, at, cases, sh};
use crate::site::{HostProxy, STRANGER, Site, WEB, wanted};

/// Where questions come to.
const PORT: u16 = 15053;
/// Longest wait of a client.
const PATIENCE: Duration = Duration::from_secs(3);

/// A name server outside, that says whom it sees; how many questions came.
fn outside() -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind("[::]:53").unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut heard = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut heard).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let question = String::from_utf8_lossy(&heard[..length]).into_owned();
            let reply = format!("{question} of {}", from.ip().to_canonical());
            socket.send_to(reply.as_bytes(), from).unwrap();
        }
    });
    asked
}

/// Puts the rules in place, and passes questions on to `outside`, as the proxy does, where it is to.
fn capture(room: &Room, answers: bool) {
    let (cart, users, exemption) = (room.cart.clone(), room.users, room.exemption());
    let plan = room.plan().with_dns();
    let (started, ready) = sync_channel(1);
    thread::spawn(move || {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW;
        users.become_user(PROXY, needed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(apply(&cart, &plan)).unwrap();
        let (sockets, place) = (Sockets::own(exemption), Place::from(cart));
        let mut threads = Vec::new();
        for (loopback, outside) in ["127.0.0.1", "::1"].into_iter().zip(OUTSIDE) {
            if !answers {
                break;
            }
            let socket = runtime
                .block_on(sockets.listen_udp(&place, at(loopback, PORT)))
                .unwrap();
            let (sockets, place) = (sockets.clone(), place.clone());
            threads.push(thread::spawn(move || {
                answer(&socket, at(outside, 53), &sockets, &place)
            }));
        }
        started.send(()).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    ready.recv().unwrap();
}

fn answer(socket: &UdpSocket, server: SocketAddr, sockets: &Sockets, place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut heard = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut heard).unwrap();
        let own = runtime.block_on(sockets.udp(place, server.ip())).unwrap();
        own.set_nonblocking(false).unwrap();
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        own.connect(server).unwrap();
        own.send(&[b"proxy ", &heard[..length]].concat()).unwrap();
        // One that is not heard is told of by who waits for it.
        if let Ok(length) = own.recv(&mut heard) {
            socket.send_to(&heard[..length], from).unwrap();
        }
    }
}

/// Asks a server; only what comes from there is heard.
fn ask(server: SocketAddr, mark: Option<u32>) -> io::Result<String> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(b"question")?;
    let mut heard = [0; 512];
    let length = socket.recv(&mut heard)?;
    Ok(String::from_utf8_lossy(&heard[..length]).into_owned())
}

cases! {
    /// Vector 78 of `spec/hbone-dataplane.md` §12, as far as names.
    fn the_answer_comes_from_whom_was_asked(room: &Room) {
        let asked = outside();
        capture(room, true);
        let nowhere = ["10.200.1.1", "fd99::1"];
        for (cart, server) in CART.into_iter().zip(OUTSIDE).chain(CART.into_iter().zip(nowhere)) {
            let said = room.workload(|| ask(at(server, 53), None));
            assert_eq!(said.unwrap(), format!("proxy question of {cart}"), "{server}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }

    fn the_proxy_and_programs_may_use_the_same_ports(room: &Room) {
        let _asked = outside();
        // What the one has used the other uses next, while it is still remembered.
        room.set("ipv4/ip_local_port_range", "40000 40003");
        capture(room, true);
        for round in 0..16 {
            for (cart, server) in CART.into_iter().zip(OUTSIDE) {
                let said = room.workload(|| ask(at(server, 53), None));
                let said = said.unwrap_or_else(|e| panic!("round {round}: {e}"));
                assert_eq!(said, format!("proxy question of {cart}"), "round {round}");
            }
        }
    }

    fn on_loopback_a_workload_asks_whom_it_likes(room: &Room) {
        capture(room, true);
        for ip in CART.into_iter().chain(["127.0.0.1", "::1"]) {
            let server = room.cart.within(|| UdpSocket::bind(at(ip, 53))).unwrap().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (_length, from) = server.recv_from(&mut [0; 16]).unwrap();
                    server.send_to(b"own", from).unwrap();
                });
                assert_eq!(room.workload(|| ask(at(ip, 53), None)).unwrap(), "own", "{ip}");
            });
        }
    }

    fn without_the_proxy_nobody_is_asked_whatever_is_forged(room: &Room) {
        let asked = outside();
        let _server = std::net::TcpListener::bind("[::]:53").unwrap();
        capture(room, false);
        for server in OUTSIDE {
            for mark in [None, Some(RETURN_MARK), Some(0x222), Some(PROXY_MARK)] {
                let before = asked.load(Ordering::SeqCst);
                let said = room.workload(|| ask(at(server, 53), mark));
                // Among one user, the mark is all there is, which the log warns of.
                let known = room.users == Users::One && mark == Some(PROXY_MARK);
                assert_eq!(said.is_ok(), known, "{mark:?} to {server}: {said:?}");
                // What bears the mark of answers is bent back to this network, and may be lost there.
                let bent = mark == Some(RETURN_MARK);
                let refused = said.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                assert!(refused || known || bent, "{mark:?} to {server}");
                let came = asked.load(Ordering::SeqCst) - before;
                assert_eq!(came, usize::from(known), "{mark:?} to {server}");
            }
            let said = room.workload(|| connect(at(server, 53)));
            assert!(said.is_err(), "by TCP to {server}");
        }
    }

    /// Anybody may have the port while the proxy is away, but not hear what captured programs ask.
    fn who_takes_the_port_on_the_host_hears_nothing(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let terms = Terms { dns: true, ..site.terms() };
        let user = Target::User(WEB.to_string().into());
        let _proxy = HostProxy::start(room, terms, vec![wanted(0, user, 8081)]);
        let bound = |ip, mark: Option<u32>| {
            let user = if mark.is_some() { PROXY } else { STRANGER };
            let powers = mark.map_or(CapabilitySet::empty(), |_| CapabilitySet::NET_ADMIN);
            room.program(user, powers, || {
                let socket = UdpSocket::bind(at(ip, PORT)).unwrap();
                if let Some(mark) = mark {
                    SockRef::from(&socket).set_mark(mark).unwrap();
                }
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            })
        };
        let asked = |server| room.program(WEB, CapabilitySet::empty(), || ask(at(server, 53), None));
        for (loopback, server) in ["127.0.0.1", "::1"].into_iter().zip(OUTSIDE) {
            let stranger = bound(loopback, None);
            let said = asked(server);
            assert!(said.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused), "{server}");
            stranger.set_nonblocking(true).unwrap();
            let heard = stranger.recv(&mut [0; 16]).map_err(|e| e.kind());
            assert_eq!(heard, Err(io::ErrorKind::WouldBlock), "{server}");
            drop(stranger);
            let own = bound(loopback, Some(PROXY_MARK));
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (_length, from) = own.recv_from(&mut [0; 16]).unwrap();
                    own.send_to(b"own", from).unwrap();
                });
                assert_eq!(asked(server).unwrap(), "own", "{server}");
            });
        }
    }

    fn whoever_takes_the_dead_proxys_port_is_asked_nothing(room: &Room) {
        capture(room, false);
        let squatter = room.program(1002, CapabilitySet::empty(), || UdpSocket::bind(at("::", PORT)));
        let squatter = squatter.unwrap();
        squatter.set_nonblocking(true).unwrap();
        for server in OUTSIDE {
            let said = room.workload(|| ask(at(server, 53), None));
            assert!(said.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused), "{server}");
        }
        let heard = squatter.recv_from(&mut [0; 16]).unwrap_err();
        assert_eq!(heard.kind(), io::ErrorKind::WouldBlock);
    }

    fn the_rules_are_taken_by_the_kernel_and_read_back(room: &Room) {
        capture(room, false);
        let rules = sh("ip netns exec cart nft list table inet lateen");
        for rule in ["udp dport 53 redirect to :15053", "tcp dport 53 redirect to :15053", "chain questions"] {
            assert!(rules.contains(rule), "{rule}: {rules}");
        }
    }
}
