//! The headers beside a CONNECT (`spec/hbone-dataplane.md` §1.3). All of them are for telemetry:
//! nothing is ever allowed because of one.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue};

/// Name of the header that describes a workload.
pub const BAGGAGE: &str = "baggage";
/// Name of the header that tells the client's address and the service addressed.
pub const FORWARDED: &str = "forwarded";
/// Name of the header that joins the log lines of both ends.
pub const TRACEPARENT: &str = "traceparent";

/// What `baggage` tells of a workload; absent values are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`.
    pub cluster: String,
    /// `k8s.namespace.name`.
    pub namespace: String,
    /// `k8s.deployment.name` and its like.
    pub workload: String,
    /// `service.name`.
    pub service: String,
    /// `service.version`.
    pub version: String,
    /// `cloud.region`.
    pub region: String,
    /// `cloud.availability_zone`.
    pub zone: String,
}

impl Baggage {
    /// The header's value; keys with an empty value are left out.
    pub fn render(&self) -> String {
        let pairs = [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
            ("k8s.deployment.name", &self.workload),
            ("service.name", &self.service),
            ("service.version", &self.version),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ];
        let mut text = String::new();
        for (key, value) in pairs {
            if value.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        text
    }

    /// Reads every `baggage` header of a message; one that is not ASCII voids them all.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        for value in headers.get_all(BAGGAGE) {
            let Ok(text) = value.to_str() else {
                return Self::default();
            };
            text.split(',').for_each(|pair| baggage.take(pair));
        }
        baggage
    }

    fn take(&mut self, pair: &str) {
        let mut parts = pair.split('=');
        let key = parts.next().unwrap_or_default().trim();
        let value = parts.next().unwrap_or_default();
        // Properties after a semicolon are legal baggage and mean nothing here.
        let value = value.split(';').next().unwrap_or_default().trim();
        if value.is_empty() {
            return;
        }
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                &mut self.workload
            }
            "service.name" => &mut self.service,
            "service.version" => &mut self.version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => return,
        };
        value.clone_into(field);
    }
}

/// `forwarded` for a client and, when it addressed a service, that service's host name.
pub fn forwarded(client: SocketAddr, service: Option<&str>) -> String {
    match service {
        Some(host) => format!("for=\"{client}\";host={host}"),
        None => format!("for=\"{client}\""),
    }
}

/// The service a `forwarded` header names.
pub fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(FORWARDED)?.to_str().ok()?;
    let pairs = text.split([';', ',']);
    let host = pairs.filter_map(|pair| pair.trim().split_once('='));
    let (_key, value) = host
        .into_iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("host"))?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then_some(value)
}

/// A trace id of our own.
pub fn new_traceparent() -> String {
    let (trace, span): (u128, u64) = (rand::random(), rand::random());
    format!("00-{trace:032x}-{span:016x}-00")
}

/// The caller's trace id when it has the one legal shape, else a fresh one.
pub fn traceparent(headers: &HeaderMap) -> String {
    let given = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok());
    match given {
        Some(text) if text.len() == 55 && text.split('-').count() == 4 => text.to_owned(),
        _ => new_traceparent(),
    }
}

/// A value fit for a header; what is not is sent empty, since it is for telemetry only.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn baggage_is_read_leniently() {
        let shop = Baggage {
            namespace: "shop".into(),
            ..Baggage::default()
        };
        for (name, values, want) in [
            ("plain", vec![&b"k8s.namespace.name=shop"[..]], shop.clone()),
            (
                "spaces and properties",
                vec![b" k8s.namespace.name = shop ;p=1"],
                shop.clone(),
            ),
            (
                "unknown keys",
                vec![b"x=y,k8s.namespace.name=shop"],
                shop.clone(),
            ),
            (
                "two headers",
                vec![b"x=y", b"k8s.namespace.name=shop"],
                shop.clone(),
            ),
            (
                "empty value",
                vec![b"k8s.namespace.name="],
                Baggage::default(),
            ),
            (
                "no equals sign",
                vec![b"k8s.namespace.name"],
                Baggage::default(),
            ),
            (
                "not ASCII",
                vec![b"k8s.namespace.name=shop", b"\xff"],
                Baggage::default(),
            ),
        ] {
            assert_eq!(Baggage::read(&headers(BAGGAGE, &values)), want, "{name}");
        }
    }

    #[test]
    fn forwarded_tells_the_service() {
        let client = "10.0.0.1:4000".parse().unwrap();
        let v6 = "[2001:db8::1]:4000".parse().unwrap();
        assert_eq!(forwarded(client, None), r#"for="10.0.0.1:4000""#);
        assert_eq!(
            forwarded(v6, Some("cart.shop")),
            r#"for="[2001:db8::1]:4000";host=cart.shop"#
        );
        for (name, text, want) in [
            (
                "ours",
                r#"for="10.0.0.1:4000";host=cart.shop"#,
                Some("cart.shop"),
            ),
            ("quoted", r#"host="cart.shop""#, Some("cart.shop")),
            ("none", r#"for="10.0.0.1:4000""#, None),
            ("empty", "host=", None),
        ] {
            let map = headers(FORWARDED, &[text.as_bytes()]);
            assert_eq!(forwarded_host(&map), want, "{name}");
        }
    }

    #[test]
    fn a_bad_trace_id_is_replaced() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let zeros = format!("00-{}", "0".repeat(52));
        for (name, text, kept) in [
            ("good", good, true),
            ("one long part", &zeros, false),
            ("short", "00", false),
        ] {
            let got = traceparent(&headers(TRACEPARENT, &[text.as_bytes()]));
            assert_eq!(got == text, kept, "{name}");
            assert_eq!((got.len(), got.split('-').count()), (55, 4), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(32u8..=255, 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                for name in [BAGGAGE, FORWARDED, TRACEPARENT] {
                    map.append(name, value.clone());
                }
                let _read = (Baggage::read(&map), traceparent(&map));
                let _host = forwarded_host(&map);
            }
        }

        #[test]
        fn baggage_round_trips(namespace in "[a-z]{0,9}", service in "[a-z]{0,9}", zone in "[a-z]{0,9}") {
            let baggage = Baggage { namespace, service, zone, ..Baggage::default() };
            let map = headers(BAGGAGE, &[baggage.render().as_bytes()]);
            prop_assert_eq!(Baggage::read(&map), baggage);
        }
    }
}
