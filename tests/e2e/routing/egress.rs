//! Hosts outside the mesh: row 45. Names are looked up as a machine's own files say, which a rig has
//! none of: row 47 is tried with a scripted resolver, where the waypoint is (`src/waypoint/tests`).

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::Bench;
use super::case::{Case, try_all};

const EXT: &str = "10.96.0.40:80 / | Host: ext.example";

/// Writes the certificate of `ext.example`, and of two authorities: its own, and another.
pub(super) fn certify(directory: &Path) {
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    for name in ["other-ca.pem", "ca.pem"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write(name, params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["ext.example".to_owned()]).unwrap();
        write("ext.pem", params.signed_by(&key, &issuer).unwrap().pem());
        write("ext.key", key.serialize_pem());
    }
}

fn entry(bench: &Bench, authority: &str) -> String {
    let directory = bench.turn.state().join("nginx").display().to_string();
    format!(
        r#"
[[service-entry]]
name = "ext"
namespace = "shop"
hosts = ["ext.example"]
addresses = ["10.96.0.40"]
ports = [{{ number = 80, name = "http", protocol = "HTTP", target-port = 8444 }}]
resolution = "STATIC"
endpoints = [{{ address = "10.77.0.99" }}]

[[destination-rule]]
name = "ext"
namespace = "shop"
host = "ext.example"
traffic-policy = {{ tls = {{ mode = "SIMPLE", ca-certificates = "{directory}/{authority}" }} }}
"#
    )
}

#[test]
fn a_host_outside_is_reached_by_tls() {
    let bench = Bench::new();
    let rules = ["ca.pem", "other-ca.pem"].map(|authority| entry(&bench, authority));
    drop(bench);
    let [known, unknown] = rules;
    try_all(&[
        Case::new("45: service-entry ext.example port 80, TLS SIMPLE", known).ask(
            EXT,
            &[
                "ext",
                "> :sni ext.example",
                "> :host ext.example",
                "> :alpn http/1.1",
            ],
        ),
        Case::new("45: wrong certificate", unknown)
            .ask(EXT, &[
                "503",
                "text upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            ]),
    ]);
}
