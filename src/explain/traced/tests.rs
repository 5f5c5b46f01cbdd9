use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::explain::RequestAsked;
use crate::model::attached::PolicyKey;
use crate::model::declaration::{Origin, WaypointFor};
use crate::model::route::Target;
use crate::model::telemetry::{Exporter, Sampling, Sections, Tracing};
use crate::model::testing::workload;
use crate::model::waypoint::{AttachedSet, GatewayConfig, Options};

fn telemetry(name: &str, line: u32, tracing: Tracing) -> Telemetry {
    Telemetry {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        origin: origin(line),
        says: Sections {
            tracing: vec![tracing],
            ..Sections::default()
        },
    }
}

fn origin(line: u32) -> Origin {
    Origin {
        file: Arc::from("mesh.toml"),
        line,
    }
}

/// A waypoint of which all is traced so, and what is said of a request with such a field.
fn said(telemetry: Vec<Telemetry>, field: Option<(&str, &str)>) -> Vec<String> {
    let mut options = Options::default();
    let spans = Exporter::OpenTelemetry {
        to: Target::Invalid(Arc::from("nobody")),
        http: None,
        max_tag_length: 256,
    };
    options
        .telemetry
        .providers
        .insert(Arc::from("spans"), spans);
    let gateway = GatewayConfig {
        name: "shop/wp".parse().unwrap(),
        origin: origin(1),
        waypoint_for: WaypointFor::All,
        hbone_port: 15008,
        options,
        workload_set: AttachedSet {
            telemetry: telemetry.iter().map(|t| t.key.clone()).collect(),
            ..AttachedSet::default()
        },
    };
    let telemetry = telemetry.into_iter().map(|t| (t.key.clone(), Arc::new(t)));
    let told = Resources {
        gateway: Some(Arc::new(gateway)),
        telemetry: telemetry.collect::<BTreeMap<_, _>>(),
        ..Resources::default()
    };
    let bound = Bound::Workload {
        workload: Arc::new(workload("cart", &["10.1.0.1"])),
        asked: "10.1.0.1:80".parse().unwrap(),
    };
    let asked = RequestAsked {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: field
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        ..RequestAsked::default()
    };
    let request = Read::new(&asked, "10.1.0.1:80").unwrap();
    let mut steps = Vec::new();
    traced(&told, &bound, &request, &mut steps);
    steps.into_iter().map(|step| step.text).collect()
}

#[test]
fn it_is_said_whether_a_trace_is_kept_and_who_says_so() {
    let providers = |name: &str| Tracing {
        providers: vec![Arc::from(name)],
        ..Tracing::default()
    };
    let share = |hundredths| Tracing {
        sampling: Some(Sampling(hundredths)),
        ..Tracing::default()
    };
    let quiet = Tracing {
        disable_span_reporting: Some(true),
        ..Tracing::default()
    };
    let wide = || telemetry("mesh", 3, providers("spans"));
    let parent = |flags: &str| format!("00-{}-{}-{flags}", "a".repeat(32), "b".repeat(16));
    let (kept, dropped) = (parent("01"), parent("00"));
    for (name, telemetry, field, want) in [
        ("nothing is", vec![], None, None),
        (
            "as usual",
            vec![wide()],
            None,
            Some(
                "kept in 1 % of requests that do not say, told to `spans`, by telemetry shop/mesh (mesh.toml:3)",
            ),
        ),
        (
            "a share",
            vec![wide(), telemetry("cart", 9, share(1250))],
            None,
            Some(
                "kept in 12.5 % of requests that do not say, told to `spans`, by telemetry shop/mesh (mesh.toml:3), then telemetry shop/cart (mesh.toml:9)",
            ),
        ),
        (
            "none",
            vec![wide(), telemetry("cart", 9, share(0))],
            Some(("traceparent", &*kept)),
            Some(
                "kept, as the request says, told to `spans`, by telemetry shop/mesh (mesh.toml:3), then telemetry shop/cart (mesh.toml:9)",
            ),
        ),
        (
            "all",
            vec![telemetry(
                "mesh",
                3,
                Tracing {
                    sampling: Some(Sampling(10_000)),
                    ..providers("spans")
                },
            )],
            Some(("traceparent", &*dropped)),
            Some(
                "not kept, as the request says, told to `spans`, by telemetry shop/mesh (mesh.toml:3)",
            ),
        ),
        (
            "quiet",
            vec![wide(), telemetry("cart", 9, quiet)],
            Some(("traceparent", &*kept)),
            Some(
                "kept, as the request says, never told, by telemetry shop/mesh (mesh.toml:3), then telemetry shop/cart (mesh.toml:9)",
            ),
        ),
        (
            "nobody",
            vec![telemetry("mesh", 3, providers("gone"))],
            None,
            Some("there is no provider `gone` that takes spans"),
        ),
    ] {
        let want: Vec<String> = want.into_iter().map(str::to_owned).collect();
        assert_eq!(said(telemetry, field), want, "{name}");
    }
}
