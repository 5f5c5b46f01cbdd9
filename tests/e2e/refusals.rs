//! Peers that are not who they should be knock at the HBONE port with a real TLS client.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};

use crate::support::{Testbed, testbed, text};

/// The issuer of the mesh itself, or one that looks like it.
fn issuer(testbed: &Testbed, forged: bool) -> Issuer<'static, KeyPair> {
    let directory = testbed.control_state().join("control/ca");
    let key = fs::read_to_string(directory.join("issuing-1.key")).unwrap();
    let certificate = fs::read_to_string(directory.join("issuing-1.pem")).unwrap();
    let key = if forged {
        KeyPair::generate().unwrap()
    } else {
        KeyPair::from_pem(&key).unwrap()
    };
    Issuer::from_ca_cert_pem(&certificate, key).unwrap()
}

struct Client {
    certificate: PathBuf,
    key: PathBuf,
    chain: PathBuf,
}

fn client(
    testbed: &Testbed,
    issuer: &Issuer<'_, KeyPair>,
    uri: &str,
    from: i64,
    to: i64,
) -> Client {
    let at = |offset: i64| {
        let by = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        if offset < 0 { now - by } else { now + by }
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.not_before = at(from).into();
    params.not_after = at(to).into();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let leaf = params.signed_by(&key, issuer).unwrap();
    let directory = testbed.state().join("client");
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let issuing = testbed.control_state().join("control/ca/issuing-1.pem");
    Client {
        certificate: file("leaf.pem", leaf.pem()),
        key: file("leaf.key", key.serialize_pem()),
        chain: file("chain.pem", fs::read_to_string(issuing).unwrap()),
    }
}

/// Knocks at cart-2 from the machine outside; what the TLS client said.
fn knock(testbed: &Testbed, client: Option<&Client>, more: &[&str]) -> String {
    let path = |p: &Path| p.display().to_string();
    let mut words = vec![
        "openssl",
        "s_client",
        "-connect",
        "10.77.2.12:15008",
        "-alpn",
        "h2",
        "-ign_eof",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    if let Some(client) = client {
        words.extend([
            "-cert".to_owned(),
            path(&client.certificate),
            "-key".to_owned(),
            path(&client.key),
        ]);
        words.extend(["-cert_chain".to_owned(), path(&client.chain)]);
    }
    words.extend(more.iter().map(|w| (*w).to_owned()));
    let words: Vec<&str> = [
        &["timeout", "5"][..],
        &words.iter().map(String::as_str).collect::<Vec<_>>(),
    ]
    .concat();
    let output = testbed.exec("outside", None, &words);
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn each_wrong_certificate_is_refused_by_its_reason() {
    let testbed = testbed();
    let openssl = testbed.exec("outside", None, &["openssl", "version"]);
    assert!(
        openssl.status.success(),
        "this case needs the program openssl"
    );
    let mesh = issuer(&testbed, false);
    let forger = issuer(&testbed, true);
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    for (name, issuer, uri, from, to, reason) in [
        (
            "another trust domain",
            &mesh,
            "spiffe://other.local/ns/shop/sa/web",
            -60,
            600,
            "of another trust domain than cluster.local",
        ),
        (
            "no workload",
            &mesh,
            "spiffe://cluster.local/node/edge-1",
            -60,
            600,
            "names no workload identity",
        ),
        ("expired", &mesh, web, -600, -60, "expired"),
        ("not yet valid", &mesh, web, 600, 1200, "not valid yet"),
        (
            "signed by nobody we know",
            &forger,
            web,
            -60,
            600,
            "of no authority trusted here",
        ),
    ] {
        let client = client(&testbed, issuer, uri, from, to);
        let said = knock(&testbed, Some(&client), &["-tls1_3"]);
        assert!(said.contains("alert"), "{name}: {said}");
        testbed.logged("edge-2", &["connection failed", "inbound", reason]);
    }
    let said = knock(&testbed, None, &["-tls1_3"]);
    assert!(said.contains("alert"), "no certificate: {said}");
    testbed.logged("edge-2", &["inbound", "the peer presented no certificate"]);
    let good = client(&testbed, &mesh, web, -60, 600);
    let said = knock(&testbed, Some(&good), &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "TLS 1.2: {said}");
    testbed.logged("edge-2", &["inbound", "offers no TLS 1.3"]);
    let said = knock(&testbed, Some(&good), &["-tls1_3"]);
    assert!(
        said.contains("ALPN protocol: h2") && !said.contains("alert"),
        "a good one is let in: {said}"
    );
}
