//! Units and users that share the host's network: whose a connection is, what is redirected and what
//! let alone, and that rules follow whoever starts and stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use lateen::capture::host::{Standing, apply};
use lateen::capture::ruleset::{
    By, FIRST_MARK, GUEST_MARK, Member, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK, RETURN_MARK,
};
use lateen::capture::{Exclusions, HostPlan, Mark, Target};
use rustix::thread::CapabilitySet;

use crate::programs::{How, Server, connect, connect_how, exchange, greeting, listen, visit};
use crate::room::{CART, OUTSIDE, PROXY, Room, at, cases, eventually};
use crate::site::{CART_PORT, Came, HostProxy, STRANGER, Site, WEB, wanted};
use crate::wire::Wire;

fn user(uid: u32) -> Target {
    Target::User(uid.to_string().into())
}

/// Connects as a user whom nobody captures.
fn stranger<T: Send>(room: &Room, work: impl FnOnce() -> T + Send) -> T {
    room.program(STRANGER, CapabilitySet::NET_RAW, work)
}

fn web<T: Send>(room: &Room, work: impl FnOnce() -> T + Send) -> T {
    room.program(WEB, CapabilitySet::NET_RAW, work)
}

fn outbound(nth: usize, to: SocketAddr) -> Came {
    Came::Outbound(Mark::all().nth(nth), to)
}

cases! {
    fn whose_a_connection_is_its_mark_says(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        site.start("cart");
        site.start("pay");
        let workloads = vec![
            wanted(0, site.unit("cart"), 8080),
            wanted(1, user(WEB), 8081),
            wanted(2, site.unit("pay"), 8082),
        ];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        for outside in OUTSIDE {
            let to = at(outside, 80);
            site.within("cart", || visit(to)).unwrap();
            web(room, || visit(to)).unwrap();
            site.within("pay", || visit(to)).unwrap();
            assert_eq!(proxy.came(), [outbound(0, to), outbound(1, to), outbound(2, to)]);
            stranger(room, || visit(to)).unwrap();
            assert_eq!(proxy.came(), [], "of nobody captured");
        }
    }

    fn a_unit_of_a_captured_user_is_the_unit(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        site.start("cart");
        // What runs in a unit runs as user 1000 here.
        let workloads = vec![wanted(0, user(1000), 8081), wanted(1, site.unit("cart"), 8080)];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        let to = at(OUTSIDE[0], 80);
        site.within("cart", || visit(to)).unwrap();
        room.workload(|| visit(to)).unwrap();
        assert_eq!(proxy.came(), [outbound(1, to), outbound(0, to)]);
    }

    fn a_cgroup_above_all_its_own_is_captured_with_them(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        site.start("cart");
        let slice = format!("lateen_{}.slice", std::process::id());
        let workloads = vec![wanted(0, Target::Cgroup(slice.into()), 8080)];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        let to = at(OUTSIDE[1], 80);
        site.within("cart", || visit(to)).unwrap();
        assert_eq!(proxy.came(), [outbound(0, to)]);
    }

    fn a_declared_port_is_reached_through_the_proxy_and_no_other_is(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let _declared = Server::on(site.within("cart", || listen(CART_PORT)));
        let _other = Server::on(site.within("cart", || listen(9999)));
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, site.unit("cart"), CART_PORT)]);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let declared = at(cart, CART_PORT);
            assert_eq!(visit(declared).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.came(), [Came::Plaintext(declared)]);
            assert_eq!(visit(at(cart, 9999)).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.came(), []);
        }
    }

    fn on_the_host_itself_loopback_is_direct_and_its_addresses_are_not(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let _server = Server::on(site.within("cart", || listen(CART_PORT)));
        let workloads = vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user(WEB), 8081)];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        for (cart, loopback) in CART.into_iter().zip(["127.0.0.1", "::1"]) {
            let (declared, direct) = (at(cart, CART_PORT), at(loopback, CART_PORT));
            stranger(room, || visit(declared)).unwrap();
            assert_eq!(proxy.came(), [Came::Plaintext(declared)], "of nobody captured");
            web(room, || visit(declared)).unwrap();
            assert_eq!(proxy.came(), [outbound(1, declared)], "of another workload");
            site.within("cart", || visit(declared)).unwrap();
            assert_eq!(proxy.came(), [outbound(0, declared)], "of itself");
            for greeting in [
                stranger(room, || visit(direct)),
                web(room, || visit(direct)),
                site.within("cart", || visit(direct)),
            ] {
                assert_eq!(greeting.unwrap(), format!("from {loopback}"));
            }
            assert_eq!(proxy.came(), [], "{loopback}");
        }
    }

    /// Else the next process might give a mark to another, while the rules still give it to the first.
    fn who_comes_next_is_told_under_which_marks_the_rules_are(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let workloads = vec![wanted(3, site.unit("cart"), CART_PORT), wanted(5, user(WEB), 8081)];
        HostProxy::start(room, site.terms(), workloads).stop();
        let next = HostProxy::unaware(room, site.terms());
        let standings = || [3, 4, 5].map(|nth| next.standing(nth));
        let want = [Some(Standing::Captured), None, Some(Standing::Captured)];
        assert_eq!(standings(), want);
        // It has looked at its rules meanwhile, of which there is no news.
        room.sh("nft list ruleset");
        assert_eq!(standings(), want);
        next.capture(vec![wanted(7, user(WEB), 8081)]);
        assert_eq!([3, 5].map(|nth| next.standing(nth)), [None, None]);
    }

    fn a_unit_is_captured_again_whenever_it_starts(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, site.unit("cart"), CART_PORT)]);
        assert_eq!(proxy.standing(0), Some(Standing::Absent));
        let to = at(OUTSIDE[0], 80);
        for round in 0..5 {
            site.start("cart");
            let took = proxy.eventually(0, &Standing::Captured);
            assert!(took < Duration::from_secs(1), "{round}: {took:?}");
            site.within("cart", || visit(to)).unwrap();
            assert_eq!(proxy.came(), [outbound(0, to)], "{round}");
            site.stop("cart");
            proxy.eventually(0, &Standing::Absent);
        }
        // Stopped and started within one look, it is another under the same name.
        site.start("cart");
        proxy.eventually(0, &Standing::Captured);
        site.stop("cart");
        site.start("cart");
        eventually("the new cgroup in the rules", || {
            site.within("cart", || visit(to)).unwrap();
            match proxy.came() {
                came if came == [outbound(0, to)] => Ok(()),
                came => Err(came),
            }
        });
    }

    fn one_that_stops_while_rules_change_holds_up_no_other(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let planned = |units: &[&str]| {
            let members: Vec<_> = units
                .iter()
                .zip(Mark::all())
                .map(|(name, mark)| Member {
                    mark,
                    by: By::Cgroup(site.cgroup(name)),
                    inbound: BTreeSet::new(),
                    datagrams: BTreeSet::new(),
                })
                .collect();
            HostPlan::new(room.exemption(), &Exclusions::default(), &members)
        };
        let table = || {
            let listed = room.sh("nft list table inet lateen");
            ["cart", "pay"].map(|unit| listed.contains(&*site.unit_name(unit)))
        };
        site.start("cart");
        let first = planned(&["cart"]);
        site.start("pay");
        let both = planned(&["cart", "pay"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let mut applied = apply::apply(&room.cart, &first).await.unwrap();
            assert_eq!(table(), [true, false]);
            // Found running, it has gone by the time that the rules are changed.
            site.stop("cart");
            applied.change(&both).await.unwrap();
            assert_eq!(table(), [false, true], "that which has gone has no name");
            assert!(applied.intact().await.unwrap());
            room.sh("nft add element inet lateen users '{ 7 : 0x607 }'");
            assert!(!applied.intact().await.unwrap());
            site.stop("pay");
            applied.change(&first).await.unwrap();
            assert!(!applied.intact().await.unwrap(), "what somebody else has changed is not forgotten");
        });
    }

    fn a_workload_is_nobody_elses_to_be(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        site.start("cart");
        let workloads = vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user(WEB), 8081)];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        for (outside, loopback) in OUTSIDE.into_iter().zip(["127.0.0.1", "::1"]) {
            let to = at(outside, 80);
            let forged = |mark| How { mark: Some(mark), ..How::default() };
            // A stranger with another's mark is a stranger.
            stranger(room, || connect_how(to, forged(FIRST_MARK))).unwrap();
            assert_eq!(proxy.came(), []);
            // A workload with another's mark, or the proxy's, is itself.
            for mark in [FIRST_MARK, PROXY_MARK, GUEST_MARK] {
                web(room, || connect_how(to, forged(mark))).unwrap();
                proxy.eventually_came(&[outbound(1, to)]);
            }
            // With that of answers all is this host to it, and it has no way or its own.
            match web(room, || connect_how(to, forged(RETURN_MARK))) {
                Ok(_connected) => proxy.eventually_came(&[outbound(1, to)]),
                Err(_no_way) => assert_eq!(proxy.came(), []),
            }
            // Straight to the proxy's port nobody is anybody.
            let port = at(loopback, OUTBOUND_PORT);
            stranger(room, || connect_how(port, forged(FIRST_MARK))).unwrap();
            proxy.eventually_came(&[Came::Outbound(None, port)]);
        }
    }

    fn nobody_is_captured_as_root_or_as_the_proxy(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let workloads = vec![
            wanted(0, user(0), 8080),
            wanted(1, user(PROXY), 8081),
            wanted(2, Target::User("nobody-of-this-name".into()), 8082),
            wanted(3, user(WEB), 8083),
            wanted(4, user(WEB), 8084),
        ];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        for (nth, want) in [
            (0, "root"),
            (1, "the proxy's own"),
            (2, "no user"),
            (4, "already"),
        ] {
            match proxy.standing(nth) {
                Some(Standing::Failed(reason)) if reason.contains(want) => {}
                other => panic!("{nth}: {other:?}"),
            }
        }
        assert_eq!(proxy.standing(3), Some(Standing::Captured));
    }

    fn what_is_let_alone_goes_beside_the_proxy(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let mut terms = site.terms();
        terms.exclusions.ports.insert(9100);
        terms.exclusions.ranges.insert("10.1.0.1/32".parse().unwrap());
        terms.exclusions.users.insert(STRANGER);
        terms.exclusions.probes.insert("fd01::1/128".parse().unwrap());
        let _outside = [22, 80, 9100].map(Server::outside);
        site.start("cart");
        room.set("ipv4/ip_unprivileged_port_start", "0");
        let _inside = [22, 9100, CART_PORT].map(|port| Server::on(site.within("cart", || listen(port))));
        let mut cart = wanted(0, site.unit("cart"), CART_PORT);
        cart.ports.extend([22, 9100]);
        let proxy = HostProxy::start(room, terms, vec![cart, wanted(1, user(STRANGER), 8081)]);
        let [v4, v6] = OUTSIDE;
        for (name, to) in [
            ("SSH", at(v6, 22)),
            ("a port", at(v6, 9100)),
            ("a range", at(v4, 80)),
        ] {
            site.within("cart", || visit(to)).unwrap();
            assert_eq!(proxy.came(), [], "{name}");
        }
        stranger(room, || visit(at(v6, 80))).unwrap();
        assert_eq!(proxy.came(), [], "a user");
        for (name, to) in [
            ("SSH of the host", at(CART[0], 22)),
            ("a port of the host", at(CART[0], 9100)),
            ("a prober", at(CART[1], CART_PORT)),
        ] {
            visit(to).unwrap();
            assert_eq!(proxy.came(), [], "{name}");
        }
        let (out, plain) = (at(v6, 80), at(CART[0], CART_PORT));
        site.within("cart", || visit(out)).unwrap();
        visit(plain).unwrap();
        assert_eq!(proxy.came(), [outbound(0, out), Came::Plaintext(plain)]);
    }

    fn without_the_proxy_no_captured_traffic_passes(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let server = Server::outside(80);
        site.start("cart");
        let inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let workloads = || vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user(WEB), 8081)];
        HostProxy::start(room, site.terms(), workloads()).stop();
        let wire = Wire::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(cart, CART_PORT));
            for outcome in [
                site.within("cart", || connect(out)),
                web(room, || connect(out)),
                web(room, || connect(plain)),
                stranger(room, || connect(plain)),
                connect(plain),
            ] {
                assert!(outcome.is_err(), "{outcome:?}");
            }
        }
        assert_eq!((server.accepted(), inside.accepted()), (0, 0));
        assert_eq!(wire.openings(), [""; 0]);
        // Whoever is not captured is none the worse for it.
        stranger(room, || visit(at(OUTSIDE[0], 80))).unwrap();
        let _proxy = HostProxy::start(room, site.terms(), workloads());
        site.within("cart", || visit(at(OUTSIDE[1], 80))).unwrap();
        visit(at(CART[1], CART_PORT)).unwrap();
    }

    fn whoever_takes_the_dead_proxys_ports_is_given_nothing(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        site.start("cart");
        let _inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let workloads = || vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user(WEB), 8081)];
        HostProxy::start(room, site.terms(), workloads()).stop();
        let squatters = [OUTBOUND_PORT, PLAINTEXT_PORT].map(|port| {
            Server::on(room.program(STRANGER, CapabilitySet::empty(), || listen(port)))
        });
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(cart, CART_PORT));
            for outcome in [
                site.within("cart", || connect(out)),
                web(room, || connect(out)),
                stranger(room, || connect(plain)),
                connect(plain),
            ] {
                assert!(outcome.is_err(), "{outcome:?}");
            }
        }
        assert_eq!(squatters.map(|s| s.accepted()), [0, 0]);
    }

    fn what_is_changed_while_units_come_and_go_is_put_back_too(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let workloads = |port| vec![wanted(0, user(WEB), port), wanted(1, user(1003), 8082)];
        let proxy = HostProxy::start(room, site.terms(), workloads(8081));
        let table = "nft -n list table inet lateen | sed 's/packets [0-9]* bytes [0-9]*//'";
        let whole = room.sh(table);
        for (round, harm) in [
            "nft insert rule inet lateen outbound accept",
            "nft flush chain inet lateen marks",
            "nft delete element inet lateen users '{ 1001 }'",
        ].into_iter().cycle().take(9).enumerate() {
            room.sh(harm);
            // Nobody has looked at it yet when the next change is due.
            proxy.capture(workloads(9000 + round as u16));
            proxy.capture(workloads(8081));
            eventually(harm, || match room.sh(table) {
                now if now == whole => Ok(()),
                now => Err(now),
            });
        }
    }

    fn what_somebody_takes_from_the_host_is_put_back_within_a_second(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _server = Server::outside(80);
        site.start("cart");
        let workloads = vec![wanted(0, site.unit("cart"), CART_PORT), wanted(1, user(WEB), 8081)];
        let proxy = HostProxy::start(room, site.terms(), workloads);
        let state = "nft -n list table inet lateen | sed 's/packets [0-9]* bytes [0-9]*//'; \
            ip -4 rule; ip -6 rule; ip -4 route show table 100; ip -6 route show table 100; \
            cat /proc/sys/net/ipv4/tcp_fwmark_accept";
        let whole = room.sh(state);
        for harm in [
            "nft flush ruleset",
            "nft delete table inet lateen",
            "nft flush chain inet lateen marks",
            "nft delete element inet lateen users '{ 1001 }'",
            "nft add element inet lateen users '{ 1002 : 0x600 }'",
            "nft flush map inet lateen units_2",
            "nft flush set inet lateen declared6",
            "ip -4 rule del pref 32764",
            "ip -6 route flush table 100",
        ] {
            room.sh(harm);
            let took = eventually(harm, || {
                let now = room.sh(&format!("{{ {state}; }} 2>&1 || true"));
                if now == whole { Ok(()) } else { Err(now) }
            });
            assert!(took < Duration::from_secs(1), "{harm}: took {took:?}");
        }
        proxy.came();
        let to = at(OUTSIDE[0], 80);
        site.within("cart", || visit(to)).unwrap();
        web(room, || visit(to)).unwrap();
        assert_eq!(proxy.came(), [outbound(0, to), outbound(1, to)]);
    }

    fn the_last_workload_takes_all_rules_with_it(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let state = "nft list ruleset; ip -4 rule; ip -6 rule; \
            ip -4 route show table all; ip -6 route show table all";
        let before = room.sh(state);
        site.start("cart");
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, user(WEB), 8081)]);
        proxy.capture(vec![wanted(0, user(WEB), 8081), wanted(1, site.unit("cart"), CART_PORT)]);
        assert_ne!(room.sh(state), before);
        proxy.capture(vec![]);
        eventually("no rules", || match room.sh(state) {
            now if now == before => Ok(()),
            now => Err(now),
        });
    }

    fn connections_older_than_the_hosts_rules_live_on(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _outside = Server::outside(80);
        site.start("cart");
        let _inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let mut open = Vec::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            open.push(site.within("cart", || connect(at(outside, 80))).unwrap());
            open.push(connect(at(cart, CART_PORT)).unwrap());
        }
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, site.unit("cart"), CART_PORT)]);
        for stream in &mut open {
            greeting(stream).unwrap();
            exchange(stream, 1 << 20).unwrap();
        }
        assert_eq!(proxy.came(), []);
    }

    fn strict_reverse_paths_are_no_hindrance(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        for interface in ["all", "default", "lo", "eth0"] {
            room.set(&format!("ipv4/conf/{interface}/rp_filter"), "1");
            room.set(&format!("ipv4/conf/{interface}/src_valid_mark"), "1");
        }
        let _outside = Server::outside(80);
        site.start("cart");
        let _inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, site.unit("cart"), CART_PORT)]);
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (out, plain) = (at(outside, 80), at(cart, CART_PORT));
            site.within("cart", || visit(out)).unwrap();
            assert_eq!(visit(plain).unwrap(), format!("from {outside}"));
            assert_eq!(proxy.came(), [outbound(0, out), Came::Plaintext(plain)]);
        }
    }
}
