//! Hosts outside the mesh, by way of a waypoint (`spec/waypoint-l7.md` §3.7).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::http::{Http1, read};
use super::program::Program;
use super::secure::{Learnt, certified, originating, roots, serve_tls};
use crate::hbone::TunnelIo;
use crate::hbone::testing::soon;
use crate::model::service::AppProtocol;
use crate::model::service::ServiceKey;
use crate::model::testing::{service, waypoint_named, workload};
use crate::model::traffic::{Balance, TlsOrigination, UpstreamTls};
use crate::model::waypoint::{External, Resolution};
use crate::model::workload::{NetworkMode, Workload};
use crate::resolve::testing::Reply;
use crate::tls::testing::TestCa;
use crate::waypoint::Lookups;
use crate::waypoint::testing::told::{settings, told};
use crate::waypoint::testing::{Rig, echo, speaking};

/// Where hosts outside are asked for.
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(240, 240, 0, 7));

impl Rig {
    /// A host outside behind the waypoint, found so: port 80 is HTTP, and 8443 there; 90 is TCP.
    fn outside(&mut self, host: &str, resolution: Resolution, ranges: &[&str]) {
        let ports = [
            (speaking(80, AppProtocol::Http11), 8443),
            (speaking(90, AppProtocol::Tcp), 9090),
        ];
        let ports = ports.map(|(port, target_port)| crate::model::service::ServicePort {
            target_port,
            ..port
        });
        let mut outside = service("ext", &[&VIP.to_string()]).ports(&ports);
        outside.key = key(host);
        self.add(outside.through(waypoint_named("wp")));
        let external = External {
            hosts: vec![Arc::from(host)],
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            resolution,
            endpoints: Vec::new(),
            subject_alt_names: Vec::new(),
        };
        let resources = self.resources.take().unwrap_or_else(told);
        self.resources = Some(resources.outside(key(host), external));
    }

    /// An endpoint of a host outside, by address or by name.
    fn endpoint_outside(&mut self, host: &str, at: &str) {
        let mut endpoint = workload(&format!("ext/{at}"), &[]).plain();
        endpoint.services = [(key(host), Vec::new())].into();
        match at.parse() {
            Ok(address) => endpoint.addresses = vec![address],
            Err(_) => endpoint.hostname = Arc::from(at),
        }
        let endpoint = Workload {
            network_mode: NetworkMode::HostNetwork,
            node: Arc::default(),
            ..endpoint
        };
        self.add_workload(endpoint);
    }

    /// A program that is reached at an address.
    async fn program_at(&self, at: &str) -> TcpListener {
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = program.local_addr().unwrap();
        self.connector.map(at.parse().unwrap(), listening);
        program
    }
}

fn key(host: &str) -> ServiceKey {
    ServiceKey {
        namespace: Arc::from("shop"),
        hostname: Arc::from(host),
    }
}

async fn ask(client: &mut Http1, host: &str) -> (StatusCode, String) {
    let request = Request::get("/").header("host", host);
    let request = request.body(Empty::new().boxed()).unwrap();
    let (head, body) = client.send(request).await.into_parts();
    (head.status, read(body).await)
}

fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(VIP, port)
}

/// Vector 45.
#[tokio::test]
async fn tls_is_begun_with_a_host_outside() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (_dir, path) = roots(&ca);
    for (name, certificate, proven) in [
        ("its certificate", certified(&ca, "ext.example"), true),
        ("another name's", certified(&ca, "evil.example"), false),
        ("another's", certified(&other, "ext.example"), false),
    ] {
        let mut rig = Rig::new().await;
        rig.outside("ext.example", Resolution::Dns, &[]);
        rig.endpoint_outside("ext.example", "ext.example");
        let says = Reply::records("ext.example A 192.0.2.7 60");
        rig.names.say("ext.example", "A", says);
        let listener = rig.program_at("192.0.2.7:8443").await;
        let (program, learnt) = (Program::named("out"), Learnt::default());
        let serving = serve_tls(listener, certificate, program.clone(), Arc::clone(&learnt));
        rig.run(serving);
        let tls = TlsOrigination {
            ca_certificates: Some(Arc::clone(&path)),
            ..TlsOrigination::default()
        };
        let resources = rig.resources.take().unwrap();
        let key = key("ext.example");
        rig.resources = Some(resources.treating(&key, originating(tls)));
        rig.publish().await;
        let mut client = Http1::through(rig.to(vip(80)).await).await;
        let (status, text) = ask(&mut client, "ext.example").await;
        if !proven {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
            let flag = "response_flags=\"UF";
            assert_eq!(rig.metric("istio_requests_total", flag), 1, "{name}");
            continue;
        }
        assert_eq!((status, &*text), (StatusCode::OK, "out"), "{name}");
        let want = (Some("ext.example".to_owned()), Some("http/1.1".to_owned()));
        assert_eq!(*learnt.lock().unwrap(), [want], "{name}");
        let host = program.last().header("host");
        assert_eq!(host.as_deref(), Some("ext.example"), "{name}");
    }
}

#[tokio::test]
async fn tls_is_begun_with_whoever_was_asked_for() {
    let ca = TestCa::new();
    let (_dir, path) = roots(&ca);
    let mut rig = Rig::new().await;
    rig.outside("ext.example", Resolution::Static, &["198.51.100.0/24"]);
    let listener = rig.program_at("198.51.100.9:80").await;
    let (program, learnt) = (Program::named("out"), Learnt::default());
    let certificate = certified(&ca, "ext.example");
    rig.run(serve_tls(
        listener,
        certificate,
        program,
        Arc::clone(&learnt),
    ));
    let policy = settings(|s| {
        s.load_balancer.policy = Balance::Passthrough;
        s.tls = UpstreamTls::Originate(TlsOrigination {
            ca_certificates: Some(path),
            ..TlsOrigination::default()
        });
    });
    let resources = rig.resources.take().unwrap();
    rig.resources = Some(resources.treating(&key("ext.example"), policy));
    rig.publish().await;
    let asked = "198.51.100.9:80".parse().unwrap();
    let mut client = Http1::through(rig.to(asked).await).await;
    let (status, text) = ask(&mut client, "ext.example").await;
    assert_eq!((status, &*text), (StatusCode::OK, "out"));
    assert_eq!(learnt.lock().unwrap().len(), 1);
}

/// Vector 47.
#[tokio::test]
async fn the_host_that_is_asked_for_is_looked_up() {
    let mut rig = Rig::new().await;
    rig.outside("*.ext.example", Resolution::DynamicDns, &[]);
    for (name, address) in [
        ("a.ext.example", "192.0.2.7"),
        ("b.ext.example", "192.0.2.8"),
        ("mesh.ext.example", "10.96.0.10"),
        ("here.ext.example", "127.0.0.1"),
        ("evil.example", "192.0.2.9"),
    ] {
        let says = Reply::Records(format!("{name} A {address} 60"));
        rig.names.say(name, "A", says);
    }
    for (at, name) in [("192.0.2.7:8443", "a"), ("192.0.2.8:8443", "b")] {
        let listener = rig.program_at(at).await;
        rig.run(Program::named(name).serve(listener));
    }
    rig.publish().await;
    let ok = StatusCode::OK;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    for (host, want) in [
        ("a.ext.example", (ok, "a")),
        ("B.ext.example:80", (ok, "b")),
        ("a.ext.example", (ok, "a")),
        ("evil.example", (StatusCode::NOT_FOUND, "")),
        ("ext.example", (StatusCode::NOT_FOUND, "")),
        ("none.ext.example", (unavailable, "no healthy upstream")),
        ("mesh.ext.example", (unavailable, "no healthy upstream")),
        ("here.ext.example", (unavailable, "no healthy upstream")),
    ] {
        let mut client = Http1::through(rig.to(vip(80)).await).await;
        let (status, text) = ask(&mut client, host).await;
        assert_eq!((status, &*text), want, "{host}");
    }
    assert_eq!(rig.names.asked("a.ext.example"), 1, "asked once");
    assert_eq!(rig.names.asked("evil.example"), 0, "never asked");
    // Nobody says which host is meant.
    let mut closed = TunnelIo::new(rig.to(vip(90)).await);
    let mut heard = Vec::new();
    let _closed = soon("an end", closed.read_to_end(&mut heard)).await;
    assert!(heard.is_empty());
}

#[tokio::test]
async fn a_name_of_the_outside_does_not_lead_into_the_mesh() {
    for (name, says, want) in [
        ("outside", "192.0.2.7", Some("out")),
        ("a workload", "10.1.0.11", None),
        ("a service", "10.96.0.10", None),
        (
            "one of two",
            "10.1.0.11 60; origin.example A 192.0.2.7",
            Some("out"),
        ),
    ] {
        let mut rig = Rig::new().await;
        rig.outside("ext.example", Resolution::Dns, &[]);
        rig.endpoint_outside("ext.example", "origin.example");
        let says = Reply::Records(format!("origin.example A {says} 60"));
        rig.names.say("origin.example", "A", says);
        rig.dead_endpoint("cart-1", "10.1.0.11");
        for (at, name) in [
            ("192.0.2.7:9090", "out"),
            ("10.1.0.11:9090", "workload"),
            ("10.96.0.10:9090", "service"),
        ] {
            let listener = rig.program_at(at).await;
            rig.run(echo(listener, name));
        }
        rig.publish().await;
        // Often enough that each address had its turn.
        for _ in 0..3 {
            let mut tunnel = TunnelIo::new(rig.to(vip(90)).await);
            let mut heard = [0; 3];
            let read = soon("an answer or an end", tunnel.read_exact(&mut heard)).await;
            let heard = read.is_ok().then(|| String::from_utf8_lossy(&heard));
            assert_eq!(heard.as_deref(), want, "{name}");
        }
    }
}

#[tokio::test]
async fn names_that_clients_choose_are_apart_from_the_meshs_own() {
    let mut rig = Rig::new().await;
    rig.outside(
        "*.ext.example",
        Resolution::DynamicDns,
        &["198.51.100.0/24"],
    );
    rig.outside("ext.example", Resolution::Dns, &["198.51.101.0/24"]);
    rig.endpoint_outside("ext.example", "origin.example");
    rig.publish().await;
    for (at, host) in [
        ("198.51.100.1:80", "a.ext.example"),
        ("198.51.101.1:80", "ext.example"),
    ] {
        let mut client = Http1::through(rig.to(at.parse().unwrap()).await).await;
        ask(&mut client, host).await;
    }
    let Lookups {
        configured,
        asked_for,
    } = &rig.lookups;
    for (name, own) in [("a.ext.example", false), ("origin.example", true)] {
        assert_eq!(rig.names.asked(name), 1, "{name}");
        assert_eq!(configured.knows(name), own, "{name}");
        assert_eq!(asked_for.knows(name), !own, "{name}");
    }
}

#[tokio::test]
async fn names_are_endpoints_by_all_their_addresses_or_the_first() {
    for (name, resolution, want) in [
        ("all", Resolution::Dns, &["one", "two"][..]),
        ("the first", Resolution::DnsRoundRobin, &["two"]),
    ] {
        let mut rig = Rig::new().await;
        rig.outside("ext.example", resolution, &[]);
        rig.endpoint_outside("ext.example", "origin.example");
        let says = "origin.example A 192.0.2.8 60; origin.example A 192.0.2.7 60";
        rig.names.say("origin.example", "A", Reply::records(says));
        for (at, name) in [("192.0.2.7:9090", "one"), ("192.0.2.8:9090", "two")] {
            let listener = rig.program_at(at).await;
            rig.run(echo(listener, name));
        }
        rig.publish().await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let mut client = TunnelIo::new(rig.to(vip(90)).await);
            let mut banner = [0; 3];
            soon(name, client.read_exact(&mut banner)).await.unwrap();
            seen.insert(String::from_utf8(banner.to_vec()).unwrap());
        }
        let seen: Vec<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(seen, want, "{name}");
    }
}

#[tokio::test]
async fn an_address_of_the_other_family_does_as_well() {
    let mut rig = Rig::new().await;
    rig.outside("ext.example", Resolution::Dns, &[]);
    rig.endpoint_outside("ext.example", "ext.example");
    let says = |text| Reply::records(text);
    rig.names
        .say("ext.example", "A", says("ext.example A 192.0.2.7 60"));
    rig.names.say(
        "ext.example",
        "AAAA",
        says("ext.example AAAA 2001:db8::7 60"),
    );
    // Nobody is at the first.
    let listener = rig.program_at("[2001:db8::7]:8443").await;
    rig.run(Program::named("six").serve(listener));
    rig.publish().await;
    let mut client = Http1::through(rig.to(vip(80)).await).await;
    let (status, text) = ask(&mut client, "ext.example").await;
    assert_eq!((status, &*text), (StatusCode::OK, "six"));
}

#[tokio::test]
async fn the_address_that_was_asked_for_is_the_endpoint() {
    let mut rig = Rig::new().await;
    rig.outside("ext.example", Resolution::None, &["198.51.100.0/24"]);
    for (at, name) in [("240.240.0.7:90", "vip"), ("198.51.100.9:90", "net")] {
        let listener = rig.program_at(at).await;
        rig.run(echo(listener, name));
    }
    rig.publish().await;
    for (at, want) in [("240.240.0.7:90", "vip"), ("198.51.100.9:90", "net")] {
        let mut client = TunnelIo::new(rig.to(at.parse().unwrap()).await);
        let mut banner = [0; 3];
        soon(at, client.read_exact(&mut banner)).await.unwrap();
        assert_eq!(banner, want.as_bytes(), "{at}");
    }
    for refused in ["198.51.101.9:90", "198.51.100.9:91"] {
        assert!(rig.connect(refused).await.is_err(), "{refused}");
    }
}

#[tokio::test]
async fn the_longest_range_says_whose_an_address_is() {
    let mut rig = Rig::new().await;
    rig.outside("wide.example", Resolution::None, &["198.51.0.0/16"]);
    rig.outside("narrow.example", Resolution::Dns, &["198.51.100.0/24"]);
    rig.endpoint_outside("narrow.example", "192.0.2.7");
    for (at, name) in [("198.51.1.1:90", "net"), ("192.0.2.7:9090", "one")] {
        let listener = rig.program_at(at).await;
        rig.run(echo(listener, name));
    }
    rig.publish().await;
    for (at, want) in [("198.51.1.1:90", "net"), ("198.51.100.1:90", "one")] {
        let mut client = TunnelIo::new(rig.to(at.parse().unwrap()).await);
        let mut banner = [0; 3];
        soon(at, client.read_exact(&mut banner)).await.unwrap();
        assert_eq!(banner, want.as_bytes(), "{at}");
    }
}
