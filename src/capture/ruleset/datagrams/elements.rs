//! What is in the sets: as they are declared, and read back from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Datagrams;
use crate::capture::ruleset::collection::Collection;
use crate::capture::ruleset::dns::{ASKED, DNS_PORT};
use crate::capture::ruleset::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};

/// Destinations by family.
pub(in crate::capture) const DESTINATIONS: [&str; 2] = ["udp4", "udp6"];
/// The same of guests.
pub(in crate::capture) const OF_GUESTS: [&str; 2] = ["guest_udp4", "guest_udp6"];
/// Destinations, and declared ports.
pub(in crate::capture) const SETS: [&str; 3] = ["udp4", "udp6", "udp_ports"];
/// Which port an answer is from, by the priority of its socket.
const SOURCES: &str = "udp_sources";
/// Ports of the proxy.
const PROXYS: [u16; 4] = [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT, DNS_PORT];

/// The sets and maps, after those of before: answers go on to come from the ports that they have come
/// from.
pub(in crate::capture::ruleset) fn collections(
    datagrams: &Datagrams,
    names: bool,
    before: &[Collection],
) -> Vec<Collection> {
    let [_v4, _v6, ports] = SETS;
    let mut ports = Collection::new(ports, "inet_service");
    let mut sources = Collection::new(SOURCES, "classid : inet_service");
    if let Some(before) = before.iter().find(|c| c.name == SOURCES) {
        sources.elements.clone_from(&before.elements);
    }
    let mut answers = |port: u16| {
        let class = format!("{port:x}:0");
        sources.add(class, Some(port.into()), 0);
    };
    let taken = |at: &SocketAddr| !(names && at.port() == ASKED);
    let [v4, v6] = ends(DESTINATIONS, datagrams, taken, &mut answers);
    for port in datagrams
        .ports
        .iter()
        .filter(|port| !is_passed_over(**port))
    {
        ports.add(port.to_string(), None, 0);
        answers(*port);
    }
    vec![v4, v6, ports, sources]
}

/// All destinations: what is asked for names the proxy answers itself for all but guests.
pub(in crate::capture::ruleset) fn of_guests(datagrams: &Datagrams) -> [Collection; 2] {
    ends(OF_GUESTS, datagrams, |_at| true, |_port| {})
}

/// Sets of destinations, by family.
fn ends(
    [v4, v6]: [&'static str; 2],
    datagrams: &Datagrams,
    taken: impl Fn(&SocketAddr) -> bool,
    mut each: impl FnMut(u16),
) -> [Collection; 2] {
    let mut v4 = Collection::new(v4, "ipv4_addr . inet_service");
    let mut v6 = Collection::new(v6, "ipv6_addr . inet_service");
    for at in datagrams.destinations.iter().filter(|at| taken(at)) {
        let (ip, port) = (at.ip().to_canonical(), at.port());
        if !is_elsewhere(ip) || is_passed_over(port) {
            continue;
        }
        let set = if ip.is_ipv4() { &mut v4 } else { &mut v6 };
        set.add(format!("{ip} . {port}"), None, 0);
        each(port);
    }
    [v4, v6]
}

/// The priority of a socket whose datagrams are from `port`. As a class its major number says which; its
/// low bits, by which queues sort, say nothing.
pub(in crate::capture) fn priority(port: u16) -> u32 {
    u32::from(port) << 16
}

fn is_passed_over(port: u16) -> bool {
    port == 0 || PROXYS.contains(&port)
}

fn is_elsewhere(ip: IpAddr) -> bool {
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// What keys of [`SETS`] and [`OF_GUESTS`], as the kernel encodes them, stand for; what cannot be read is passed over.
pub(in crate::capture) fn read<'a>(
    keys: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Datagrams {
    let mut datagrams = Datagrams::default();
    for (set, key) in keys {
        match set {
            "udp4" | "guest_udp4" => datagrams.destinations.extend(end::<4>(key)),
            "udp6" | "guest_udp6" => datagrams.destinations.extend(end::<16>(key)),
            _ => datagrams.ports.extend(port(key)),
        }
    }
    datagrams
}

/// An address and a port, each of them filled up to four bytes.
fn end<const N: usize>(key: &[u8]) -> Option<SocketAddr>
where
    [u8; N]: Octets,
{
    let (address, rest) = key.split_first_chunk::<N>()?;
    Some(SocketAddr::new(address.ip(), port(rest)?))
}

fn port(key: &[u8]) -> Option<u16> {
    key.first_chunk().map(|port| u16::from_be_bytes(*port))
}

/// The bytes of an address of either family.
trait Octets {
    fn ip(&self) -> IpAddr;
}

impl Octets for [u8; 4] {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::from(*self).into()
    }
}

impl Octets for [u8; 16] {
    fn ip(&self) -> IpAddr {
        Ipv6Addr::from(*self).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_no_single_hosts_or_the_proxys_is_passed_over() {
        for (at, held) in [
            ("10.0.0.1:514", true),
            ("[::ffff:10.0.0.1]:514", true),
            ("[fd00::1]:514", true),
            ("10.0.0.1:0", false),
            ("10.0.0.1:15008", false),
            ("10.0.0.1:15001", false),
            ("127.0.0.1:514", false),
            ("[::1]:514", false),
            ("0.0.0.0:514", false),
            ("224.0.0.251:5353", false),
            ("[ff02::fb]:5353", false),
            ("255.255.255.255:67", false),
        ] {
            let datagrams = Datagrams {
                destinations: [at.parse().unwrap()].into(),
                ports: BTreeSet::new(),
            };
            let all = collections(&datagrams, false, &[]);
            let count: usize = all[..2].iter().map(|c| c.elements.len()).sum();
            assert_eq!(count == 1, held, "{at}: {all:?}");
            assert_eq!(all[3].elements.len(), count, "{at}");
        }
    }

    #[test]
    fn keys_are_read_as_far_as_they_can_be() {
        let v6 = [&[0xfd; 16][..], &[2, 2, 0, 0]].concat();
        let read = read([
            ("udp4", &[10, 0, 0, 1, 2, 2, 0, 0][..]),
            ("guest_udp6", &*v6),
            ("udp_ports", &[0x1f, 0x0a, 0, 0]),
            ("udp_ports", &[]),
            ("udp4", &[10, 0, 0]),
            ("udp6", &v6[..17]),
        ]);
        let want = Datagrams {
            destinations: [
                "10.0.0.1:514",
                "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:514",
            ]
            .map(|at| at.parse().unwrap())
            .into(),
            ports: [7946].into(),
        };
        assert_eq!(read, want);
    }
}
