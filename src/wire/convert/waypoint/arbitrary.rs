//! Arbitrary resources of waypoints.

mod authentication;
mod extension;
mod limit;
mod policy;
mod telemetry;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::WaypointResource;
use crate::model::authorization::Trusted;
use crate::model::declaration::{Origin, WaypointFor};
use crate::model::route::{
    Abort, Backend, Cors, DirectResponse, Fault, Filter, Fraction, HeaderChange, Kind, Match,
    Mirror, OriginPattern, PathChange, PathMatch, PathNormalization, PersistBy, Persistence,
    Redirect, Regex, Retry, RetryOn, Rewrite, Route, RouteKey, Rule, Target, TextMatch, Timeouts,
    UnmatchedPreflights,
};
use crate::model::service::{AppProtocol, NetworkAddress, ServiceKey};
use crate::model::traffic::{
    Balance, ConnectionPool, Distribute, HashKey, HashTable, Keepalive, LoadBalancer,
    LocalityPolicy, OutlierDetection, ProxyProtocol, RetryBudget, Settings, TlsOrigination,
    TrafficPolicy, UpstreamTls, Warmup,
};
use crate::model::waypoint::{
    BoundPort, External, ExternalEndpoint, GatewayConfig, NamedTraffic, Options, Resolution,
    ServiceBinding, Subset, TrafficKey, WaypointName,
};
use crate::model::workload::Locality;

fn text() -> BoxedStrategy<Arc<str>> {
    "[a-zé /*.-]{0,6}".prop_map(Arc::from).boxed()
}

fn word() -> BoxedStrategy<Arc<str>> {
    "[a-z][a-z0-9.-]{0,6}".prop_map(Arc::from).boxed()
}

fn list<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..3)
}

fn lasting() -> BoxedStrategy<Duration> {
    (0..=i64::MAX as u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .boxed()
}

fn regex() -> BoxedStrategy<Regex> {
    select(vec!["", "/a.*", "[0-9]+|x"])
        .prop_map(|source| Regex::new(source).unwrap())
        .boxed()
}

fn fraction() -> BoxedStrategy<Fraction> {
    (any::<u32>(), 1..=u32::MAX)
        .prop_map(|(numerator, denominator)| Fraction {
            numerator,
            denominator,
        })
        .boxed()
}

pub(super) fn waypoint() -> impl Strategy<Value = WaypointName> {
    ("[a-z0-9-]{1,8}", "[a-z0-9-]{1,8}").prop_map(|(namespace, name)| WaypointName {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    })
}

fn origin() -> BoxedStrategy<Origin> {
    (text(), any::<u32>())
        .prop_map(|(file, line)| Origin { file, line })
        .boxed()
}

fn service_key() -> BoxedStrategy<ServiceKey> {
    (word(), word())
        .prop_map(|(namespace, hostname)| ServiceKey {
            namespace,
            hostname,
        })
        .boxed()
}

fn route_key() -> BoxedStrategy<RouteKey> {
    (select(super::KINDS.to_vec()), word(), word())
        .prop_map(|(kind, namespace, name): (Kind, _, _)| RouteKey {
            kind,
            namespace,
            name,
        })
        .boxed()
}

fn traffic_key() -> BoxedStrategy<TrafficKey> {
    let subset = prop_oneof![Just(Arc::from("")), word()];
    (word(), word(), subset)
        .prop_map(|(namespace, name, subset)| TrafficKey {
            namespace,
            name,
            subset,
        })
        .boxed()
}

/// A resource of a waypoint of that name.
pub(super) fn resource(of: WaypointName) -> impl Strategy<Value = WaypointResource> {
    prop_oneof![
        gateway(of).prop_map(|g| WaypointResource::Gateway(Arc::new(g))),
        binding().prop_map(|s| WaypointResource::Service(Arc::new(s))),
        route().prop_map(|r| WaypointResource::Route(Arc::new(r))),
        traffic().prop_map(|t| WaypointResource::Traffic(Arc::new(t))),
        policy::policy().prop_map(|p| WaypointResource::Policy(Arc::new(p))),
        extension::extension().prop_map(|e| WaypointResource::Extension(Arc::new(e))),
        authentication::authentication()
            .prop_map(|a| WaypointResource::Authentication(Arc::new(a))),
        telemetry::telemetry().prop_map(|t| WaypointResource::Telemetry(Arc::new(t))),
        limit::limit().prop_map(|l| WaypointResource::Limit(Arc::new(l))),
    ]
}

fn gateway(name: WaypointName) -> impl Strategy<Value = GatewayConfig> {
    let takes = select(vec![
        WaypointFor::Service,
        WaypointFor::Workload,
        WaypointFor::All,
        WaypointFor::None,
    ]);
    let fetching = authentication::fetching();
    let paths = select(vec![
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ]);
    let trusted = (policy::patterns(), any::<u32>());
    let trusted = trusted.prop_map(|(proxies, count)| Trusted {
        proxies: proxies.any,
        count,
    });
    let options = (
        any::<bool>(),
        lasting(),
        retry(),
        locality(),
        paths,
        trusted,
        fetching,
        telemetry::setup(),
    );
    let options = options.prop_map(
        |(xfcc, sniff, retry, locality, paths, trusted, fetching, telemetry)| Options {
            xfcc_include_client_identity: xfcc,
            sniff_timeout: sniff,
            default_retry: retry,
            locality,
            paths,
            trusted,
            fetching,
            telemetry,
        },
    );
    (origin(), takes, any::<u16>(), options, policy::set()).prop_map(
        move |(origin, waypoint_for, hbone_port, options, workload_set)| GatewayConfig {
            name: name.clone(),
            origin,
            waypoint_for,
            hbone_port,
            options,
            workload_set,
        },
    )
}

fn binding() -> impl Strategy<Value = ServiceBinding> {
    let address = (text(), any::<IpAddr>())
        .prop_map(|(network, address)| NetworkAddress { network, address });
    let subset =
        (word(), list(text()), option::of(traffic_key())).prop_map(|(name, uids, traffic)| {
            Subset {
                name,
                uids,
                traffic,
            }
        });
    let lists = (list(address), list(port()), list(subset));
    let rest = (
        any::<bool>(),
        option::of(traffic_key()),
        option::of(external()),
        policy::set(),
    );
    (service_key(), origin(), lists, rest).prop_map(|(key, origin, lists, rest)| ServiceBinding {
        key,
        origin,
        bound: rest.0,
        addresses: lists.0,
        ports: lists.1,
        set: rest.3,
        traffic: rest.1,
        subsets: lists.2,
        external: rest.2,
    })
}

fn port() -> impl Strategy<Value = BoundPort> {
    let protocol = select(vec![
        AppProtocol::Unknown,
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ]);
    let routes = || list(route_key());
    (any::<u16>(), text(), protocol, routes(), routes()).prop_map(
        |(port, name, protocol, routes, general)| BoundPort {
            port,
            name,
            protocol,
            routes,
            general,
        },
    )
}

fn external() -> impl Strategy<Value = External> {
    let resolution = select(vec![
        Resolution::None,
        Resolution::Static,
        Resolution::Dns,
        Resolution::DnsRoundRobin,
        Resolution::DynamicDns,
    ]);
    let range = select(vec!["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]);
    let range = range.prop_map(|text| text.parse().unwrap());
    let ports = prop::collection::btree_map(any::<u16>(), any::<u16>(), 0..3);
    let locality = (text(), text(), text()).prop_map(|(region, zone, subzone)| Locality {
        region,
        zone,
        subzone,
    });
    let endpoint =
        (word(), ports, any::<u32>(), locality).prop_map(|(address, ports, weight, locality)| {
            ExternalEndpoint {
                address,
                ports,
                weight,
                locality,
            }
        });
    (
        list(text()),
        list(range),
        resolution,
        list(endpoint),
        list(text()),
    )
        .prop_map(
            |(hosts, ranges, resolution, endpoints, subject_alt_names)| External {
                hosts,
                ranges,
                resolution,
                endpoints,
                subject_alt_names,
            },
        )
}

fn route() -> impl Strategy<Value = Route> {
    (route_key(), origin(), list(text()), list(rule())).prop_map(
        |(key, origin, server_names, rules)| Route {
            key,
            origin,
            server_names,
            rules,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule<Target>> {
    let backend =
        (target(), any::<u32>(), list(filter())).prop_map(|(to, weight, filters)| Backend {
            to,
            weight,
            filters,
        });
    let timeouts =
        (option::of(lasting()), option::of(lasting())).prop_map(|(request, one)| Timeouts {
            request,
            backend_request: one,
        });
    let rest = (
        timeouts,
        option::of(retry()),
        option::of(persistence()),
        fault(),
    );
    (
        text(),
        any::<u32>(),
        list(matching()),
        list(filter()),
        list(backend),
        rest,
    )
        .prop_map(|(name, line, matches, filters, backends, rest)| Rule {
            name,
            line,
            matches,
            filters,
            backends,
            timeouts: rest.0,
            retry: rest.1,
            persistence: rest.2,
            fault: rest.3,
        })
}

fn matching() -> BoxedStrategy<Match> {
    let text_match = || {
        prop_oneof![
            text().prop_map(TextMatch::Exact),
            text().prop_map(TextMatch::Prefix),
            regex().prop_map(TextMatch::Regex),
            Just(TextMatch::Present),
        ]
    };
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::TextPrefix),
        regex().prop_map(PathMatch::Regex),
    ];
    let named = move || list((word(), text_match()));
    let maybe = move || option::of(text_match());
    let lists = (named(), named(), named());
    let rest = (option::of(any::<u16>()), option::of(text()));
    (
        path,
        any::<bool>(),
        maybe(),
        lists,
        (maybe(), maybe()),
        rest,
    )
        .prop_map(|(path, ignore_case, method, lists, texts, rest)| Match {
            path,
            ignore_case,
            method,
            headers: lists.0,
            without_headers: lists.1,
            query: lists.2,
            scheme: texts.0,
            authority: texts.1,
            port: rest.0,
            source_namespace: rest.1,
        })
        .boxed()
}

fn target() -> BoxedStrategy<Target> {
    let service = (service_key(), any::<u16>(), option::of(text()));
    prop_oneof![
        service.prop_map(|(key, port, subset)| Target::Service { key, port, subset }),
        text().prop_map(Target::Invalid),
    ]
    .boxed()
}

fn filter() -> BoxedStrategy<Filter<Target>> {
    let headers = || {
        let fields = || list((text(), text()));
        (list(text()), fields(), fields()).prop_map(|(remove, set, add)| HeaderChange {
            remove,
            set,
            add,
        })
    };
    let path = || {
        option::of(prop_oneof![
            text().prop_map(PathChange::Full),
            text().prop_map(PathChange::Prefix),
            text().prop_map(PathChange::Text),
            (regex(), text()).prop_map(|(regex, to)| PathChange::Regex(regex, to)),
        ])
    };
    let maybe = || option::of(text());
    let redirect = (
        maybe(),
        maybe(),
        option::of(any::<u16>()),
        path(),
        any::<u16>(),
    );
    let redirect = redirect.prop_map(|(scheme, host, port, path, status)| Redirect {
        scheme,
        host,
        port,
        path,
        status,
    });
    prop_oneof![
        headers().prop_map(Filter::RequestHeaders),
        headers().prop_map(Filter::ResponseHeaders),
        redirect.prop_map(Filter::Redirect),
        (maybe(), path()).prop_map(|(host, path)| Filter::Rewrite(Rewrite { host, path })),
        (target(), fraction()).prop_map(|(to, share)| Filter::Mirror(Mirror { to, share })),
        cors().prop_map(Filter::Cors),
        (any::<u16>(), text())
            .prop_map(|(status, body)| Filter::Direct(DirectResponse { status, body })),
        text().prop_map(Filter::Unresolved),
    ]
    .boxed()
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = prop_oneof![
        Just(OriginPattern::Any),
        text().prop_map(OriginPattern::Exact),
        (text(), text()).prop_map(|(a, b)| OriginPattern::Wildcard(a, b)),
        text().prop_map(OriginPattern::Prefix),
        regex().prop_map(OriginPattern::Regex),
    ];
    let unmatched = select(vec![
        UnmatchedPreflights::Refuse,
        UnmatchedPreflights::Forward,
        UnmatchedPreflights::Ignore,
    ]);
    let lists = (list(origin), list(text()), list(text()), list(text()));
    (lists, any::<bool>(), option::of(lasting()), unmatched).prop_map(
        |(lists, allow_credentials, max_age, unmatched_preflights)| Cors {
            allow_origins: lists.0,
            allow_methods: lists.1,
            allow_headers: lists.2,
            expose_headers: lists.3,
            allow_credentials,
            max_age,
            unmatched_preflights,
        },
    )
}

fn retry() -> BoxedStrategy<Retry> {
    let on = prop::collection::btree_set(
        select(vec![
            RetryOn::ServerError,
            RetryOn::GatewayError,
            RetryOn::Conflict,
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Reset,
            RetryOn::ResetBeforeRequest,
            RetryOn::RateLimited,
            RetryOn::Cancelled,
            RetryOn::DeadlineExceeded,
            RetryOn::Internal,
            RetryOn::ResourceExhausted,
            RetryOn::Unavailable,
            RetryOn::AttemptTimeout,
        ]),
        0..14,
    );
    let codes = prop::collection::btree_set(any::<u16>(), 0..3);
    let times = (option::of(lasting()), option::of(lasting()));
    (any::<u32>(), on, codes, times, any::<(bool, bool)>())
        .prop_map(|(attempts, on, codes, times, elsewhere)| Retry {
            attempts,
            on,
            codes,
            backoff: times.0,
            per_try_timeout: times.1,
            ignore_previous_hosts: elsewhere.0,
            remote_localities: elsewhere.1,
        })
        .boxed()
}

fn persistence() -> impl Strategy<Value = Persistence> {
    let by = prop_oneof![
        (word(), text(), any::<bool>()).prop_map(|(name, path, permanent)| PersistBy::Cookie {
            name,
            path,
            permanent,
        }),
        word().prop_map(|name| PersistBy::Header { name }),
    ];
    (by, option::of(lasting())).prop_map(|(by, absolute_timeout)| Persistence {
        by,
        absolute_timeout,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let abort = prop_oneof![
        any::<u16>().prop_map(Abort::Http),
        any::<u16>().prop_map(Abort::Grpc),
    ];
    let delay = option::of((lasting(), fraction()));
    (delay, option::of((abort, fraction()))).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn traffic() -> impl Strategy<Value = NamedTraffic> {
    let ports = prop::collection::btree_map(any::<u16>(), settings(), 0..3);
    (traffic_key(), origin(), settings(), ports).prop_map(
        |(key, origin, usual, ports): (_, _, _, BTreeMap<u16, Settings>)| NamedTraffic {
            key,
            origin,
            policy: TrafficPolicy { usual, ports },
        },
    )
}

fn settings() -> BoxedStrategy<Settings> {
    let tls = prop_oneof![
        Just(UpstreamTls::None),
        tls().prop_map(UpstreamTls::Originate)
    ];
    let budget = (0.0..100.0, any::<u32>()).prop_map(|(percent, min_concurrency)| RetryBudget {
        percent,
        min_concurrency,
    });
    let proxy = select(vec![ProxyProtocol::V1, ProxyProtocol::V2]);
    (
        balancer(),
        pool(),
        option::of(outliers()),
        option::of(budget),
        tls,
        option::of(proxy),
    )
        .prop_map(
            |(load_balancer, connection_pool, outliers, budget, tls, proxy)| Settings {
                load_balancer,
                connection_pool,
                outlier_detection: outliers,
                retry_budget: budget,
                tls,
                proxy_protocol: proxy,
            },
        )
        .boxed()
}

fn balancer() -> impl Strategy<Value = LoadBalancer> {
    let cookie = (word(), option::of(text()), option::of(lasting()));
    let key = prop_oneof![
        word().prop_map(HashKey::Header),
        cookie.prop_map(|(name, path, ttl)| HashKey::Cookie { name, path, ttl }),
        Just(HashKey::SourceIp),
        word().prop_map(HashKey::Query),
    ];
    let table = prop_oneof![
        any::<u32>().prop_map(HashTable::Ring),
        any::<u32>().prop_map(HashTable::Maglev)
    ];
    let policy = prop_oneof![
        Just(Balance::LeastRequest),
        Just(Balance::RoundRobin),
        Just(Balance::Random),
        Just(Balance::Passthrough),
        (key, table).prop_map(|(key, table)| Balance::Hash { key, table }),
    ];
    let warmup =
        (lasting(), 0.0..100.0, 0.0..10.0).prop_map(|(duration, minimum, aggression)| Warmup {
            duration,
            minimum_percent: minimum,
            aggression,
        });
    (policy, option::of(warmup), option::of(locality())).prop_map(|(policy, warmup, locality)| {
        LoadBalancer {
            policy,
            warmup,
            locality,
        }
    })
}

fn locality() -> impl Strategy<Value = LocalityPolicy> {
    let distribute =
        (text(), list((text(), any::<u32>()))).prop_map(|(from, to)| Distribute { from, to });
    let failover = list((text(), text()));
    (any::<bool>(), list(distribute), failover, list(text())).prop_map(
        |(enabled, distribute, failover, priority)| LocalityPolicy {
            enabled,
            distribute,
            failover,
            failover_priority: priority,
        },
    )
}

fn pool() -> impl Strategy<Value = ConnectionPool> {
    let keepalive = (
        option::of(any::<u32>()),
        option::of(lasting()),
        option::of(lasting()),
    )
        .prop_map(|(probes, time, interval)| Keepalive {
            probes,
            time,
            interval,
        });
    let times = (lasting(), lasting(), lasting(), option::of(lasting()));
    let numbers = any::<[u32; 6]>();
    (times, numbers, option::of(keepalive), any::<(bool, bool)>()).prop_map(
        |(times, numbers, tcp_keepalive, versions)| ConnectionPool {
            max_connections: numbers[0],
            connect_timeout: times.0,
            tcp_idle_timeout: times.1,
            max_connection_duration: times.3,
            tcp_keepalive,
            max_pending_requests: numbers[1],
            max_requests: numbers[2],
            max_retries: numbers[3],
            max_requests_per_connection: numbers[4],
            http_idle_timeout: times.2,
            max_concurrent_streams: numbers[5],
            h2_upgrade: versions.0,
            use_client_protocol: versions.1,
        },
    )
}

fn outliers() -> impl Strategy<Value = OutlierDetection> {
    (any::<[u32; 5]>(), any::<bool>(), lasting(), lasting()).prop_map(
        |(numbers, split, interval, base)| OutlierDetection {
            consecutive_5xx: numbers[0],
            consecutive_gateway: numbers[1],
            split_local_errors: split,
            consecutive_local: numbers[2],
            interval,
            base_ejection: base,
            max_ejection_percent: numbers[3],
            min_health_percent: numbers[4],
        },
    )
}

fn tls() -> impl Strategy<Value = TlsOrigination> {
    let maybe = || option::of(text());
    let files = option::of((word(), word()));
    (maybe(), list(text()), maybe(), any::<bool>(), files).prop_map(
        |(sni, subject_alt_names, ca_certificates, insecure, files)| TlsOrigination {
            sni,
            subject_alt_names,
            ca_certificates,
            insecure_skip_verify: insecure,
            client_certificate: files,
        },
    )
}
