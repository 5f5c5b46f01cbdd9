//! Providers that policies have asked.

use super::*;
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, CheckOver, ExtAuthz, Origin, Provider, ProviderKind,
    ProviderService, TargetKind, TargetRef,
};
use crate::model::waypoint::Extension;

fn asks(provider: &str, line: u32) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: Origin {
            file: Arc::from("shop.toml"),
            line,
        },
        name: Arc::from(format!("p{line}")),
        namespace: Arc::from("shop"),
        attachment: Attachment::Targets(vec![TargetRef {
            kind: TargetKind::Service,
            name: Arc::from("echo"),
        }]),
        action: Action::Custom(Arc::from(provider)),
        dry_run: false,
        rules: vec![declaration::Rule::default()],
    }
}

fn provider(name: &str, kind: ProviderKind) -> Provider {
    Provider {
        origin: Origin {
            file: Arc::from("mesh.toml"),
            line: 1,
        },
        name: Arc::from(name),
        kind,
    }
}

fn check() -> ExtAuthz {
    ExtAuthz {
        timeout: Duration::from_secs(5),
        fail_open: false,
        status_on_error: ::http::StatusCode::FORBIDDEN,
        clear_route_cache: false,
        body: None,
        over: CheckOver::Grpc,
    }
}

fn at(namespace: Option<&str>, host: &str, port: u16) -> ProviderKind {
    ProviderKind::ExtAuthz {
        service: ProviderService {
            namespace: namespace.map(Arc::from),
            host: Arc::from(host),
            port,
        },
        check: check(),
    }
}

fn target(told: &Resources, name: &str) -> Option<String> {
    let Extension { to, .. } = &**told.extensions.get(name)?;
    Some(match to {
        Target::Service { key, port, .. } => format!("{}:{port}", key.hostname),
        Target::Invalid(why) => why.to_string(),
    })
}

#[test]
fn a_waypoint_is_told_of_those_its_policies_name() {
    let mut mesh = shop(Vec::new());
    mesh.settings.providers = vec![
        provider("short", at(Some("shop"), "v1", 80)),
        provider("full", at(None, "v2.shop.mesh.internal", 80)),
        provider("gone", at(Some("shop"), "gone", 80)),
        provider("closed", at(Some("shop"), "v1", 81)),
        provider("counts", ProviderKind::Prometheus),
        provider("unused", at(Some("shop"), "v1", 80)),
    ];
    let named = ["short", "full", "gone", "closed", "counts", "nobody"];
    let policies = named.iter().zip(1..);
    mesh.authorization_policies = policies.map(|(name, line)| asks(name, line)).collect();
    let compiled = compiled(&mesh);
    let told = told(&compiled);
    for (name, want) in [
        ("short", Some("v1.shop.mesh.internal:80")),
        ("full", Some("v2.shop.mesh.internal:80")),
        ("gone", Some("no service has the host name gone")),
        (
            "closed",
            Some("shop/v1.shop.mesh.internal declares no port 81"),
        ),
        ("counts", None),
        ("nobody", None),
        ("unused", None),
    ] {
        assert_eq!(target(told, name).as_deref(), want, "{name}");
    }
    assert_eq!(
        told.policies.len(),
        6,
        "who is not there is asked all the same"
    );
}

#[test]
fn a_provider_behind_no_waypoint_is_a_backend() {
    let mut mesh = shop(Vec::new());
    mesh.services[1].use_waypoint = Some(declaration::UseWaypoint::None);
    mesh.settings.providers = vec![provider("opa", at(Some("shop"), "v1", 80))];
    let without = compiled(&mesh);
    assert!(!told(&without).services.contains_key(&key("v1")));
    mesh.authorization_policies = vec![asks("opa", 1)];
    let with = compiled(&mesh);
    assert!(!told(&with).services[&key("v1")].bound);
}
