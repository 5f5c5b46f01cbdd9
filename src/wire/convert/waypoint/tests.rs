use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::declaration::WaypointFor;
use crate::model::waypoint::{AttachedSet, Options};

fn wp() -> WaypointName {
    "shop/wp".parse().unwrap()
}

/// The waypoint itself, changed on its way.
fn changed(change: impl FnOnce(&mut proto::Resource)) -> Vec<u8> {
    let gateway = WaypointResource::Gateway(Arc::new(GatewayConfig {
        name: wp(),
        origin: Origin {
            file: Arc::from("a.toml"),
            line: 1,
        },
        waypoint_for: WaypointFor::Service,
        hbone_port: 15008,
        options: Options::default(),
        workload_set: AttachedSet::default(),
    }));
    let mut resource = proto::Resource::decode(&*gateway.encode(&wp())).unwrap();
    change(&mut resource);
    resource.encode_to_vec()
}

fn gateway(change: impl FnOnce(&mut proto::Gateway)) -> Vec<u8> {
    changed(|resource| match &mut resource.content {
        Some(Content::Gateway(gateway)) => change(gateway),
        other => panic!("{other:?}"),
    })
}

fn holding(name: &str, kind: &str, content: Content) -> Vec<u8> {
    changed(|resource| {
        resource.name = name.to_owned();
        let origin = resource.origin.as_mut().unwrap();
        origin.kind = kind.to_owned();
        origin.namespace = "shop".to_owned();
        origin.name = "a".to_owned();
        resource.content = Some(content);
    })
}

fn service(change: impl FnOnce(&mut proto::ServiceBinding)) -> Vec<u8> {
    let mut service = proto::ServiceBinding {
        namespace: "shop".to_owned(),
        hostname: "a".to_owned(),
        ..proto::ServiceBinding::default()
    };
    change(&mut service);
    holding(
        "shop/wp/service/shop/a",
        "service",
        Content::Service(service),
    )
}

fn port(change: impl FnOnce(&mut proto::BoundPort)) -> Vec<u8> {
    let mut port = proto::BoundPort {
        port: 80,
        protocol: 2,
        ..proto::BoundPort::default()
    };
    change(&mut port);
    service(|service| service.ports = vec![port])
}

fn rule(rule: proto::Rule) -> Vec<u8> {
    let route = proto::Route {
        format: FORMAT,
        rules: vec![rule],
        ..proto::Route::default()
    };
    holding(
        "shop/wp/http-route/shop/a",
        "http-route",
        Content::Route(route),
    )
}

fn filter(does: proto::filter::Does) -> Vec<u8> {
    rule(proto::Rule {
        filters: vec![proto::Filter { does: Some(does) }],
        ..proto::Rule::default()
    })
}

fn traffic(change: impl FnOnce(&mut proto::TrafficPolicy)) -> Vec<u8> {
    let mut traffic = proto::TrafficPolicy {
        format: FORMAT,
        ..proto::TrafficPolicy::default()
    };
    change(&mut traffic);
    holding(
        "shop/wp/traffic/shop/a",
        "destination-rule",
        Content::Traffic(traffic),
    )
}

fn limit(change: impl FnOnce(&mut proto::RateLimitRule)) -> Vec<u8> {
    use proto::rate_limit_rule::{Key, Together};
    let everything = proto::PathMatch {
        is: Some(proto::path_match::Is::Prefix("/".to_owned())),
    };
    let mut rule = proto::RateLimitRule {
        matches: vec![proto::Match {
            path: Some(everything),
            ..proto::Match::default()
        }],
        key: Some(Key::Together(Together {})),
        requests: 1,
        per: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        burst: 1,
        ..proto::RateLimitRule::default()
    };
    change(&mut rule);
    let limit = proto::RateLimit {
        format: FORMAT,
        rules: vec![rule],
    };
    holding("shop/wp/limit/shop/a", "rate-limit", Content::Limit(limit))
}

#[test]
fn what_is_not_wholly_understood_is_refused_by_name() {
    use proto::filter::Does;
    let own = "shop/wp";
    let to_service = "shop/wp/service/shop/a";
    let to_route = "shop/wp/http-route/shop/a";
    let to_limit = "shop/wp/limit/shop/a";
    let minus = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    for (name, resource, bytes, want) in [
        ("no bytes", own, vec![0xff], "resource: not decodable"),
        (
            "nothing",
            own,
            changed(|r| r.content = None),
            "content: is missing",
        ),
        (
            "a feature",
            own,
            changed(|r| r.requires = vec!["levitation".to_owned()]),
            "requires: `levitation` is not known",
        ),
        (
            "nobody's",
            own,
            changed(|r| r.waypoint = "wp".to_owned()),
            "waypoint: `wp` is no namespace/name",
        ),
        (
            "another's",
            own,
            changed(|r| r.waypoint = "shop/other".to_owned()),
            "gateway.name: the content names itself `shop/wp`",
        ),
        (
            "by another name",
            "shop/wp/x",
            changed(|_| {}),
            "name: the content names itself `shop/wp`",
        ),
        (
            "for nothing",
            own,
            gateway(|g| g.waypoint_for = 0),
            "gateway.waypoint_for: is missing",
        ),
        (
            "for something else",
            own,
            gateway(|g| g.waypoint_for = 9),
            "gateway.waypoint_for: unknown value 9",
        ),
        (
            "a policy of no such name",
            own,
            gateway(|g| {
                g.workload_set = Some(proto::AttachedSet {
                    policies: vec!["p".to_owned()],
                    ..proto::AttachedSet::default()
                });
            }),
            "gateway.workload_set: `p` names no such resource",
        ),
        (
            "a service's policy",
            to_service,
            service(|s| {
                s.set = Some(proto::AttachedSet {
                    wasm: vec!["w".to_owned()],
                    ..proto::AttachedSet::default()
                });
            }),
            "service.set: `w` is not known",
        ),
        (
            "unsaid protocol",
            to_service,
            port(|p| p.protocol = 0),
            "service.ports.protocol: is missing",
        ),
        (
            "another waypoint's route",
            to_service,
            port(|p| p.routes = vec!["shop/other/http-route/shop/a".to_owned()]),
            "service.ports.routes: `shop/other/http-route/shop/a` names no such resource",
        ),
        (
            "a route of no kind",
            to_service,
            port(|p| p.general = vec!["shop/wp/udp-route/shop/a".to_owned()]),
            "service.ports.general: `shop/wp/udp-route/shop/a` names no such resource",
        ),
        (
            "a policy of no kind",
            to_service,
            service(|s| s.traffic = "shop/wp/service/shop/a".to_owned()),
            "service.traffic: `shop/wp/service/shop/a` names no such resource",
        ),
        (
            "a later layout",
            to_route,
            holding(
                to_route,
                "http-route",
                Content::Route(proto::Route {
                    format: 2,
                    ..proto::Route::default()
                }),
            ),
            "route.format: `2` is not known",
        ),
        (
            "a kind",
            to_route,
            holding(
                to_route,
                "udp-route",
                Content::Route(proto::Route::default()),
            ),
            "origin.kind: `udp-route` is not known",
        ),
        (
            "a filter of no kind",
            to_route,
            rule(proto::Rule {
                filters: vec![proto::Filter { does: None }],
                ..proto::Rule::default()
            }),
            "route.rules.filters.does: is missing",
        ),
        (
            "a match without path",
            to_route,
            rule(proto::Rule {
                matches: vec![proto::Match::default()],
                ..proto::Rule::default()
            }),
            "route.rules.matches.path: is missing",
        ),
        (
            "no pattern",
            to_route,
            rule(proto::Rule {
                matches: vec![proto::Match {
                    path: Some(proto::PathMatch {
                        is: Some(proto::path_match::Is::Regex("(".to_owned())),
                    }),
                    ..proto::Match::default()
                }],
                ..proto::Rule::default()
            }),
            "route.rules.matches.path.regex: no regular expression",
        ),
        (
            "a negative time",
            to_route,
            rule(proto::Rule {
                request_timeout: Some(minus),
                ..proto::Rule::default()
            }),
            "route.rules.request_timeout: no duration",
        ),
        (
            "a share of nothing",
            to_route,
            filter(Does::Mirror(proto::Mirror {
                to: Some(proto::Target {
                    is: Some(proto::target::Is::Invalid(String::new())),
                }),
                share: Some(proto::Fraction::default()),
            })),
            "route.rules.filters.mirror.share.denominator: no number",
        ),
        (
            "a backend that is nobody",
            to_route,
            rule(proto::Rule {
                backends: vec![proto::Backend::default()],
                ..proto::Rule::default()
            }),
            "route.rules.backends.to: is missing",
        ),
        (
            "a status that is none",
            to_route,
            filter(Does::Direct(proto::DirectResponse {
                status: 70_000,
                body: String::new(),
            })),
            "route.rules.filters.direct.status: 70000 is above",
        ),
        (
            "a policy without settings",
            "shop/wp/traffic/shop/a",
            traffic(|_| {}),
            "traffic.usual: is missing",
        ),
        (
            "of a subset it does not name",
            "shop/wp/traffic/shop/a",
            traffic(|t| {
                t.subset = "v1".to_owned();
                t.usual = Some(proto::TrafficSettings::default());
            }),
            "traffic.usual.load_balancer: is missing",
        ),
        (
            "a rate of nothing",
            to_limit,
            limit(|l| l.requests = 0),
            "limit.rules.requests: ",
        ),
        (
            "a burst of nothing",
            to_limit,
            limit(|l| l.burst = 0),
            "limit.rules.requests: ",
        ),
        (
            "a rate without time",
            to_limit,
            limit(|l| l.per = None),
            "limit.rules.per: is missing",
        ),
        (
            "a rule that counts no request",
            to_limit,
            limit(|l| l.matches.clear()),
            "limit.rules.matches: is missing",
        ),
        (
            "counted against nobody that is known",
            to_limit,
            limit(|l| l.key = None),
            "limit.rules.key: is missing",
        ),
        (
            "a limit by the name of a policy",
            to_service,
            service(|s| {
                s.set = Some(proto::AttachedSet {
                    limits: vec!["shop/wp/policy/shop/a".to_owned()],
                    ..proto::AttachedSet::default()
                });
            }),
            "service.set: ",
        ),
    ] {
        let refused = WaypointResource::decode(resource, &bytes).unwrap_err();
        assert_eq!(refused.resource, resource, "{name}");
        let text = refused.fault.to_string();
        assert!(text.starts_with(want), "{name}: {text}");
    }
    assert!(WaypointResource::decode(own, &changed(|_| {})).is_ok());
    assert!(WaypointResource::decode(to_service, &port(|_| {})).is_ok());
    assert!(WaypointResource::decode(to_route, &rule(proto::Rule::default())).is_ok());
    assert!(WaypointResource::decode(to_limit, &limit(|_| {})).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_waypoints_are_told_comes_back_as_it_went(
        (waypoint, resource) in arbitrary::waypoint().prop_flat_map(|waypoint| {
            (Just(waypoint.clone()), arbitrary::resource(waypoint))
        }),
    ) {
        let name = resource.name(&waypoint);
        let bytes = resource.encode(&waypoint);
        prop_assert_eq!(&bytes, &resource.encode(&waypoint));
        prop_assert_eq!(WaypointResource::decode(&name, &bytes), Ok((waypoint, resource)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _never_panics = WaypointResource::decode("shop/wp", &bytes);
    }
}
