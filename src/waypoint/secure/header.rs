//! The PROXY protocol's header (HAProxy's proxy-protocol.txt, §2.1 and §2.2).

use std::net::{IpAddr, SocketAddr};

use crate::model::traffic::ProxyProtocol;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXIED: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Both addresses in one family: where they differ, in IPv6.
fn alike(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    let v6 = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    };
    match from.is_ipv4() == to.is_ipv4() {
        true => (from, to),
        false => (v6(from), v6(to)),
    }
}

/// Says that a connection is from `from`, and was made to `to`.
pub(super) fn header(version: ProxyProtocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from_ip, to_ip) = alike(from.ip().to_canonical(), to.ip().to_canonical());
    let v4 = from_ip.is_ipv4();
    if version == ProxyProtocol::V1 {
        let family = if v4 { "TCP4" } else { "TCP6" };
        let (from, to) = (from.port(), to.port());
        return format!("PROXY {family} {from_ip} {to_ip} {from} {to}\r\n").into_bytes();
    }
    let mut header = SIGNATURE.to_vec();
    let (family, length) = if v4 { (TCP4, 12_u16) } else { (TCP6, 36) };
    header.extend([PROXIED, family]);
    header.extend(length.to_be_bytes());
    for ip in [from_ip, to_ip] {
        match ip {
            IpAddr::V4(v4) => header.extend(v4.octets()),
            IpAddr::V6(v6) => header.extend(v6.octets()),
        }
    }
    for port in [from.port(), to.port()] {
        header.extend(port.to_be_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_as_haproxy_has_it() {
        for (from, to, text, hex) in [
            (
                "10.1.0.1:4000",
                "10.96.0.10:80",
                "PROXY TCP4 10.1.0.1 10.96.0.10 4000 80\r\n",
                "2111000c0a0100010a60000a0fa00050",
            ),
            (
                "[2001:db8::1]:4000",
                "[2001:db8::2]:443",
                "PROXY TCP6 2001:db8::1 2001:db8::2 4000 443\r\n",
                "2121002420010db800000000000000000000000120010db80000000000000000000000020fa001bb",
            ),
            (
                "10.1.0.1:1",
                "[2001:db8::2]:2",
                "PROXY TCP6 ::ffff:10.1.0.1 2001:db8::2 1 2\r\n",
                "2121002400000000000000000000ffff0a01000120010db800000000000000000000000200010002",
            ),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let v1 = header(ProxyProtocol::V1, from, to);
            assert_eq!(String::from_utf8(v1).unwrap(), text);
            let v2 = header(ProxyProtocol::V2, from, to);
            let (signature, rest) = v2.split_at(12);
            assert_eq!(signature, SIGNATURE);
            assert_eq!(crate::hex::hex(rest), hex);
        }
    }
}
