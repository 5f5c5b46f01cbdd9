//! Guests that are ports of a bridge: what they and their neighbours would exchange below the network layer
//! passes none of the rules there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use lateen::capture::ruleset::HBONE_PORT;
use lateen::capture::{Datagrams, Mark, Target, Wanted};
use lateen::sys::packet_socket;
use rustix::net::{SendFlags, send};

use crate::forgery::{UDP, checksum, datagram, filled, octets, packet_of};
use crate::guests::{GATEWAY, GUEST, NEIGHBOUR, build_bridge, inside, within};
use crate::guests_udp::{OTHER, deaf, guest, mark, some};
use crate::programs::{connect, listen};
use crate::relay::{Came, Relay};
use crate::room::{OUTSIDE, Room, at, cases, eventually, sh};
use crate::site::Site;
use crate::udp::{OWN, PORT, SERVICE, any, asked, bound, echoed, hear, here, server};
use crate::wire::{TOKEN, Wire};

/// A tag for no network, which only gives a priority.
const TAG: [u8; 4] = [0x81, 0, 0, 0];
/// `IPPROTO_ICMPV6`.
const ICMP6: u8 = 58;
/// An address of the guest on its link, and of both of its kind.
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The guest, on a bridge where a neighbour has a port that is of the mesh as well, and a proxy.
fn served<'a>(room: &'a Room, guests: Vec<Wanted>) -> Option<(Site<'a>, Relay)> {
    build_bridge(room);
    let site = Site::of(room)?;
    let relay = Relay::on_host(&site, false, guests, with_neighbour());
    Some((site, relay))
}

fn with_neighbour() -> Datagrams {
    let mut datagrams = some();
    datagrams
        .destinations
        .extend(NEIGHBOUR.map(|ip| at(ip, OWN)));
    datagrams
}

fn neighbour<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    within("other", work)
}

/// A link's number and address.
fn link(netns: &str, name: &str) -> (u32, [u8; 6]) {
    let said = sh(&format!("ip -n {netns} -o link show {name}"));
    let (index, rest) = said.split_once(':').unwrap();
    let (_, rest) = rest.split_once("link/ether ").unwrap();
    let bytes = rest.get(..17).unwrap().split(':');
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    (index.parse().unwrap(), bytes.try_into().unwrap())
}

/// An end on the neighbour's link.
fn on_link(ip: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(ip, port, 0, link("other", "eth0").0).into()
}

/// Sends a frame out of the guest, with so many tags.
fn frame(to: [u8; 6], tags: usize, ends: (SocketAddr, SocketAddr)) {
    let kind: &[u8] = if ends.0.is_ipv4() {
        &[0x08, 0]
    } else {
        &[0x86, 0xdd]
    };
    let packet = packet_of(UDP, ends.0, ends.1, &datagram(ends.0, ends.1));
    let plain = filled([&[0; 12], kind, &packet].concat());
    let head = [&to[..], &[2, 0, 0, 0, 0, 7], &TAG.repeat(tags)].concat();
    let tagged = [&head, &plain[12..]].concat();
    inside(|| send(packet_socket("eth0").unwrap(), &tagged, SendFlags::empty()).unwrap());
}

cases! {
    fn a_guest_of_a_bridge_is_in_the_mesh_as_any_other(room: &Room) {
        let Some((_site, relay)) = served(room, guest()) else { return };
        inside(|| server(bound("::", OWN)));
        for ((guest, service), outside) in GUEST.into_iter().zip(SERVICE).zip(OUTSIDE) {
            let program = inside(|| bound(guest, 0));
            let (from, to) = (here(&program, guest), at(service, PORT));
            echoed(&program, to, b"into the mesh");
            assert_eq!(relay.seen(), [Came::Of { mark: mark(), from, to }]);
            let (client, to) = (bound(outside, 0), at(guest, OWN));
            let from = here(&client, outside);
            assert_eq!(asked(&client, to).unwrap(), from.to_string());
            assert_eq!(relay.seen(), [Came::Inbound { from, to }, Came::Back { from: to, to: from }]);
        }
    }

    fn guests_of_a_bridge_send_each_other_nothing_below_the_proxy(room: &Room) {
        let Some((_site, relay)) = served(room, guest()) else { return };
        let guests = [OWN, OTHER].map(|port| inside(|| bound("::", port)));
        let neighbours = [OWN, OTHER].map(|port| neighbour(|| bound("::", port)));
        let client = |to| inside(|| bound(any(to), 0));
        let caller = |to| neighbour(|| bound(any(to), 0));
        let short = TOKEN.to_vec();
        // In pieces, of which the first alone says for which port it is.
        let long = [TOKEN, &[0; 8000]].concat();
        let meet = |family: usize, payload: &[u8]| {
            let (guest, other) = (GUEST[family], NEIGHBOUR[family]);
            let to = at(other, OTHER);
            client(to).send_to(payload, to).unwrap();
            let to = at(guest, OTHER);
            caller(to).send_to(payload, to).unwrap();
            for heard in [&guests[1], &neighbours[1]] {
                assert_eq!(hear(heard).unwrap().0.len(), payload.len(), "not of the mesh");
            }
            let to = at(other, OWN);
            let _dropped = client(to).send_to(payload, to);
            let to = at(guest, OWN);
            let _dropped = caller(to).send_to(payload, to);
        };
        for family in 0..2 {
            for payload in [&short, &long] {
                meet(family, payload);
            }
        }
        assert!(deaf(&guests[0]) && deaf(&neighbours[0]));
        assert_eq!(relay.seen(), []);
        // Nor once the proxy is away.
        relay.stop();
        for family in 0..2 {
            meet(family, &short);
        }
        assert!(deaf(&guests[0]) && deaf(&neighbours[0]));
    }

    fn a_guest_of_a_bridge_sends_into_the_mesh_as_itself_or_not_at_all(room: &Room) {
        let Some((_site, relay)) = served(room, guest()) else { return };
        sh("ip -n vm address add fd02::9/64 dev eth0 nodad");
        let peers = OUTSIDE.map(|ip| bound(ip, OWN));
        let others = OUTSIDE.map(|ip| bound(ip, OTHER));
        let wire = Wire::of(&["10.2.0.9", "fd02::9"]);
        for (family, ip) in ["10.2.0.9", "fd02::9"].into_iter().enumerate() {
            let program = inside(|| bound(ip, 0));
            for payload in [TOKEN.to_vec(), [TOKEN, &[0; 8000]].concat()] {
                let _dropped = program.send_to(&payload, at(OUTSIDE[family], OWN));
            }
            assert!(deaf(&peers[family]));
            assert_eq!(wire.escapes(), [""; 0]);
            let to = at(OUTSIDE[family], OTHER);
            // Of itself the host can find no neighbour for another, without an address of the link's.
            room.workload(|| bound(any(to), 0).send_to(b"the host", to)).unwrap();
            assert_eq!(hear(&others[family]).unwrap().0, b"the host");
            program.send_to(b"not of the mesh", to).unwrap();
            assert_eq!(hear(&others[family]).unwrap().0, b"not of the mesh");
        }
        assert_eq!(relay.seen(), []);
    }

    fn what_a_bridge_knows_of_the_mesh_changes_and_is_put_back(room: &Room) {
        let Some((_site, relay)) = served(room, guest()) else { return };
        let rules = || room.sh("nft -a -t list table bridge lateen");
        let sets = || room.sh("nft list table bridge lateen | sed -n '/set /,/}/p'");
        let (was, whole) = (rules(), sets());
        let mut more = with_neighbour();
        more.destinations.insert(at(OUTSIDE[0], OTHER));
        relay.tell(more);
        let wanted = format!("{} . {OTHER}", OUTSIDE[0]);
        eventually("another destination", || match sets() {
            now if now.contains(&wanted) => Ok(()),
            now => Err(now),
        });
        relay.tell(with_neighbour());
        eventually("it has gone", || match sets() {
            now if now == whole => Ok(()),
            now => Err(now),
        });
        assert_eq!(rules(), was, "by elements alone");
        for harm in [
            "nft flush set bridge lateen guest_udp4",
            "nft add element bridge lateen guest_ports '{ tap9 . 1 }'",
            "nft flush chain bridge lateen meeting",
            "nft add chain bridge lateen meeting '{ policy drop; }'",
            "nft delete table bridge lateen",
        ] {
            let whole = room.sh("nft -s list table bridge lateen");
            room.sh(harm);
            eventually(harm, || match room.sh("nft -s list table bridge lateen 2>&1 || true") {
                now if now == whole => Ok(()),
                now => Err(now),
            });
        }
    }

    fn a_guest_of_a_bridge_cannot_be_another_behind_tags(room: &Room) {
        let mut guests = guest();
        let other = Wanted {
            mark: Mark::all().nth(301).unwrap(),
            target: Target::Interface("tap4".into()),
            addresses: NEIGHBOUR.map(|ip| ip.parse().unwrap()).into(),
            ..guests[0].clone()
        };
        guests.push(other);
        let Some((_site, relay)) = served(room, guests) else { return };
        let (_, host) = link("cart", "br0");
        for ((guest, other), service) in GUEST.into_iter().zip(NEIGHBOUR).zip(SERVICE) {
            let to = at(service, PORT);
            // As it would be seen.
            let from = at(guest, 40_003);
            frame(host, 1, (from, to));
            eventually("one tag hides nothing", || match relay.seen() {
                seen if seen == [Came::Of { mark: mark(), from, to }] => Ok(()),
                seen => Err(seen),
            });
            for tags in 0..4 {
                frame(host, tags, (at(other, 40_003), to));
            }
            let program = inside(|| bound(guest, 0));
            let from = here(&program, guest);
            echoed(&program, to, b"after them");
            assert_eq!(relay.seen(), [Came::Of { mark: mark(), from, to }]);
        }
    }

    fn a_guest_of_one_family_has_no_other_behind_a_tag(room: &Room) {
        let mut guests = guest();
        guests[0].addresses.retain(|ip| ip.is_ipv4());
        let Some((_site, relay)) = served(room, guests) else { return };
        let wire = Wire::of(&[GUEST[1]]);
        let peer = bound(OUTSIDE[1], OWN);
        room.workload(|| bound("::", 0).send_to(b"the host", at(OUTSIDE[1], OWN))).unwrap();
        assert_eq!(hear(&peer).unwrap().0, b"the host");
        let (_, host) = link("cart", "br0");
        for tags in 0..3 {
            frame(host, tags, (at(GUEST[1], 40_003), at(OUTSIDE[1], OWN)));
        }
        assert!(deaf(&peer));
        assert_eq!(wire.escapes(), [""; 0]);
        assert_eq!(relay.seen(), []);
    }

    fn neighbours_reach_what_a_guest_declares_under_none_of_its_addresses(room: &Room) {
        let Some((_site, relay)) = served(room, guest()) else { return };
        sh("ip -n vm address add fe80::2/64 dev eth0 nodad");
        let own = inside(|| bound("::", OWN));
        let others = inside(|| bound("::", OTHER));
        let broadcast = at("10.2.0.255", OWN);
        let from = neighbour(|| [bound("::", 0), bound(NEIGHBOUR[0], 0)]);
        from[1].set_broadcast(true).unwrap();
        for to in [on_link(LINK, OWN), on_link(ALL, OWN)] {
            from[0].send_to(TOKEN, to).unwrap();
        }
        for to in [broadcast, at("10.2.0.9", OWN), SocketAddr::new(Ipv4Addr::BROADCAST.into(), OWN)] {
            from[1].send_to(TOKEN, to).unwrap();
        }
        from[0].send_to(b"not of the mesh", on_link(LINK, OTHER)).unwrap();
        assert_eq!(hear(&others).unwrap().0, b"not of the mesh");
        assert!(deaf(&own));
        assert_eq!(relay.seen(), []);
        // Nor does a connection reach it on its link, nor a tunnel.
        let _listening = inside(|| listen(8080));
        let to = on_link(LINK, 8080);
        assert!(neighbour(|| connect(to)).is_err());
        let tunnels = inside(|| bound("::", HBONE_PORT));
        from[0].send_to(TOKEN, at(GUEST[1], HBONE_PORT)).unwrap();
        assert!(deaf(&tunnels));
    }

    fn frames_that_hide_what_they_are_are_dropped(room: &Room) {
        let Some((_site, _relay)) = served(room, guest()) else { return };
        let (_, guests) = link("vm", "eth0");
        let (_, host) = link("cart", "br0");
        let (from, to) = (at(NEIGHBOUR[1], 40_003), at(GUEST[1], OWN));
        // Destination options, padded, and the ports in the next piece.
        let headless = |from, to| packet_of(44, from, to, &[60, 0, 0, 1, 0, 0, 0, 7, UDP, 0, 1, 4, 0, 0, 0, 0]);
        let plain = |from, to| packet_of(UDP, from, to, &datagram(from, to));
        let counted = || {
            let rules = room.sh("nft list table bridge lateen");
            let hidden = rules.lines().filter(|rule| rule.contains("made to hide"));
            let counts = hidden.filter_map(|rule| rule.split("packets ").nth(1)?.split(' ').next()?.parse::<u32>().ok());
            counts.sum::<u32>()
        };
        for (name, netns, to, tags, packet) in [
            ("headless", "other", guests, &[][..], headless(from, to)),
            ("behind a tag", "other", guests, &TAG, headless(from, to)),
            ("from the guest", "vm", host, &TAG, headless(to, from)),
            ("two tags", "other", host, &[0x81, 0, 0, 5, 0x81, 0, 0, 0], plain(from, to)),
            ("the first is empty", "other", host, &[0x81, 0, 0, 0, 0x81, 0, 0, 5], plain(from, to)),
            ("of a provider", "other", host, &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 5], plain(from, to)),
            ("from the guest", "vm", host, &[0x81, 0, 0, 6, 0x81, 0, 0, 5], plain(to, from)),
            ("to the guest", "other", guests, &[0x81, 0, 0, 6, 0x81, 0, 0, 5], plain(from, to)),
        ] {
            let before = counted();
            let frame = [&to[..], &[2, 0, 0, 0, 0, 9], tags, &[0x86, 0xdd], &packet].concat();
            within(netns, || send(packet_socket("eth0").unwrap(), &frame, SendFlags::empty()).unwrap());
            eventually(name, || match counted() {
                now if now == before + 1 => Ok(()),
                now => Err((before, now)),
            });
        }
    }

    fn a_neighbour_does_not_say_that_it_has_the_address_of_a_guest(room: &Room) {
        let Some((_site, _relay)) = served(room, guest()) else { return };
        // The host has asked for it, as it does anyway.
        let known = || room.sh("ip neigh show dev br0");
        let [answered, _] = [GUEST, NEIGHBOUR].map(|ends| ends.map(|ip| room.workload(|| {
            bound(any(at(ip, OTHER)), 0).send_to(b"who has it", at(ip, OTHER))
        })));
        assert!(answered.iter().all(Result::is_ok), "{answered:?}");
        let (_, guests) = link("vm", "eth0");
        let guests = guests.map(|byte| format!("{byte:02x}")).join(":");
        let whole = || GUEST.iter().filter(|ip| known().contains(&format!("{ip} lladdr {guests}"))).count();
        eventually("both are known", || if whole() == 2 { Ok(()) } else { Err(known()) });
        let (_, host) = link("cart", "br0");
        let mac = [2, 0, 0, 0, 0, 9];
        // An answer nobody asked for (RFC 826, and RFC 4861, section 4.4, solicited and overriding).
        let [v4, own4] = [GUEST[0], GATEWAY[0]].map(|ip| octets(at(ip, 0).ip()));
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &v4, &host, &own4].concat();
        let advert = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &octets(at(GUEST[1], 0).ip()), &[2, 1], &mac].concat();
        let (from, to) = (at(NEIGHBOUR[1], 0), at(GATEWAY[1], 0));
        let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, 0, 0, 32, 0, 0, 0, ICMP6], advert.clone()];
        let mut advert = advert;
        advert[2..4].copy_from_slice(&checksum(&pseudo.concat()).to_be_bytes());
        let mut advert = packet_of(ICMP6, from, to, &advert);
        // Of another link's it would not be believed.
        advert[7] = 255;
        for tag in [&[][..], &TAG] {
            for (kind, packet) in [(&[8, 6], &arp), (&[0x86, 0xdd], &advert)] {
                let frame = [&host[..], &mac, tag, kind, packet].concat();
                neighbour(|| send(packet_socket("eth0").unwrap(), &frame, SendFlags::empty()).unwrap());
            }
        }
        eventually("they are counted", || {
            let rules = room.sh("nft list chain bridge lateen pinned");
            let two = rules.matches("counter packets 2 ").count();
            if two == 2 { Ok(()) } else { Err(rules) }
        });
        assert_eq!(whole(), 2, "{}", known());
    }
}
