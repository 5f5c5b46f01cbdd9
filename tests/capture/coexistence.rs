//! Rules of others on the same network, before ours and after: what Docker, firewalld and ufw make,
//! tables that drop by default, and connection tracking zones. Where one of them drops what it does
//! not know, it has been told of the proxy's ports, as its operator has to.

use lateen::capture::{Mark, Target};
use rustix::thread::CapabilitySet;

use crate::programs::{Server, connect, greeting, listen, visit};
use crate::proxy::{Proxy, Seen};
use crate::room::{CART, OUTSIDE, Room, at, cases, sh};
use crate::site::{CART_PORT, Came, HostProxy, STRANGER, Site, WEB, wanted};

/// As `iptables-nft` has them after `docker run -p 8088:80` (Docker 24).
const DOCKER: &str = r#"
table ip nat {
    chain DOCKER {
        iifname "docker0" counter return
        iifname != "docker0" tcp dport 8088 counter dnat to 172.17.0.2:80
    }
    chain PREROUTING {
        type nat hook prerouting priority -100; policy accept;
        fib daddr type local counter jump DOCKER
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority 100; policy accept;
        oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
        ip saddr 172.17.0.2 ip daddr 172.17.0.2 tcp dport 80 counter masquerade
    }
}
table ip filter {
    chain DOCKER {
        iifname != "docker0" oifname "docker0" ip daddr 172.17.0.2 tcp dport 80 counter accept
    }
    chain DOCKER-USER {
        counter return
    }
    chain FORWARD {
        type filter hook forward priority 0; policy drop;
        counter jump DOCKER-USER
        oifname "docker0" ct state related,established counter accept
        oifname "docker0" counter jump DOCKER
        iifname "docker0" oifname != "docker0" counter accept
    }
}
"#;

const FIREWALLD: &str = include_str!("others/firewalld.nft");

const UFW: &str = include_str!("others/ufw.nft");

const DROPS: &str = r#"
table inet guard {
    chain input {
        type filter hook input priority -10; policy drop;
        ct state established,related accept
        iif "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        tcp dport { 15006, 15008 } accept
    }
    chain forward {
        type filter hook forward priority -10; policy drop;
    }
    chain output {
        type filter hook output priority -10; policy drop;
        ct state established,related accept
        oif "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        meta l4proto tcp accept
    }
}
"#;

/// By where connections come from, as hosts with the same addresses on several links have it.
const ZONES: &str = r#"
table inet zoned {
    chain raw_in {
        type filter hook prerouting priority -300; policy accept;
        iifname "eth0" ct original zone set 5
    }
}
"#;

/// Others mark connections for their own routing, above our bits.
const MARKS: &str = r#"
table inet shaping {
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        ct mark set ct mark & 0x00000fff | 0x00050000
        meta mark set meta mark & 0x00000fff | 0x00050000
    }
    chain output {
        type route hook output priority -150; policy accept;
        meta mark set meta mark & 0x00000fff | 0x00070000
    }
}
"#;

const OTHERS: [(&str, &str); 6] = [
    ("Docker", DOCKER),
    ("firewalld", FIREWALLD),
    ("ufw", UFW),
    ("a table that drops by default", DROPS),
    ("zones", ZONES),
    ("marks", MARKS),
];

/// Puts rules onto the network of the room's workload.
fn others(room: &Room, rules: &str) {
    std::fs::write("/run/others.nft", rules).unwrap();
    room.sh("nft -f /run/others.nft");
}

fn forget(room: &Room) {
    room.sh("nft list tables | grep -v lateen | while read table; do nft delete $table; done");
    sh("true");
}

fn on_host(room: &Room, site: &Site<'_>, proxy: &HostProxy, name: &str) {
    let outbound = |nth, to| Came::Outbound(Mark::all().nth(nth), to);
    proxy.came();
    for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
        let (out, plain) = (at(outside, 80), at(cart, CART_PORT));
        let seen = site.within("cart", || visit(out));
        assert_eq!(
            seen.unwrap_or_else(|e| panic!("{name} {out}: {e}")),
            format!("from {cart}")
        );
        assert_eq!(proxy.came(), [outbound(0, out)], "{name}");
        let seen = visit(plain);
        assert_eq!(
            seen.unwrap_or_else(|e| panic!("{name} {plain}: {e}")),
            format!("from {outside}")
        );
        assert_eq!(proxy.came(), [Came::Plaintext(plain)], "{name}");
        let local = room.program(STRANGER, CapabilitySet::empty(), || visit(plain));
        local.unwrap_or_else(|e| panic!("{name} {plain} from the host itself: {e}"));
        assert_eq!(proxy.came(), [Came::Plaintext(plain)], "{name}");
        let mut tunnel = connect(at(cart, 15008)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(greeting(&mut tunnel).unwrap(), "tunnel", "{name}");
        assert_eq!(proxy.came(), [Came::Tunnel], "{name}");
        let direct = room.program(STRANGER, CapabilitySet::empty(), || visit(out));
        direct.unwrap_or_else(|e| panic!("{name}, of nobody captured: {e}"));
        assert_eq!(proxy.came(), [], "{name}");
    }
}

cases! {
    fn the_hosts_rules_get_on_with_those_of_others(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        let _outside = Server::outside(80);
        site.start("cart");
        let _inside = Server::on(site.within("cart", || listen(CART_PORT)));
        let workloads = || vec![
            wanted(0, site.unit("cart"), CART_PORT),
            wanted(1, Target::User(WEB.to_string().into()), 8081),
        ];
        for (name, rules) in OTHERS {
            others(room, rules);
            let proxy = HostProxy::start(room, site.terms(), workloads());
            on_host(room, &site, &proxy, &format!("{name} before"));
            forget(room);
            others(room, rules);
            on_host(room, &site, &proxy, &format!("{name} after"));
            drop(proxy);
            room.sh("nft flush ruleset");
        }
    }

    fn a_namespaces_rules_get_on_with_those_of_others(room: &Room) {
        let _outside = Server::outside(80);
        let _inside = Server::in_cart(room, 8080);
        // firewalld is on a host's own network, and refuses what goes to ::1 by another interface.
        for (name, rules) in OTHERS.into_iter().filter(|(name, _)| *name != "firewalld") {
            others(room, rules);
            let proxy = Proxy::start(room);
            for order in ["before", "after"] {
                for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
                    let (out, plain) = (at(outside, 80), at(cart, 8080));
                    let seen = room.workload(|| visit(out));
                    seen.unwrap_or_else(|e| panic!("{name} {order} {out}: {e}"));
                    let seen = visit(plain);
                    let seen = seen.unwrap_or_else(|e| panic!("{name} {order} {plain}: {e}"));
                    assert_eq!(seen, format!("from {outside}"), "{name} {order}");
                    let both = [Seen::Outbound(out), Seen::Plaintext(plain)];
                    assert_eq!(proxy.seen(), both, "{name} {order}");
                }
                if order == "before" {
                    forget(room);
                    others(room, rules);
                }
            }
            proxy.stop();
            room.sh("nft flush ruleset");
        }
    }

    fn the_rules_of_others_are_as_they_were(room: &Room) {
        let Some(site) = Site::of(room) else { return };
        for (name, rules) in OTHERS {
            others(room, rules);
            let list = "nft -s list ruleset | sed '/^table \\(inet\\|netdev\\) lateen/,/^}/d'";
            let before = room.sh(list);
            let proxy = HostProxy::start(room, site.terms(), vec![wanted(0, Target::User(WEB.to_string().into()), 8081)]);
            assert_eq!(room.sh(list), before, "{name}");
            proxy.capture(vec![]);
            drop(proxy);
            assert_eq!(room.sh(list), before, "{name}");
            room.sh("nft flush ruleset");
        }
    }
}
