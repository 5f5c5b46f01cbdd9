//! What is written becomes what it means, with every default filled in.

mod destinations;
mod limits;
mod policies;
mod providers;
mod routes;
mod service_entries;
mod telemetry;
mod tokens;
mod virtual_services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::loaded;
use crate::config::{Loaded, load};
use crate::model::declaration::{
    Capture, DataplaneMode, HealthCheck, Mesh, Origin, Port, Probe, UseWaypoint,
};
use crate::model::route::{Retry, RetryOn};
use crate::model::service::AppProtocol;
use crate::model::traffic::LocalityPolicy;
use crate::model::workload::{Locality, Transport};

fn mesh(files: &[(&str, String)]) -> Mesh {
    let loaded = loaded(files);
    assert_sound(&loaded);
    loaded.mesh.unwrap()
}

fn assert_sound(loaded: &Loaded) {
    let found = loaded.report.diagnostics();
    assert!(found.is_empty(), "{}", loaded.report);
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_example_of_the_design_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/shop");
    let loaded = load(&dir);
    assert_sound(&loaded);
    let paths: Vec<_> = loaded.files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["mesh.toml", "shop/cart.toml", "shop/web.toml"]);
    let mesh = loaded.mesh.unwrap();
    let node = &mesh.nodes["edge-1"];
    assert_eq!(node.addresses, [address("192.0.2.11")]);
    let cart = &mesh.workloads[0];
    assert_eq!(
        cart.origin,
        Origin {
            file: Arc::from("shop/cart.toml"),
            line: 3
        }
    );
    assert_eq!(
        (&*cart.name, &*cart.namespace, &*cart.service_account),
        ("cart-1", "shop", "cart")
    );
    assert_eq!(cart.locality, node.locality);
    assert_eq!(&*cart.locality.zone, "rack-1");
    assert_eq!(cart.capture, Some(Capture::Netns(Arc::from("cart"))));
    let labels = [("app", "cart"), ("version", "v1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(cart.labels, BTreeMap::from(labels));
    let health = cart.health.as_ref().unwrap();
    assert_eq!(
        health.probe,
        Probe::Http {
            path: Arc::from("/healthz"),
            port: 8080
        }
    );
    let service = &mesh.services[0];
    assert_eq!(service.addresses, [address("10.96.0.10")]);
    assert_eq!(service.ports[0].app_protocol, AppProtocol::Http11);
    assert_eq!(
        (service.ports[0].port, service.ports[0].target_port),
        (80, 8080)
    );
    assert_eq!(
        mesh.namespaces["shop"].dataplane_mode,
        Some(DataplaneMode::Ambient)
    );
}

#[test]
fn every_example_is_in_order() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let examples = std::fs::read_dir(examples).unwrap();
    let meshes = examples.map(|example| example.unwrap().path().join("mesh"));
    let meshes: Vec<_> = meshes.filter(|mesh| mesh.is_dir()).collect();
    assert!(!meshes.is_empty());
    for mesh in meshes {
        let report = load(&mesh).report;
        assert_eq!(report.diagnostics().len(), 0, "{report}");
    }
}

#[test]
fn every_way_of_capture_is_taken() {
    let name = Arc::<str>::from;
    for (written, want) in [
        ("netns = \"cart\"", Capture::Netns(name("cart"))),
        (
            "unit = \"cart.service\"",
            Capture::Unit(name("cart.service")),
        ),
        (
            "unit = \"cart@1.service\"",
            Capture::Unit(name("cart@1.service")),
        ),
        (
            "unit = 'a\\x2db.slice'",
            Capture::Unit(name("a\\x2db.slice")),
        ),
        ("cgroup = \"/a/b\"", Capture::Cgroup(name("a/b"))),
        ("cgroup = \"a b/c\"", Capture::Cgroup(name("a b/c"))),
        ("user = \"cart\"", Capture::User(name("cart"))),
        ("user = 1001", Capture::User(name("1001"))),
        (
            "interface = \"tap-3.7\"",
            Capture::Interface(name("tap-3.7")),
        ),
    ] {
        // On the machine's own network it has the machine's.
        let own = ["netns", "interface"]
            .iter()
            .any(|way| written.starts_with(way));
        let addresses = if own {
            "addresses = [\"10.1.0.1\"]\n"
        } else {
            ""
        };
        let text = format!(
            "[[node]]\nname = \"n\"\naddresses = [\"10.1.0.2\"]\n[[workload]]\nname = \"w\"\n{addresses}\
             node = \"n\"\ndataplane-mode = \"ambient\"\ncapture = {{ {written} }}\n"
        );
        let mesh = mesh(&[("a.toml", text)]);
        assert_eq!(mesh.workloads[0].capture, Some(want), "{written}");
        let at = if own { "10.1.0.1" } else { "10.1.0.2" };
        assert_eq!(mesh.workloads[0].addresses, [at.parse::<IpAddr>().unwrap()]);
    }
}

#[test]
fn an_empty_file_is_a_mesh_of_defaults() {
    let mesh = mesh(&[("a.toml", String::new())]);
    let settings = &mesh.settings;
    assert_eq!(settings.trust_domain.as_str(), "cluster.local");
    assert_eq!(
        (&*settings.domain, &*settings.root_namespace),
        ("mesh.internal", "istio-system")
    );
    assert_eq!(
        (&*settings.cluster_id, &*settings.network, settings.serial),
        ("Kubernetes", "", 0)
    );
    assert_eq!(settings.certificate_ttl, Duration::from_secs(691_200));
    let ranges: Vec<_> = settings
        .service_range
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["240.240.0.0/16", "2001:2::/48"]);
}

#[test]
fn every_setting_is_taken() {
    let text = "[mesh]\ntrust-domain = \"td\"\ndomain = \"mesh.example\"\nroot-namespace = \"root\"\n\
        service-range = [\"10.96.0.0/12\", \"fd00::/64\"]\ncertificate-ttl = \"24h\"\ncluster-id = \"c\"\n\
        network = \"net-1\"\nserial = 0x10\n";
    let settings = mesh(&[("a.toml", text.to_owned())]).settings;
    assert_eq!(settings.trust_domain.as_str(), "td");
    assert_eq!(
        (&*settings.domain, &*settings.root_namespace),
        ("mesh.example", "root")
    );
    assert_eq!(settings.service_range.len(), 2);
    assert_eq!(settings.certificate_ttl, Duration::from_secs(86_400));
    assert_eq!(
        (&*settings.cluster_id, &*settings.network, settings.serial),
        ("c", "net-1", 16)
    );
}

#[test]
fn what_holds_for_routes_and_services_that_say_nothing() {
    for (name, text, want) in [
        ("nothing", "", Retry::usual()),
        (
            "never again",
            "default-http-retry-policy = { attempts = 0 }",
            Retry {
                attempts: 0,
                ..Retry::usual()
            },
        ),
        (
            "everything",
            "default-http-retry-policy = { attempts = 3, retry-on = \"5xx, reset,retriable-status-codes,418\", \
             per-try-timeout = \"2s\", backoff = \"10ms\", retry-ignore-previous-hosts = false, \
             retry-remote-localities = true }",
            Retry {
                attempts: 3,
                on: [RetryOn::ServerError, RetryOn::Reset].into(),
                codes: [418].into(),
                backoff: Some(Duration::from_millis(10)),
                per_try_timeout: Some(Duration::from_secs(2)),
                ignore_previous_hosts: false,
                remote_localities: true,
            },
        ),
    ] {
        let settings = mesh(&[("a.toml", format!("[mesh]\n{text}\n"))]).settings;
        assert_eq!(settings.retry, want, "{name}");
        assert_eq!(settings.locality, LocalityPolicy::usual(), "{name}");
    }
    let text = "[mesh]\nlocality-lb-setting = { failover = [{ from = \"eu\", to = \"us\" }] }\n";
    let settings = mesh(&[("a.toml", text.to_owned())]).settings;
    let want = LocalityPolicy {
        failover: vec![(Arc::from("eu"), Arc::from("us"))],
        ..LocalityPolicy::usual()
    };
    assert_eq!(settings.locality, want);
    let text = "[mesh]\nlocality-lb-setting = { enabled = false }\n";
    let settings = mesh(&[("a.toml", text.to_owned())]).settings;
    assert!(!settings.locality.enabled);
}

#[test]
fn a_transport_is_taken_from_wherever_it_is_said() {
    let text = "[mesh]\ntransport = \"auto\"\n[[node]]\nname = \"n\"\ntransport = \"quic\"\n\
        [[namespace]]\nname = \"shop\"\ntransport = \"tcp\"\n\
        [[workload]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\nnode = \"n\"\ntransport = \"auto\"\n\
        [[workload]]\nname = \"b\"\naddresses = [\"10.1.0.2\"]\nnamespace = \"shop\"\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    assert_eq!(mesh.settings.transport, Transport::Auto);
    assert_eq!(mesh.nodes["n"].transport, Some(Transport::Quic));
    assert_eq!(mesh.namespaces["shop"].transport, Some(Transport::Tcp));
    assert_eq!(mesh.workloads[0].transport, Some(Transport::Auto));
    assert_eq!(mesh.workloads[1].transport, None);
}

#[test]
fn what_is_left_out_is_filled_in() {
    let text = "[mesh]\nnetwork = \"m\"\n[[node]]\nname = \"n\"\nnetwork = \"k\"\nlabels = { \
        \"topology.kubernetes.io/region\" = \"eu\", \"topology.istio.io/subzone\" = \"s\", rack = \"7\" }\n\
        [[workload]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\nnode = \"n\"\nhealth = { tcp = 80 }\n\
        [[workload]]\nname = \"b\"\naddresses = [\"10.1.0.1\"]\nlocality = \"us\"\n\
        [[workload]]\nname = \"c\"\naddresses = [\"10.1.0.2\"]\nnode = \"n\"\nnetwork = \"own\"\ncapacity = 0\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let networks: Vec<_> = mesh.workloads.iter().map(|w| &*w.network).collect();
    assert_eq!(networks, ["k", "m", "own"]);
    let [a, b, c] = mesh.workloads.as_slice() else {
        panic!()
    };
    let node = &mesh.nodes["n"];
    let locality = Locality {
        region: Arc::from("eu"),
        zone: Arc::from(""),
        subzone: Arc::from("s"),
    };
    assert_eq!((&node.locality, &a.locality), (&locality, &locality));
    assert_eq!(
        node.labels,
        BTreeMap::from([("rack".to_owned(), "7".to_owned())])
    );
    assert_eq!(&*b.locality.region, "us");
    assert_eq!(
        (&*a.namespace, &*a.service_account, a.capacity, c.capacity),
        ("default", "default", 1, 0)
    );
    assert_eq!(mesh.namespaces["default"].dataplane_mode, None);
    assert_eq!(
        a.health,
        Some(HealthCheck {
            probe: Probe::Tcp { port: 80 },
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
            start_timeout: Duration::from_secs(60),
        })
    );
}

#[test]
fn labels_with_a_meaning_are_keys() {
    let text = "[[node]]\nname = \"n\"\n[[namespace]]\nname = \"x\"\nlabels = { \"istio.io/dataplane-mode\" = \"ambient\", \
        \"istio.io/use-waypoint\" = \"#none\", tier = \"1\" }\n\
        [[workload]]\nname = \"a\"\nnamespace = \"x\"\naddresses = [\"10.1.0.1\"]\nnode = \"n\"\n\
        dataplane-mode = \"none\"\nuse-waypoint = \"none\"\n\
        labels = { \"istio.io/dataplane-mode\" = \"none\", \"istio.io/rev\" = \"1\" }\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let namespace = &mesh.namespaces["x"];
    assert_eq!(namespace.dataplane_mode, Some(DataplaneMode::Ambient));
    assert_eq!(namespace.use_waypoint, Some(UseWaypoint::None));
    assert_eq!(namespace.labels.keys().collect::<Vec<_>>(), ["tier"]);
    let workload = &mesh.workloads[0];
    assert_eq!(workload.dataplane_mode, Some(DataplaneMode::None));
    assert_eq!(workload.use_waypoint, Some(UseWaypoint::None));
    assert_eq!(workload.labels.keys().collect::<Vec<_>>(), ["istio.io/rev"]);
}

#[test]
fn services_are_taken_as_written() {
    let text = "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels.app = \"a\"\n\
        [[service]]\nname = \"s\"\nheadless = true\nselector.app = \"a\"\n\
        ports = [{ port = 80, name = \"web\" }, { port = 90, app-protocol = \"grpc\", target-port = 9 }]\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let service = &mesh.services[0];
    assert!(service.headless && service.addresses.is_empty());
    let web = Port {
        name: Some(Arc::from("web")),
        port: 80,
        target_port: 80,
        app_protocol: AppProtocol::Unknown,
    };
    let grpc = Port {
        name: None,
        port: 90,
        target_port: 9,
        app_protocol: AppProtocol::Grpc,
    };
    assert_eq!(service.ports, [web, grpc]);
}

#[test]
fn a_port_is_of_udp_where_anything_says_so() {
    let udp = |port: u16, target: u16| (vec![], vec![(port, target)]);
    let tcp = |port: u16, spoken: AppProtocol| (vec![(port, spoken)], vec![]);
    for (written, want) in [
        ("{ port = 53, protocol = \"udp\" }", udp(53, 53)),
        (
            "{ port = 53, protocol = \"UDP\", target-port = 5353, name = \"dns\" }",
            udp(53, 5353),
        ),
        ("{ port = 514, app-protocol = \"udp\" }", udp(514, 514)),
        ("{ port = 514, name = \"udp-syslog\" }", udp(514, 514)),
        ("{ port = 443, app-protocol = \"h3\" }", udp(443, 443)),
        (
            "{ port = 443, app-protocol = \"QUIC\", protocol = \"udp\" }",
            udp(443, 443),
        ),
        (
            "{ port = 443, name = \"https\", protocol = \"udp\" }",
            udp(443, 443),
        ),
        (
            "{ port = 53, protocol = \"udp\", app-protocol = \"dns\" }",
            udp(53, 53),
        ),
        (
            "{ port = 53, name = \"udp\", app-protocol = \"dns\" }",
            udp(53, 53),
        ),
        (
            "{ port = 5300, protocol = \"tcp\", app-protocol = \"dns\" }",
            tcp(5300, AppProtocol::Tcp),
        ),
        (
            "{ port = 80, protocol = \"tcp\" }",
            tcp(80, AppProtocol::Unknown),
        ),
        (
            "{ port = 80, protocol = \"Tcp\", name = \"http-web\" }",
            tcp(80, AppProtocol::Http11),
        ),
        (
            "{ port = 53 }, { port = 53, protocol = \"udp\" }",
            (vec![(53, AppProtocol::Tcp)], vec![(53, 53)]),
        ),
    ] {
        let text = format!(
            "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels.app = \"a\"\n\
             [[service]]\nname = \"s\"\nselector.app = \"a\"\nports = [{written}]\n"
        );
        let service = &mesh(&[("a.toml", text)]).services[0];
        let ports = service.ports.iter().map(|p| (p.port, p.app_protocol));
        let udp = service.udp_ports.iter();
        let udp = udp.map(|p| (p.service_port, p.target_port));
        let got: (Vec<_>, Vec<_>) = (ports.collect(), udp.collect());
        assert_eq!(got, want, "{written}");
    }
}

#[test]
fn protocols_have_the_names_that_istio_and_kubernetes_give_them() {
    for (written, want) in [
        ("http", AppProtocol::Http11),
        ("HTTP", AppProtocol::Http11),
        ("http_proxy", AppProtocol::Http11),
        ("kubernetes.io/ws", AppProtocol::Http11),
        ("http2", AppProtocol::Http2),
        ("kubernetes.io/h2c", AppProtocol::Http2),
        ("grpc-web", AppProtocol::Http2),
        ("grpc", AppProtocol::Grpc),
        ("https", AppProtocol::Tls),
        ("tls", AppProtocol::Tls),
        ("kubernetes.io/wss", AppProtocol::Tls),
        ("tcp", AppProtocol::Tcp),
        ("mongo", AppProtocol::Tcp),
        ("mysql", AppProtocol::Tcp),
        ("redis", AppProtocol::Tcp),
    ] {
        let text = format!(
            "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels.app = \"a\"\n\
            [[service]]\nname = \"s\"\nselector.app = \"a\"\n\
            ports = [{{ port = 80, name = \"tcp-other\", app-protocol = \"{written}\" }}]\n"
        );
        let mesh = mesh(&[("a.toml", text)]);
        assert_eq!(mesh.services[0].ports[0].app_protocol, want, "{written}");
    }
}

#[test]
fn probes_are_taken_as_written() {
    let text = "[[node]]\nname = \"n\"\n\
        [[workload]]\nname = \"w\"\nnode = \"n\"\naddresses = [\"10.1.0.1\"]\n[workload.health]\nexec = [\"true\", \"-v\"]\n\
        interval = \"500ms\"\ntimeout = \"3s\"\nrise = 1\nfall = 5\nstart-timeout = \"0\"\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let health = mesh.workloads[0].health.clone().unwrap();
    assert_eq!(
        health.probe,
        Probe::Exec {
            command: vec![Arc::from("true"), Arc::from("-v")]
        }
    );
    assert_eq!(
        (health.interval, health.timeout),
        (Duration::from_millis(500), Duration::from_secs(3))
    );
    assert_eq!(
        (health.rise, health.fall, health.start_timeout),
        (1, 5, Duration::ZERO)
    );
}
