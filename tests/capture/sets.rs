//! Which datagrams come to the proxy changes, and stays.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lateen::capture::Datagrams;

use crate::keeper::Keeper;
use crate::relay::Relay;
use crate::room::{CART, OUTSIDE, Room, at, cases, eventually};
use crate::udp::{OWN, PORT, SERVICE, SILENCE, any, bound, echoed, hear, some};
use crate::upkeep::settled;

cases! {
    fn what_is_captured_changes_under_traffic_and_nothing_is_lost(room: &Room) {
        let relay = Relay::start(room, some());
        let done = AtomicBool::new(false);
        let whole = settled(&room.sh("nft -t list table inet lateen"));
        thread::scope(|scope| {
            let talking = SERVICE.map(|service| scope.spawn(|| {
                let to = at(service, PORT);
                let program = room.workload(|| bound(any(to), 0));
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    echoed(&program, to, b"on and on");
                    count += 1;
                }
                count
            }));
            for round in 1..=20_u16 {
                let mut datagrams = some();
                let more = (1..=250 * (round % 5)).map(|n| SocketAddr::new([10, 201, 0, 1].into(), n));
                datagrams.destinations.extend(more.filter(|at| at.port() % round != 0));
                datagrams.ports.extend(1000..1000 + round);
                let size = datagrams.destinations.iter().filter(|at| at.is_ipv4()).count();
                relay.tell(datagrams);
                eventually("what was told", || {
                    // Else it would wait for somebody to look.
                    relay.seen();
                    let now = room.sh("nft list set inet lateen udp4").matches(" . ").count();
                    // That of its type is one too.
                    if now == size + 1 { Ok(()) } else { Err((now, size)) }
                });
            }
            done.store(true, Ordering::SeqCst);
            for talk in talking {
                assert!(talk.join().unwrap() > 100, "too little to tell");
            }
        });
        // Never made anew.
        assert_eq!(settled(&room.sh("nft -t list table inet lateen")), whole);
        relay.seen();
        relay.tell(Datagrams::default());
        eventually("let go", || {
            let now = room.sh("nft list set inet lateen udp4");
            if now.contains("elements") { Err(now) } else { Ok(()) }
        });
        let there = bound(OUTSIDE[0], OWN);
        room.workload(|| bound(CART[0], 0)).send_to(b"direct", at(OUTSIDE[0], OWN)).unwrap();
        assert_eq!(hear(&there).unwrap().0, b"direct");
        assert_eq!(relay.seen(), []);
    }

    fn thousands_of_destinations_are_taken(room: &Room) {
        let _keeper = Keeper::start();
        let many = |n: u16| SocketAddr::new([10, 202, (n >> 8) as u8, n as u8].into(), PORT);
        let relay = Relay::kept(room, Some(some().into()));
        let mut datagrams = some();
        datagrams.destinations.extend((0..5000).map(many));
        relay.tell(datagrams);
        let to = many(4999);
        let program = room.workload(|| bound(any(to), 0));
        program.set_read_timeout(Some(SILENCE)).unwrap();
        eventually("the last of them", || {
            program.send_to(b"there", to).unwrap();
            hear(&program).map(drop)
        });
    }

    fn what_somebody_takes_away_is_put_back_within_a_second(room: &Room) {
        let relay = Relay::start(room, some());
        let state = "nft list table inet lateen; ip -4 rule; ip -6 rule; ip -4 route show table 100";
        let whole = room.sh(state);
        for harm in [
            "nft flush ruleset",
            "nft flush set inet lateen udp4",
            "nft delete element inet lateen udp6 '{ fd99::1 . 514 }'",
            "nft add element inet lateen udp_ports '{ 99 }'",
            "nft flush map inet lateen udp_sources",
            "nft flush chain inet lateen taken",
            "ip -4 rule del pref 32765",
            "ip -6 rule del pref 32765",
        ] {
            room.sh(harm);
            let took = eventually(harm, || {
                let now = room.sh(&format!("{{ {state}; }} 2>&1 || true"));
                if settled(&now) == settled(&whole) { Ok(()) } else { Err(now) }
            });
            assert!(took < Duration::from_secs(1), "{harm}: took {took:?}");
        }
        // Damaged and told of others at once.
        let mut datagrams = some();
        datagrams.ports.clear();
        room.sh("nft flush set inet lateen udp_ports; nft flush set inet lateen udp4");
        relay.tell(datagrams);
        eventually("both", || {
            let now = room.sh("nft list table inet lateen 2>&1 || true");
            let whole = now.contains("10.200.0.1 . 514") && !now.contains("elements = { 7946 }");
            if whole { Ok(()) } else { Err(now) }
        });
        echoed(&room.workload(|| bound("::", 0)), at(SERVICE[1], PORT), b"again");
    }

    fn a_keeper_that_comes_again_lets_nothing_go(room: &Room) {
        let mut keeper = Keeper::start();
        let held = || room.sh("nft list table inet lateen").matches(" . 514").count();
        let relay = Relay::kept(room, Some(some().into()));
        let program = room.workload(|| bound("::", 0));
        // From now on the proxy has what it takes to answer.
        echoed(&program, at(SERVICE[1], PORT), b"first");
        for _round in 0..3 {
            keeper.kill();
            echoed(&program, at(SERVICE[1], PORT), b"alone");
            keeper = Keeper::start();
            for _look in 0..50 {
                assert_eq!(held(), 2);
            }
            echoed(&program, at(SERVICE[1], PORT), b"again");
        }
        // Another proxy, of a mesh that it does not know yet.
        relay.stop();
        keeper.kill();
        let _keeper = Keeper::start();
        let relay = Relay::kept(room, None);
        assert_eq!(held(), 2);
        echoed(&room.workload(|| bound("::", 0)), at(SERVICE[1], PORT), b"as before");
        relay.tell(Datagrams::default());
        eventually("nothing any more", || match held() {
            0 => Ok(()),
            now => Err(now),
        });
    }
}
