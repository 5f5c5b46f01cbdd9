//! Which telemetry holds for what, and in which order (`spec/labels-and-policy.md` §5.2).

use super::*;
use crate::model::attached::PolicyKey;
use crate::model::declaration::{
    Attachment, FileAccessLog, Origin, TargetKind, TargetRef, Telemetry,
};
use crate::model::log_format::{Layout, LogFormat};
use crate::model::telemetry::{Exporter, Sections};

/// A telemetry `namespace/name` at a line, for these targets, or for its namespace without any.
fn telemetry(name: &str, line: u32, targets: &[(TargetKind, &str)]) -> Telemetry {
    let (namespace, name) = name.split_once('/').unwrap();
    let target = |(kind, name): &(TargetKind, &str)| TargetRef {
        kind: *kind,
        name: Arc::from(*name),
    };
    Telemetry {
        origin: Origin {
            file: Arc::from("t.toml"),
            line,
        },
        name: Arc::from(name),
        namespace: Arc::from(namespace),
        attachment: match targets {
            [] => Attachment::Namespace,
            targets => Attachment::Targets(targets.iter().map(target).collect()),
        },
        says: Sections::default(),
    }
}

fn names(keys: &[PolicyKey]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(" ")
}

#[test]
fn the_widest_comes_first_and_the_service_s_own_last() {
    use TargetKind::{Gateway, GatewayClass, Service};
    const ROOT: &str = "istio-system";
    let root = |name: &str| format!("{ROOT}/{name}");
    let class = [(GatewayClass, "istio-waypoint")];
    for (name, all, want, workloads) in [
        (
            "every level, however it is written",
            vec![
                telemetry("shop/s", 1, &[(Service, "echo")]),
                telemetry("shop/g", 2, &[(Gateway, "wp")]),
                telemetry(&root("c"), 3, &class),
                telemetry("shop/n", 4, &[]),
                telemetry(&root("r"), 5, &[]),
            ],
            "istio-system/r shop/n istio-system/c shop/g shop/s",
            "istio-system/r shop/n istio-system/c shop/g",
        ),
        (
            "the oldest of a namespace is the one",
            vec![telemetry("shop/b", 2, &[]), telemetry("shop/a", 1, &[])],
            "shop/a",
            "shop/a",
        ),
        (
            "others' are of no account",
            vec![
                telemetry("other/n", 1, &[]),
                telemetry("other/g", 2, &[(Gateway, "wp")]),
                telemetry("shop/c", 3, &class),
                telemetry("shop/v", 4, &[(Service, "v1")]),
            ],
            "",
            "",
        ),
        (
            "one for both is for the nearer",
            vec![
                telemetry("shop/b", 1, &[(Service, "echo"), (Gateway, "wp")]),
                telemetry("shop/g", 2, &[(Gateway, "wp")]),
            ],
            "shop/g shop/b",
            "shop/b shop/g",
        ),
    ] {
        let mut mesh = shop(Vec::new());
        mesh.telemetry = all;
        let compiled = compiled(&mesh);
        let told = told(&compiled);
        let set = &told.services[&key("echo")].set;
        assert_eq!(names(&set.telemetry), want, "{name}");
        let gateway = told.gateway.as_ref().unwrap();
        assert_eq!(names(&gateway.workload_set.telemetry), workloads, "{name}");
        for key in set.telemetry.iter().chain(&gateway.workload_set.telemetry) {
            assert!(told.telemetry.contains_key(key), "{name}: {key}");
        }
    }
}

#[test]
fn a_waypoint_knows_whom_it_can_tell() {
    let mut mesh = shop(Vec::new());
    let exporters = |mesh: &Mesh| {
        let compiled = compiled(mesh);
        let gateway = told(&compiled).gateway.clone().unwrap();
        gateway.options.telemetry.clone()
    };
    let file = |path: &str, format| FileAccessLog {
        path: Arc::from(path),
        layout: Layout {
            format,
            omit_empty: false,
        },
    };
    let setup = exporters(&mesh);
    let stdout = file("/dev/stdout", LogFormat::text());
    assert_eq!(setup.providers["envoy"], Exporter::File(stdout));
    assert_eq!(setup.providers["prometheus"], Exporter::Prometheus);
    assert!(!setup.defaults.file);
    let own = file("/var/log/a", LogFormat::json());
    mesh.settings.telemetry.access_log = Some(own.clone());
    let setup = exporters(&mesh);
    assert_eq!(setup.providers["envoy"], Exporter::File(own));
    assert!(setup.defaults.file);
}

#[test]
fn a_change_of_telemetry_alone_is_one() {
    let mut mesh = shop(Vec::new());
    let before = compiled(&mesh);
    mesh.telemetry = vec![telemetry("shop/n", 1, &[])];
    let none = Reported::default();
    let after = recompile(&mesh, &none, &before.assignments, &before).unwrap();
    assert_eq!(told(&after).telemetry.len(), 1);
}
