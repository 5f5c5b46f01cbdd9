//! A workload with NET_RAW does not get past, whatever it forges. The proxy is dead in all of
//! these: what arrives anywhere has gone beside it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lateen::capture::ruleset::{PROXY_MARK, RETURN_MARK};
use socket2::{Domain, Protocol, Socket, Type};

use crate::programs::{How, Server, connect_how};
use crate::proxy::Proxy;
use crate::room::{CART, OUTSIDE, Room, Users, at, cases, eventually};
use crate::wire::{TOKEN, Wire};

const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const HOP_BY_HOP: u8 = 0;
/// `IPPROTO_RAW`: the header is ours to write.
const RAW: i32 = 255;

cases! {
    fn a_mark_is_no_way_out(room: &Room) {
        let server = Server::outside(80);
        Proxy::start(room).stop();
        let wire = Wire::new();
        for mark in [PROXY_MARK, RETURN_MARK, PROXY_MARK | 0x1000, RETURN_MARK | 0x1000] {
            for ip in OUTSIDE {
                let how = How { mark: Some(mark), ..How::default() };
                let outcome = room.workload(|| connect_how(at(ip, 80), how));
                let forged = mark & 0xfff == PROXY_MARK;
                // Among one user, the mark is all there is, which the log warns of.
                let known = room.users == Users::One && forged;
                assert_eq!(outcome.is_ok(), known, "{mark:#x} to {ip}: {outcome:?}");
                assert_eq!(wire.openings().is_empty(), !known, "{mark:#x} to {ip}");
            }
        }
        let known = if room.users == Users::One { 4 } else { 0 };
        eventually("the connections let out", || match server.accepted() {
            now if now == known => Ok(()),
            now => Err(now),
        });
    }

    fn a_command_of_the_proxys_user_is_no_way_out(room: &Room) {
        let server = Server::outside(80);
        Proxy::start(room).stop();
        let wire = Wire::new();
        for mark in [None, Some(PROXY_MARK)] {
            for ip in OUTSIDE {
                let how = How { mark, ..How::default() };
                let outcome = room.probe(|| connect_how(at(ip, 80), how));
                assert!(outcome.is_err(), "{mark:?} to {ip}: {outcome:?}");
            }
        }
        assert!(wire.openings().is_empty());
        assert_eq!(server.accepted(), 0);
    }

    fn a_stray_segment_first_is_no_way_out(room: &Room) {
        let server = Server::outside(80);
        Proxy::start(room).stop();
        let wire = Wire::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (from, to) = (at(cart, 40000), at(outside, 80));
            // The receiver drops it unanswered, and connection tracking does not see why.
            let mut stray = segment(from, to, ACK);
            stray[16] ^= 0x55;
            let outcome = room.workload(|| {
                send(to, &packet(from, to, &stray)).unwrap();
                connect_how(to, How { from: Some(from), ..How::default() })
            });
            let kind = outcome.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::ConnectionRefused, "{to}");
        }
        assert_eq!(wire.openings(), [""; 0]);
        assert_eq!(server.accepted(), 0);
    }

    fn a_stray_segment_first_is_no_way_in(room: &Room) {
        let server = Server::in_cart(room, 8080);
        Proxy::start(room).stop();
        // What would end it is kept from being sent, as a sender of ill will can.
        room.sh("nft 'add table inet mute; add chain inet mute out { type filter hook output priority -400; }
                 add rule inet mute out tcp flags & rst == rst drop'");
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            let (from, to) = (at(outside, 40000), at(cart, 8080));
            send(to, &packet(from, to, &segment(from, to, ACK))).unwrap();
            let tracked = connect_how(to, How { from: Some(from), ..How::default() });
            assert!(tracked.is_err(), "{to}");
        }
        assert_eq!(server.accepted(), 0);
    }

    fn raw_segments_do_not_open_connections(room: &Room) {
        let server = Server::outside(80);
        Proxy::start(room).stop();
        let wire = Wire::new();
        for (cart, outside) in CART.into_iter().zip(OUTSIDE) {
            for (name, flags) in [
                ("plain", SYN),
                ("and finish", SYN | FIN),
                ("and reset", SYN | RST),
                ("urgent", SYN | 0x20),
                ("with congestion flags", SYN | 0xc0),
            ] {
                let (from, to) = (at(cart, 41000), at(outside, 80));
                let bytes = packet(from, to, &segment(from, to, flags));
                // Forbidden, or taken in by the redirection: either will do.
                let _either = room.workload(|| send(to, &bytes));
                assert_eq!(wire.openings(), [""; 0], "{name} to {outside}");
            }
        }
        assert_eq!(server.accepted(), 0);
    }

    fn fragments_do_not_open_connections(room: &Room) {
        Proxy::start(room).stop();
        let wire = Wire::new();
        let (from, to) = (at(CART[1], 42000), at(OUTSIDE[1], 80));
        let opening = segment(from, to, SYN);
        let (first, second) = opening.split_at(8);
        let fragment = |offset: u16, more: u16, part: &[u8]| {
            let place = (offset | more).to_be_bytes();
            let header = [TCP, 0, place[0], place[1], 0, 0, 0, 7];
            extended(from, to, FRAGMENT, &[&header, part].concat())
        };
        let options = [TCP, 0, 1, 4, 0, 0, 0, 0];
        for (name, packets) in [
            ("flags in the second", vec![fragment(0, 1, first), fragment(8, 0, second)]),
            ("the second first", vec![fragment(8, 0, second), fragment(0, 1, first)]),
            ("a single one", vec![fragment(0, 0, &opening)]),
            ("behind options", vec![extended(from, to, HOP_BY_HOP, &[&options, &*opening].concat())]),
        ] {
            for packet in packets {
                let _either = room.workload(|| send(to, &packet));
            }
            assert_eq!(wire.openings(), [""; 0], "{name}");
        }
    }
}

pub(crate) fn send(to: SocketAddr, packet: &[u8]) -> io::Result<()> {
    send_marked(to, packet, None)
}

pub(crate) fn send_marked(to: SocketAddr, packet: &[u8], mark: Option<u32>) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(to),
        Type::RAW,
        Some(Protocol::from(RAW)),
    )?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.send_to(packet, &SocketAddr::new(to.ip(), 0).into())?;
    Ok(())
}

/// A TCP header with its checksum.
pub(crate) fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([
        0,
        0,
        3,
        0xe8,
        0,
        0,
        0,
        0,
        5 << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, TCP, 0, 20]].concat();
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::octets(&ip).to_vec(),
        IpAddr::V6(ip) => Ipv6Addr::octets(&ip).to_vec(),
    }
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A UDP header with its checksum, and the token.
pub(crate) fn datagram(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let length = u16::try_from(8 + TOKEN.len()).unwrap().to_be_bytes();
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut datagram = [&ports, &length[..], &[0, 0], TOKEN].concat();
    let pseudo = [
        octets(from.ip()),
        octets(to.ip()),
        vec![0, UDP],
        length.to_vec(),
    ]
    .concat();
    let mut all = [pseudo, datagram.clone()].concat();
    all.resize(all.len().next_multiple_of(2), 0);
    datagram[6..8].copy_from_slice(&checksum(&all).to_be_bytes());
    datagram
}

/// An IP packet of either family around a segment.
pub(crate) fn packet(from: SocketAddr, to: SocketAddr, segment: &[u8]) -> Vec<u8> {
    packet_of(TCP, from, to, segment)
}

/// The same around what is of another protocol.
pub(crate) fn packet_of(protocol: u8, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    if from.is_ipv6() {
        return extended(from, to, protocol, payload);
    }
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    // The kernel fills in the checksum.
    let fixed = [
        0x45, 0, length[0], length[1], 0x12, 0x34, 0, 0, 64, protocol, 0, 0,
    ];
    [&fixed, &*octets(from.ip()), &octets(to.ip()), payload].concat()
}

/// A frame whose IPv4 header has its checksum, which nobody fills in here.
pub(crate) fn filled(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Has fragments go out as they are.
pub(crate) fn nodefrag(socket: &Socket) -> io::Result<()> {
    lateen::sys::keep_fragments(socket)
}

/// An IPv6 packet whose first header is `next`.
fn extended(from: SocketAddr, to: SocketAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let fixed = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&fixed, &*octets(from.ip()), &octets(to.ip()), payload].concat()
}
