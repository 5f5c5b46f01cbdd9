//! How far waypoints go for the keys of issuers (`spec/waypoint-l7.md` §5.4, `spec/reliability.md` §2
//! rows 26, 27).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

/// AWS's metadata service over IPv6, which lies among private addresses and not among link-local ones.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// What the mesh says of keys from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// `jwks-stale-limit`: how long keys count after they were last got.
    pub stale_limit: Duration,
    /// `jwks-local-ranges`: addresses of a waypoint's own host and link that it may ask all the same.
    pub local_ranges: Vec<IpNet>,
}

impl Fetching {
    /// What holds where the mesh says nothing.
    pub fn usual() -> Self {
        Self {
            stale_limit: Duration::from_secs(24 * 3600),
            local_ranges: Vec::new(),
        }
    }

    /// Whether keys may be asked for there. What only this host or its link can reach, metadata services
    /// above all, is nothing for whoever writes a URL, unless the mesh says so.
    pub fn may_reach(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        !is_local(meant) || self.local_ranges.iter().any(|net| net.contains(&meant))
    }
}

/// The IPv4 address that an IPv6 one stands for, where it does (RFC 4291 §2.5.5, RFC 6052 §2.1, RFC 3056).
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => IpAddr::V6(v6),
    }
}

fn is_local(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80 || v6 == METADATA,
    };
    local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_asked_for_on_this_host_and_its_link() {
        let usual = Fetching::usual();
        let told = Fetching {
            local_ranges: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..Fetching::usual()
        };
        for (address, unless_told, when_told) in [
            ("10.0.0.1", true, true),
            ("192.168.1.1", true, true),
            ("203.0.113.1", true, true),
            ("fd00::1", true, true),
            ("2001:db8::1", true, true),
            ("64:ff9b::203.0.113.1", true, true),
            ("127.0.0.1", false, true),
            ("127.8.8.8", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::127.0.0.1", false, true),
            ("64:ff9b::127.0.0.1", false, true),
            ("169.254.169.254", false, false),
            ("169.254.0.1", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("2002:a9fe:a9fe::1", false, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
            ("ff02::1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let at: IpAddr = address.parse().unwrap();
            assert_eq!(usual.may_reach(at), unless_told, "{address}");
            assert_eq!(told.may_reach(at), when_told, "{address}");
        }
    }
}
