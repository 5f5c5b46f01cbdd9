//! The `[mesh]` table.

use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::destination::read_locality;
use super::identifier;
use super::policy::identity;
use super::provider;
use super::route::read_retries;
use super::telemetry::{NamedProvider, read_settings};
use super::transport;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::identity::TrustDomain;
use crate::model::authentication::Fetching;
use crate::model::authorization::Trusted;
use crate::model::declaration::{Settings, TelemetryDefaults};
use crate::model::route::{PathNormalization, Retry};
use crate::model::traffic::LocalityPolicy;
use crate::model::workload::Transport;

/// Bounds of `certificate-ttl`: what `spec/control-plane.md` §4 allows a leaf to live.
const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(600)..=Duration::from_secs(90 * 86_400);

/// Bounds of `expired-grace`.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);

/// Bounds of `jwks-stale-limit`: a shorter one would end between two looks at the keys.
const STALE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(30 * 86_400);

/// A `[mesh]` table.
pub(in crate::config) struct WrittenSettings {
    /// Its header.
    pub place: Place,
    /// Its values, defaults filled in.
    pub settings: Settings,
    /// Whether `path-normalization` is written.
    pub says_paths: bool,
    /// Where `service-range` is written, if it is.
    pub range: Option<Place>,
    /// The names of its providers, in their order; none where some of them could not be read.
    pub providers: Option<Vec<Place>>,
    /// The providers that `default-providers` names.
    pub default_providers: Vec<NamedProvider>,
}

pub(super) fn read(value: &Value<'_>) -> Option<WrittenSettings> {
    let table = value.titled("`[mesh]`")?;
    let default = defaults();
    let range = table.optional("service-range", |value| {
        Some(At::new(ranges(value)?, value.place().clone()))
    });
    let paths = table.optional("path-normalization", normalization);
    let providers = table.optional("extension-providers", provider::read);
    let (providers, whole) = providers.unwrap_or((Vec::new(), true));
    let (telemetry, default_providers) = read_settings(&table);
    let settings = Settings {
        trust_domain: table
            .optional("trust-domain", trust_domain)
            .unwrap_or(default.trust_domain),
        trust_domain_aliases: table
            .optional("trust-domain-aliases", |value| value.list(trust_domain))
            .unwrap_or_default(),
        domain: table
            .optional("domain", scalar::domain)
            .map_or(default.domain, |domain| domain.value),
        root_namespace: table
            .optional("root-namespace", scalar::label)
            .map_or(default.root_namespace, |name| name.value),
        certificate_ttl: table
            .optional("certificate-ttl", |value| scalar::duration(value, TTL))
            .unwrap_or(default.certificate_ttl),
        cluster_id: table
            .optional("cluster-id", identifier)
            .unwrap_or(default.cluster_id),
        network: table
            .optional("network", identifier)
            .unwrap_or(default.network),
        transport: table
            .optional("transport", transport::read)
            .unwrap_or(default.transport),
        expired_grace: table
            .optional("expired-grace", |value| scalar::duration(value, GRACE))
            .unwrap_or(default.expired_grace),
        auto_allow_waypoint: table
            .optional("auto-allow-waypoint", Value::boolean)
            .unwrap_or(default.auto_allow_waypoint),
        retry: table
            .optional("default-http-retry-policy", read_retries)
            .unwrap_or(default.retry),
        locality: table
            .optional("locality-lb-setting", read_locality)
            .unwrap_or(default.locality),
        paths: paths.unwrap_or(default.paths),
        providers: providers.iter().map(|p| p.value.clone()).collect(),
        fetching: fetching(&table, default.fetching),
        telemetry,
        trusted: Trusted {
            proxies: table
                .optional("trusted-proxies", |value| value.list(identity))
                .unwrap_or_default(),
            count: table
                .optional("num-trusted-proxies", |value| value.count(1..=100))
                .unwrap_or(default.trusted.count),
        },
        serial: table
            .optional("serial", |value| value.integer(0..=u64::MAX))
            .unwrap_or(default.serial),
        service_range: match &range {
            Some(range) if !range.value.is_empty() => range.value.clone(),
            _ => default.service_range,
        },
    };
    table.finish();
    Some(WrittenSettings {
        place: table.place().clone(),
        settings,
        says_paths: paths.is_some(),
        range: range.map(|range| range.place),
        providers: whole.then(|| providers.into_iter().map(|p| p.place).collect()),
        default_providers,
    })
}

/// The settings of a mesh that declares none (DESIGN §5).
pub(in crate::config) fn defaults() -> Settings {
    let v4 = Ipv4Net::new_assert(std::net::Ipv4Addr::new(240, 240, 0, 0), 16);
    let v6 = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48);
    Settings {
        trust_domain: TrustDomain::default(),
        trust_domain_aliases: Vec::new(),
        domain: Arc::from("mesh.internal"),
        root_namespace: Arc::from("istio-system"),
        service_range: vec![IpNet::V4(v4), IpNet::V6(v6)],
        certificate_ttl: Duration::from_secs(8 * 86_400),
        expired_grace: Duration::ZERO,
        cluster_id: Arc::from("Kubernetes"),
        network: Arc::from(""),
        transport: Transport::Tcp,
        auto_allow_waypoint: false,
        retry: Retry::usual(),
        locality: LocalityPolicy::usual(),
        providers: Vec::new(),
        fetching: Fetching::usual(),
        telemetry: TelemetryDefaults::default(),
        paths: PathNormalization::Base,
        trusted: Trusted::default(),
        serial: 0,
    }
}

fn fetching(table: &Table<'_>, default: Fetching) -> Fetching {
    let ranges = table.optional("jwks-local-ranges", |value| value.list(scalar::range));
    Fetching {
        stale_limit: table
            .optional("jwks-stale-limit", |value| scalar::duration(value, STALE))
            .unwrap_or(default.stale_limit),
        local_ranges: ranges.map_or(default.local_ranges, |ranges| {
            ranges.into_iter().map(|range| range.value).collect()
        }),
    }
}

fn normalization(value: &Value<'_>) -> Option<PathNormalization> {
    let known = [
        ("BASE", PathNormalization::Base),
        ("DEFAULT", PathNormalization::Base),
        ("NONE", PathNormalization::None),
        ("MERGE_SLASHES", PathNormalization::MergeSlashes),
        (
            "DECODE_AND_MERGE_SLASHES",
            PathNormalization::DecodeAndMergeSlashes,
        ),
    ];
    scalar::choice(value, &known)
}

fn trust_domain(value: &Value<'_>) -> Option<TrustDomain> {
    let text = value.text()?;
    match text.parse() {
        Ok(domain) => Some(domain),
        Err(_shape) => {
            value.bad(
                &format!("is not a trust domain: {text:?}"),
                "not a trust domain",
                "use 1 to 255 of a-z, 0-9, `.`, `-` and `_`, without `spiffe://`",
            );
            None
        }
    }
}

fn ranges(value: &Value<'_>) -> Option<Vec<IpNet>> {
    let ranges = value.list(scalar::range)?;
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no range",
            "name at least one range, or leave the key out for 240.240.0.0/16 and 2001:2::/48",
        );
    }
    Some(ranges.into_iter().map(|range| range.value).collect())
}
