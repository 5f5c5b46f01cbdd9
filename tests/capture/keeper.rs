//! The keeper, as a process of its own: what it opens, whom it answers, and what becomes of traffic
//! when it, or the proxy, is killed.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lateen::capture::host::Standing;
use lateen::capture::reconcile::State;
use lateen::capture::ruleset::OUTBOUND_PORT;
use lateen::capture::{AttachError, Mark, Sockets, Target};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, send,
    socket_with,
};
use rustix::thread::CapabilitySet;
use tokio_util::sync::CancellationToken;

use crate::programs::{Server, connect, exchange, greeting, listen, visit};
use crate::proxy::{Proxy, Seen};
use crate::room::{CART, KEEPER, OUTSIDE, PROXY, Room, Users, at, cases, eventually};
use crate::site::{CART_PORT, Came, HostProxy, Site, WEB, wanted};
use crate::wire::Wire;

/// Where the keeper of a room listens.
pub(crate) const SOCKET: &str = "/run/lateen/keeper.sock";
/// How often each of the deaths is died.
const ROUNDS: usize = 10;
/// Within what everything is as before.
const SOON: Duration = Duration::from_secs(1);

/// A running keeper, killed when dropped.
pub(crate) struct Keeper(Child);

impl Keeper {
    pub(crate) fn start() -> Self {
        Self::spawned(|command| command.spawn().unwrap())
    }

    /// One whose host is the room's workload.
    pub(crate) fn on_host(room: &Room) -> Self {
        Self::spawned(|command| room.cart.within(|| command.spawn()).unwrap().unwrap())
    }

    fn spawned(spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        let config = format!(
            "user = {PROXY}\nkeeper-user = {KEEPER}\nstate-dir = \"/run/state\"\nruntime-dir = \"/run/lateen\"\n"
        );
        fs::write("/run/lateen.toml", config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
        command.args(["keeper", "--config", "/run/lateen.toml"]);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open("/run/keeper.log");
        let keeper = Self(spawn(command.stderr(log.unwrap()).stdin(Stdio::null())));
        eventually("a keeper", || match reach() {
            Ok(_socket) => Ok(()),
            Err(e) => Err(e),
        });
        keeper
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn log() -> String {
    fs::read_to_string("/run/keeper.log").unwrap_or_default()
}

/// Connects to the keeper as whoever this is.
fn reach() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect_to(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(socket)
}

/// Does something as the proxy, without powers, with sockets of the keeper.
pub(crate) fn as_proxy<T: Send, F: Future<Output = T>>(
    room: &Room,
    work: impl FnOnce(Sockets) -> F + Send,
) -> T {
    let users = room.users;
    let act = || {
        users.become_user(PROXY, CapabilitySet::empty());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (sockets, link) = Sockets::kept(Path::new(SOCKET));
            let stop = CancellationToken::new();
            let (done, ()) = tokio::join!(
                async {
                    let done = work(sockets).await;
                    stop.cancel();
                    done
                },
                link.run(stop.clone())
            );
            done
        })
    };
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

cases! {
    fn a_proxy_without_powers_does_all_that_one_with_them_does(room: &Room) {
        let _outside = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        let _keeper = Keeper::start();
        let proxy = Proxy::kept(room);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(cart, 8080));
            assert_eq!(room.workload(|| visit(out)).unwrap(), format!("from {cart}"));
            // Under the client's own address: the socket was let bear any.
            assert_eq!(visit(plain).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.seen(), [Seen::Outbound(out), Seen::Plaintext(plain)]);
        }
        // More than a stock holds.
        for _connection in 0..100 {
            room.workload(|| visit(at(OUTSIDE[0], 80))).unwrap();
        }
    }

    fn units_are_captured_by_a_keeper_that_may_be_killed(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _outside = Server::outside(80);
        site.start("cart");
        let _inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let mut keeper = Keeper::on_host(room);
        let user = Target::User(WEB.to_string().into());
        let workloads = vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user, 8081)];
        let proxy = HostProxy::kept(room, workloads);
        let (out, plain) = (at(OUTSIDE[0], 80), at(CART[1], CART_PORT));
        let mark = |nth| Mark::all().nth(nth);
        for round in 0..3 {
            site.within("cart", || visit(out)).unwrap();
            room.program(WEB, CapabilitySet::empty(), || visit(out)).unwrap();
            visit(plain).unwrap();
            let came = [
                Came::Outbound(mark(0), out),
                Came::Outbound(mark(1), out),
                Came::Plaintext(plain),
            ];
            assert_eq!(proxy.came(), came, "{round}");
            keeper.kill();
            // The rules hold, and nobody follows who starts and stops.
            site.within("cart", || connect(out)).unwrap();
            proxy.eventually_came(&[Came::Outbound(mark(0), out)]);
            keeper = Keeper::on_host(room);
            site.stop("cart");
            proxy.eventually(0, &Standing::Absent);
            site.start("cart");
            proxy.eventually(0, &Standing::Captured);
        }
        proxy.capture(vec![]);
        eventually("no rules", || match room.sh("nft list tables") {
            now if now.is_empty() => Ok(()),
            now => Err(now),
        });
    }

    fn only_the_proxys_user_is_answered(room: &Room) {
        if room.users == Users::One {
            return;
        }
        let _keeper = Keeper::start();
        fs::set_permissions("/run/lateen", std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // Root is not the proxy either.
        let socket = reach().unwrap();
        let ended = rustix::net::recv(&socket, &mut [0u8; 8][..], rustix::net::RecvFlags::empty());
        assert_eq!(ended.unwrap().0, 0);
        room.workload(|| {
            let socket = reach().unwrap();
            // Whatever it says is not heard.
            let _broken = send(&socket, br#"{"id":1,"verb":{"hello":{"version":1}}}"#, SendFlags::NOSIGNAL);
            let ended = rustix::net::recv(&socket, &mut [0u8; 8][..], rustix::net::RecvFlags::empty());
            assert!(matches!(ended, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET)), "{ended:?}");
        });
        eventually("refusals in the log", || {
            let log = log();
            match log.matches("refused: not the proxy's user").count() {
                2.. => Ok(()),
                _ => Err(log),
            }
        });
    }

    fn nonsense_ends_its_connection_and_no_other(room: &Room) {
        let _server = Server::outside(80);
        let mut keeper = Keeper::start();
        let _proxy = Proxy::kept(room);
        let before = keeper.descriptors();
        let hello = r#"{"id":1,"verb":{"hello":{"version":1}}}"#;
        let long = format!("{hello}{}", " ".repeat(32 << 10));
        for (name, said) in [
            ("no JSON", vec!["\0\u{1}\u{2}"]),
            ("another version", vec![r#"{"id":1,"verb":{"hello":{"version":2}}}"#]),
            ("no greeting", vec![r#"{"id":1,"verb":{"keep":{"place":1}}}"#]),
            ("greeted twice", vec![hello, hello]),
            ("another verb", vec![hello, r#"{"id":2,"verb":{"rules":{"nft":"flush ruleset"}}}"#]),
            ("too long", vec![&long]),
            ("deep", vec![&*"[".repeat(30_000)]),
        ] {
            let users = room.users;
            let said: Vec<String> = said.into_iter().map(str::to_owned).collect();
            thread::spawn(move || {
                users.become_user(PROXY, CapabilitySet::empty());
                let socket = reach().unwrap();
                for message in &said {
                    // A descriptor that nobody asked for goes with each.
                    let _refused = with_descriptor(&socket, message.as_bytes());
                }
                let mut answer = [0u8; 4096];
                loop {
                    match rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty()) {
                        Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return,
                        Ok(_greeting) => {}
                        Err(e) => panic!("{name}: {e}"),
                    }
                }
            }).join().unwrap();
        }
        assert!(keeper.0.try_wait().unwrap().is_none(), "the keeper lives");
        eventually("no descriptor is left", || match keeper.descriptors() {
            now if now <= before => Ok(()),
            now => Err((now, before)),
        });
        room.workload(|| visit(at(OUTSIDE[0], 80))).unwrap();
    }

    fn what_is_no_business_of_a_proxy_is_refused(room: &Room) {
        let _keeper = Keeper::start();
        as_proxy(room, |sockets| async move {
            let missing = sockets.attach(&Target::Netns("nobody".into())).await.unwrap_err();
            assert!(matches!(missing, AttachError::Missing { .. }), "{missing}");
            let file = sockets.attach(&Target::Netns("/etc/passwd".into())).await.unwrap_err();
            assert!(matches!(file, AttachError::Open { .. }), "{file}");
            let cart = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
            // Another program's port.
            assert!(sockets.listen(&cart, 8080).await.is_err());
            assert!(sockets.listen_udp(&cart, at("127.0.0.1", 53)).await.is_err());
            assert!(sockets.listen_udp(&cart, at("::1", 15053)).await.is_ok());
            for (ip, owned) in [(CART[0], true), (CART[1], true), (OUTSIDE[0], false), (OUTSIDE[1], false)] {
                assert_eq!(sockets.owns(&cart, ip.parse().unwrap()).await, owned, "{ip}");
            }
            let command = ["sh", "-c", "grep -E 'Cap(Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status; ip -o link show eth0"];
            let ran = sockets.run(&cart, &command.map(Into::into), SOON * 10).await.unwrap().unwrap();
            assert!(ran.success && ran.said.contains("eth0") && !ran.said.contains("Cap"), "{ran:?}");
            let slow = ["sleep", "60"].map(Into::into);
            assert_eq!(sockets.run(&cart, &slow, Duration::from_millis(50)).await.unwrap(), None);
            let none = ["/nonexistent"].map(Into::into);
            let error = sockets.run(&cart, &none, SOON).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        });
    }

    fn a_killed_keeper_is_missed_by_nobody(room: &Room) {
        let server = Server::outside(80);
        let mut keeper = Keeper::start();
        let proxy = Proxy::kept(room);
        let to = at(OUTSIDE[0], 80);
        let mut open = room.workload(|| connect(to)).unwrap();
        greeting(&mut open).unwrap();
        let whole = room.sh("nft list table inet lateen");
        for round in 0..ROUNDS {
            keeper.kill();
            // What is open goes on, and what the proxy has in stock is enough for a few.
            exchange(&open, 10_000).unwrap();
            room.workload(|| visit(to)).unwrap_or_else(|e| panic!("round {round}: {e}"));
            let begun = Instant::now();
            keeper = Keeper::start();
            // More than any stock: they need the keeper.
            let open: Vec<_> = (0..40).map(|_| {
                let mut stream = None;
                eventually("connections through another keeper", || {
                    let opened = room.workload(|| connect(to)).and_then(|mut opened| {
                        greeting(&mut opened)?;
                        Ok(opened)
                    });
                    opened.map(|opened| stream = Some(opened)).map_err(|e| e.to_string())
                });
                stream
            }).collect();
            assert!(begun.elapsed() < SOON * 2, "round {round}: {:?}", begun.elapsed());
            drop(open);
        }
        exchange(&open, 10_000).unwrap();
        assert_eq!(counted(&room.sh("nft list table inet lateen")), counted(&whole));
        // What reached the server all came through the proxy.
        assert!(proxy.seen().len() >= server.accepted());
    }

    fn without_a_keeper_the_stock_is_used_up_and_then_nothing_is_opened(room: &Room) {
        let server = Server::outside(80);
        let mut keeper = Keeper::start();
        let proxy = Proxy::kept(room);
        let to = at(OUTSIDE[1], 80);
        room.workload(|| visit(to)).unwrap();
        keeper.kill();
        let mut served = 0;
        let refused = loop {
            match room.workload(|| visit(to)) {
                Ok(_greeting) => served += 1,
                Err(e) => break e,
            }
            assert!(served < 100, "there is no end to it");
        };
        // Closed by the proxy, which has none to go on with.
        let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(closed.contains(&refused.kind()), "{refused}");
        assert_eq!(server.accepted(), served + 1);
        proxy.stop();
    }

    fn a_dead_proxys_traffic_is_refused_also_when_the_rules_are_flushed(room: &Room) {
        let server = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        let _keeper = Keeper::start();
        let to = at(OUTSIDE[0], 80);
        for round in 0..ROUNDS {
            let proxy = Proxy::kept(room);
            room.workload(|| visit(to)).unwrap();
            proxy.stop();
            let reached = server.accepted();
            let wire = Wire::new();
            eventually("the keeper lets go of what a dead proxy listened on", || {
                for attempt in [room.workload(|| connect(to)), connect(at(CART[0], 8080))] {
                    match attempt {
                        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                        other => return Err(format!("{other:?}")),
                    }
                }
                Ok(())
            });
            room.sh("nft flush ruleset");
            let took = eventually("the keeper puts them back", || {
                let listed = room.sh("nft list table inet lateen 2>&1 || true");
                if listed.contains("chain outbound") { Ok(()) } else { Err(listed) }
            });
            assert!(took < SOON, "round {round}: {took:?}");
            assert!(room.workload(|| connect(to)).is_err());
            assert_eq!(server.accepted(), reached, "round {round}");
            assert_eq!(wire.openings(), [""; 0], "round {round}");
        }
    }

    fn a_keeper_killed_while_it_applies_leaves_all_rules_or_none(room: &Room) {
        let mut keeper = Keeper::start();
        let proxy = Proxy::kept(room);
        let whole = counted(&room.sh("nft list table inet lateen"));
        for round in 0..ROUNDS {
            room.sh("nft delete table inet lateen");
            // Somewhere between hearing of it and having put it back.
            thread::sleep(Duration::from_millis(45 + 3 * round as u64));
            keeper.kill();
            let now = counted(&room.sh("nft list table inet lateen 2>/dev/null || true"));
            assert!(now.is_empty() || now == whole, "round {round}: {now}");
            let begun = Instant::now();
            keeper = Keeper::start();
            eventually("another keeper has them in place", || {
                let now = counted(&room.sh("nft list table inet lateen 2>/dev/null || true"));
                if now == whole { Ok(()) } else { Err(now) }
            });
            assert!(begun.elapsed() < SOON * 2, "round {round}: {:?}", begun.elapsed());
        }
        drop(proxy);
    }

    fn a_namespace_that_goes_is_let_go_of(room: &Room) {
        let keeper = Keeper::start();
        crate::room::sh("ip netns add other");
        let (captured, delete) = std::sync::mpsc::sync_channel(1);
        thread::scope(|scope| {
            scope.spawn(move || {
                delete.recv().unwrap();
                crate::room::sh("ip netns delete other");
            });
            as_proxy(room, |sockets| async move {
                let other = sockets.attach(&Target::Netns("other".into())).await.unwrap();
                let (_keeping, mut state) = sockets.keep(&other, false).await.unwrap();
                let applied = state.wait_for(|s| matches!(s, State::InPlace)).await;
                applied.unwrap();
                captured.send(()).unwrap();
                let gone = tokio::time::timeout(SOON * 5, other.gone()).await;
                gone.expect("the keeper tells of it");
            });
        });
        eventually("nothing is left of it", || match keeper.descriptors() {
            now if now < 20 => Ok(()),
            now => Err(now),
        });
    }

    fn descriptors_are_flat_over_a_thousand_places(room: &Room) {
        let keeper = Keeper::start();
        let first = as_proxy(room, |sockets| async move {
            round(&sockets).await;
            descriptors()
        });
        let before = keeper.descriptors();
        let last = as_proxy(room, |sockets| async move {
            for _round in 0..1000 {
                round(&sockets).await;
            }
            descriptors()
        });
        assert!(last <= first + 4, "{first} became {last}");
        eventually("the keeper's are flat", || match keeper.descriptors() {
            now if now <= before + 4 => Ok(()),
            now => Err((before, now)),
        });
    }
}

/// Takes a place up, uses it and lets it go.
async fn round(sockets: &Sockets) {
    let cart = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
    let listener = sockets.listen(&cart, OUTBOUND_PORT).await.unwrap();
    let owned = sockets.owns(&cart, CART[0].parse().unwrap()).await;
    assert!(owned && listener.local_addr().is_ok());
}

fn descriptors() -> usize {
    fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

/// Sends a message with a descriptor.
fn with_descriptor(socket: &OwnedFd, text: &[u8]) -> rustix::io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let rights = [socket.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&rights));
    let text = [std::io::IoSlice::new(text)];
    rustix::net::sendmsg(socket, &text, &mut control, SendFlags::NOSIGNAL)
}

/// A listing without what counters counted.
fn counted(listing: &str) -> String {
    let words = listing.split(' ').scan(false, |counted, word| {
        let hide = std::mem::replace(counted, matches!(word, "packets" | "bytes"));
        Some(if hide { "#" } else { word })
    });
    words.collect::<Vec<_>>().join(" ")
}
