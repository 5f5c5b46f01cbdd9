//! The rules are there, stay there, and go when they are told to.

use std::io::ErrorKind;
use std::time::Duration;

use lateen::capture::ruleset::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};
use lateen::capture::{Netns, apply, clear, preflight};

use rustix::thread::CapabilitySet;

use crate::programs::{Server, connect, listen, visit};
use crate::proxy::{Proxy, Seen};
use crate::room::{CART, OUTSIDE, Room, Users, at, cases, eventually};
use crate::wire::Wire;

/// All that capture can leave in a namespace.
const STATE: &str = "nft list ruleset; ip -4 rule; ip -6 rule; \
    ip -4 route show table all; ip -6 route show table all";

cases! {
    fn without_the_proxy_nothing_passes(room: &Room) {
        let outside = Server::outside(80);
        let inside = Server::in_cart(room, 8080);
        Proxy::start(room).stop();
        let wire = Wire::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let out = at(outside, 80);
            assert!(refused(room.workload(|| connect(out))), "{out}");
            for port in [8080, HBONE_PORT] {
                assert!(refused(connect(at(cart, port))), "{cart} {port}");
            }
        }
        assert_eq!((outside.accepted(), inside.accepted()), (0, 0));
        assert_eq!(wire.openings(), [""; 0]);
        for ip in CART.into_iter().chain(["127.0.0.1", "::1"]) {
            room.workload(|| visit(at(ip, 8080))).unwrap();
        }
        // And all works again as soon as there is a proxy.
        let _proxy = Proxy::start(room);
        room.workload(|| visit(at(OUTSIDE[0], 80))).unwrap();
        visit(at(CART[1], 8080)).unwrap();
    }

    fn whoever_takes_the_dead_proxys_ports_is_given_nothing(room: &Room) {
        let _inside = Server::in_cart(room, 8080);
        Proxy::start(room).stop();
        let squatters = [OUTBOUND_PORT, PLAINTEXT_PORT].map(|port| {
            Server::on(room.program(1002, CapabilitySet::empty(), || listen(port)))
        });
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            assert!(refused(room.workload(|| connect(at(outside, 80)))), "{outside}");
            assert!(refused(connect(at(cart, 8080))), "{cart}");
        }
        assert_eq!(squatters.map(|s| s.accepted()), [0, 0]);
    }

    fn what_somebody_takes_away_is_put_back_within_a_second(room: &Room) {
        let _server = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        let proxy = Proxy::start(room);
        room.sh("nft add table inet neighbour");
        let state = "nft list table inet lateen; ip -4 rule; ip -6 rule; \
            ip -4 route show table 100; ip -6 route show table 100; ip -o link show lo up";
        let whole = room.sh(state);
        for harm in [
            "nft flush ruleset",
            "nft delete table inet lateen",
            "nft flush chain inet lateen outbound",
            "nft insert rule inet lateen outbound accept",
            "nft add chain inet lateen outbound '{ policy drop; }'",
            "ip -4 rule del pref 32764",
            "ip -6 rule del pref 32764",
            "ip -4 route flush table 100",
            "ip -6 route flush table 100",
            "ip link set lo down",
            "nft flush ruleset; ip -6 rule flush; ip -6 rule add pref 32766 lookup main; ip link set lo down",
        ] {
            room.sh(harm);
            let took = eventually(harm, || {
                // A table that is gone makes the script fail.
                let now = room.sh(&format!("{{ {state}; }} 2>&1 || true"));
                if settled(&now) == settled(&whole) { Ok(()) } else { Err(now) }
            });
            assert!(took < Duration::from_secs(1), "{harm}: took {took:?}");
        }
        proxy.seen();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(cart, 8080));
            room.workload(|| visit(out)).unwrap();
            assert_eq!(visit(plain).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.seen(), [Seen::Outbound(out), Seen::Plaintext(plain)]);
        }
    }

    fn what_is_taken_away_while_it_is_put_back_comes_again(room: &Room) {
        let _proxy = Proxy::start(room);
        let chain = "nft list chain inet lateen outbound";
        let whole = room.sh(chain);
        room.sh("for i in $(seq 100); do nft flush chain inet lateen outbound; done");
        let took = eventually("flushed again and again", || {
            let now = room.sh(chain);
            if settled(&now) == settled(&whole) { Ok(()) } else { Err(now) }
        });
        assert!(took < Duration::from_secs(1), "took {took:?}");
    }

    fn a_neighbours_rules_are_not_touched(room: &Room) {
        room.sh("nft add table inet neighbour
            nft add chain inet neighbour input '{ type filter hook input priority 0; }'
            nft add rule inet neighbour input udp dport 9 drop
            ip rule add pref 32764 fwmark 0x999 lookup 99
            ip route add 192.0.2.0/24 dev lo table 100");
        let before = room.sh(STATE);
        run(async {
            apply(&room.cart, &room.plan()).await.unwrap();
            clear(&room.cart).await.unwrap();
        });
        assert_eq!(room.sh(STATE), before);
    }

    fn clearing_leaves_nothing_and_can_be_repeated(room: &Room) {
        let before = room.sh(STATE);
        run(async {
            clear(&room.cart).await.unwrap();
            let applied = apply(&room.cart, &room.plan()).await.unwrap();
            assert!(applied.intact().await.unwrap());
            clear(&room.cart).await.unwrap();
            assert!(!applied.intact().await.unwrap());
            clear(&room.cart).await.unwrap();
        });
        assert_eq!(room.sh(STATE), before);
    }

    fn applying_again_changes_nothing_and_opens_no_gap(room: &Room) {
        let server = Server::outside(80);
        let wire = Wire::new();
        let first = run(apply(&room.cart, &room.plan())).unwrap();
        let whole = room.sh(STATE);
        std::thread::scope(|scope| {
            let applying = scope.spawn(|| {
                for _again in 0..20 {
                    run(apply(&room.cart, &room.plan())).unwrap();
                }
            });
            // Nobody is there to take them, so each is refused.
            let mut tried = 0;
            while !applying.is_finished() {
                let to = at(OUTSIDE[tried % 2], 80);
                assert!(refused(room.workload(|| connect(to))), "attempt {tried}");
                tried += 1;
            }
            assert!(tried > 20, "too few attempts to tell: {tried}");
        });
        assert_eq!(server.accepted(), 0);
        assert_eq!(wire.openings(), [""; 0]);
        assert_eq!(settled(&room.sh(STATE)), settled(&whole));
        assert!(run(first.intact()).unwrap());
    }

    fn a_namespace_with_its_loopback_down_is_captured(room: &Room) {
        room.sh("ip link set lo down");
        let _server = Server::outside(80);
        let proxy = Proxy::start(room);
        let to = at(OUTSIDE[0], 80);
        room.workload(|| visit(to)).unwrap();
        assert_eq!(proxy.seen(), [Seen::Outbound(to)]);
    }

    fn what_the_host_lacks_is_found_before_anything_is_changed(room: &Room) {
        let before = room.sh(STATE);
        let tools = run(preflight(&room.cart, &room.plan())).unwrap();
        assert!(tools.nft.starts_with("nftables v"), "{tools:?}");
        assert!(tools.ip.starts_with("ip utility"), "{tools:?}");
        assert_eq!(room.sh(STATE), before);
        // Of a single user, who is root here, every program has all capabilities again.
        if room.users == Users::Many {
            let refused = room.workload(|| {
                let here = Netns::current().unwrap();
                run(preflight(&here, &room.plan())).unwrap_err()
            });
            assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
        }
    }

    fn the_plan_is_a_script_that_does_the_same(room: &Room) {
        run(async { apply(&room.cart, &room.plan()).await.unwrap() });
        let applied = room.sh(STATE);
        run(clear(&room.cart)).unwrap();
        room.sh(&room.plan().render());
        assert_eq!(settled(&room.sh(STATE)), settled(&applied));
    }
}

fn refused<T>(outcome: std::io::Result<T>) -> bool {
    outcome.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// A listing without what counters counted.
pub(crate) fn settled(listing: &str) -> String {
    let words = listing.split(' ').scan(false, |counted, word| {
        let hide = std::mem::replace(counted, matches!(word, "packets" | "bytes"));
        Some(if hide { "#" } else { word })
    });
    words.collect::<Vec<_>>().join(" ")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}
