//! Who may say what to a waypoint, and what the application sees of a client: rows 1 to 4.

use std::fs;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};

use super::case::{Case, try_all, unless};
use super::{Bench, GATE, SERVERS};
use crate::programs::client::{Order, Tunnel};

const CLAIMS: &str = "/ | X-Forwarded-For: 1.2.3.4 | X-Forwarded-Client-Cert: x";

/// Chain and key of an identity, signed as the control plane signs; or by somebody else.
struct Signer {
    chain: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    /// The mesh's own.
    fn of_the_mesh(state: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(state.join("control/ca").join(name)).unwrap();
        let (chain, key) = (read("issuing-1.pem"), read("issuing-1.key"));
        let key = KeyPair::from_pem(&key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&chain, key).unwrap();
        Self { chain, issuer }
    }

    fn certificate(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).unwrap())];
        let made = params.signed_by(&key, &self.issuer).unwrap();
        (made.pem() + &self.chain, key.serialize_pem())
    }
}

fn certificate(bench: &Bench, uri: &str) -> Option<(String, String)> {
    let signer = Signer::of_the_mesh(&bench.turn.control_state());
    Some(signer.certificate(uri))
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What the waypoint says to this, and how many connections servers got meanwhile.
fn said(bench: &Bench, tunnel: Tunnel) -> (String, usize) {
    let servers: Vec<&str> = SERVERS
        .iter()
        .map(|(name, _)| *name)
        .filter(|n| *n != "far")
        .collect();
    let before = bench.accepted(&servers);
    let said = bench.order(&Order::Tunnel(tunnel));
    (said, bench.accepted(&servers) - before)
}

fn tunnel(bench: &Bench, method: &str, target: &str) -> Tunnel {
    Tunnel {
        waypoint: GATE.to_owned(),
        method: method.to_owned(),
        target: target.to_owned(),
        certificate: certificate(bench, WEB),
        older: false,
        says: String::new(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("1: none", "").ask(
            CLAIMS,
            &[
                "echo",
                "> x-forwarded-for: 1.2.3.4",
                "> x-request-id",
                "> x-forwarded-proto: http",
                "> !x-forwarded-client-cert",
                "> :host echo",
                "< x-envoy-upstream-service-time",
            ],
        ),
        Case::new("2: XFCC option", "")
            .gateway(
                "nodes = [\"gate-1\"]\nannotations = { \"ambient.istio.io/xfcc-include-client-identity\" = \"true\" }",
            )
            .ask(
                CLAIMS,
                &[
                    "echo",
                    "> x-forwarded-for: 1.2.3.4",
                    "> x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/wp;URI=spiffe://cluster.local/ns/shop/sa/web",
                ],
            ),
        Case::new("3: –", "").also(|bench| {
            let mut complaints = Vec::new();
            for (what, method, target, want) in [
                ("a declared port, on which nothing is said", "CONNECT", "10.96.0.20:80", "200"),
                ("CONNECT 10.96.0.20:8181, undeclared", "CONNECT", "10.96.0.20:8181", "404"),
                ("VIP of an unbound service", "CONNECT", "10.96.0.30:80", "404"),
                ("wp's own IP:15008", "CONNECT", GATE, "404"),
                ("GET on the outer connection", "GET", "http://10.96.0.20/", "404"),
            ] {
                let (said, connections) = said(bench, tunnel(bench, method, target));
                complaints.extend(unless(said == want && connections == 0, || {
                    format!("{what}: {said}, {connections} upstream connections")
                }));
            }
            let says = Tunnel {
                says: "hello".to_owned(),
                ..tunnel(bench, "CONNECT", "10.96.0.20:90")
            };
            let (said, connections) = said(bench, says);
            complaints.extend(unless(said == "200" && connections == 1, || {
                format!("one that says something: {said}, {connections} upstream connections")
            }));
            complaints
        }),
        Case::new("4: –", "").also(|bench| {
            let mut complaints = Vec::new();
            let well = || tunnel(bench, "CONNECT", "10.96.0.20:80");
            let evil = certificate(bench, "spiffe://evil/ns/shop/sa/web");
            for (what, tunnel) in [
                ("TLS without certificate", Tunnel { certificate: None, ..well() }),
                ("certificate of trust domain `evil`", Tunnel { certificate: evil, ..well() }),
                ("TLS 1.2", Tunnel { older: true, ..well() }),
            ] {
                let (said, connections) = said(bench, tunnel);
                complaints.extend(unless(said == "handshake failed" && connections == 0, || {
                    format!("{what}: {said}, {connections} upstream connections")
                }));
            }
            complaints
        }),
    ]
}

#[test]
fn the_outer_connection_takes_what_it_should_and_tells_what_it_may() {
    try_all(&cases());
}
