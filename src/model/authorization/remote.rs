//! The address of whoever asked first (`spec/waypoint-l7.md` §1.3).

use std::net::IpAddr;

use http::HeaderMap;

use crate::model::policy::{Pattern, Peer};

/// Whose word on the first client counts, and which of several addresses that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// `trusted-proxies`: identities that may say for whom they ask; nobody unless set.
    pub proxies: Vec<Pattern>,
    /// `num-trusted-proxies`: how many of them a request passes, so that the first of them names the
    /// client in the entry of `x-forwarded-for` that is so far from the right; 1 unless set.
    pub count: u32,
}

impl Default for Trusted {
    fn default() -> Self {
        Self {
            proxies: Vec::new(),
            count: 1,
        }
    }
}

impl Trusted {
    /// The first client's address: whoever connects, unless that is somebody whose word counts. What
    /// is no address in the place where one should be counts for nothing.
    pub fn remote(&self, peer: Option<&Peer>, source: IpAddr, headers: &HeaderMap) -> IpAddr {
        let believed = peer.is_some_and(|peer| {
            let principal = peer.principal();
            self.proxies.iter().any(|proxy| proxy.matches(principal))
        });
        match believed {
            true => self.named(headers).unwrap_or(source),
            false => source,
        }
    }

    fn named(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let fields = headers.get_all("x-forwarded-for").iter();
        let fields = fields.map(|field| field.to_str().unwrap_or_default());
        let entries: Vec<&str> = fields.flat_map(|field| field.split(',')).collect();
        let at = entries.len().checked_sub(self.count.try_into().ok()?)?;
        let address: IpAddr = entries.get(at)?.trim().parse().ok()?;
        Some(address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SpiffeId;

    #[test]
    fn only_the_word_of_trusted_proxies_counts() {
        let trusted = |count| Trusted {
            proxies: vec![Pattern::parse("cluster.local/ns/edge/*").unwrap()],
            count,
        };
        let peer = |namespace: &str| {
            let id: SpiffeId = format!("spiffe://cluster.local/ns/{namespace}/sa/in")
                .parse()
                .unwrap();
            Peer::new(&id)
        };
        let source: IpAddr = "10.1.0.1".parse().unwrap();
        for (from, count, fields, want) in [
            ("edge", 1, &["1.2.3.4"][..], "1.2.3.4"),
            ("shop", 1, &["1.2.3.4"], "10.1.0.1"),
            ("edge", 1, &[], "10.1.0.1"),
            ("edge", 1, &["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
            ("edge", 2, &["9.9.9.9, 1.2.3.4"], "9.9.9.9"),
            // Lines are one list.
            ("edge", 1, &["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
            ("edge", 3, &["9.9.9.9, 1.2.3.4"], "10.1.0.1"),
            ("edge", 1, &["9.9.9.9, nonsense"], "10.1.0.1"),
            ("edge", 1, &["9.9.9.9,"], "10.1.0.1"),
            ("edge", 1, &["fe80::1%eth0"], "10.1.0.1"),
            ("edge", 1, &["::ffff:1.2.3.4"], "1.2.3.4"),
            ("edge", 1, &["2001:db8::1"], "2001:db8::1"),
            ("edge", 1, &["1.2.3.4:80"], "10.1.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", field.parse().unwrap());
            }
            let got = trusted(count).remote(peer(from).as_ref(), source, &headers);
            assert_eq!(got.to_string(), want, "{from} {count} {fields:?}");
        }
        let headers = HeaderMap::from_iter([(
            "x-forwarded-for".parse().unwrap(),
            "1.2.3.4".parse().unwrap(),
        )]);
        assert_eq!(trusted(1).remote(None, source, &headers), source);
    }
}
