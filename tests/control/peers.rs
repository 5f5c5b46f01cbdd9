//! Two control planes of one mesh: the same files, an intermediate each under one root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::Method;
use lateen::agent::identity::NodeIdentity;
use lateen::dial::connect;
use lateen::tls::{Request as Csr, control_client, to_pem};
use lateen::wire::proto::citadel::IstioCertificateRequest;
use lateen::wire::proto::citadel::istio_certificate_service_client::IstioCertificateServiceClient;
use lateen::wire::{ADDRESS, TRUST};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Delta, Site, eventually, token_for};

fn authority(title: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(86_400)).into();
    params
}

/// Puts an intermediate under the root into a directory, by Istio's names.
fn plug(directory: &Path, title: &str, root: &Issuer<'static, KeyPair>, root_pem: &str) {
    fs::create_dir(directory).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = authority(title).signed_by(&key, root).unwrap();
    let pem = to_pem(certificate.der());
    for (name, text) in [
        ("ca-cert.pem", pem.as_str()),
        ("cert-chain.pem", &pem),
        ("root-cert.pem", root_pem),
        ("ca-key.pem", &key.serialize_pem()),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A primary, and one beside it.
fn sites() -> [Site; 2] {
    let key = KeyPair::generate().unwrap();
    let params = authority("a root of two");
    let root_pem = to_pem(params.self_signed(&key).unwrap().der());
    let root = Issuer::new(params, key);
    let [a, b] = ["first", "second"].map(|title| {
        let site = Site::new();
        let directory = site.path("cacerts");
        plug(&directory, title, &root, &root_pem);
        // The table of control planes is the last in the file.
        let mut text = fs::read_to_string(site.config()).unwrap();
        text.push_str(&format!(
            "name = \"{title}\"\nca-dir = \"{}\"\n",
            directory.display()
        ));
        fs::write(site.config(), text).unwrap();
        site
    });
    let mut text = fs::read_to_string(b.config()).unwrap();
    text.push_str(&format!("primary = \"{}\"\n", a.url()));
    fs::write(b.config(), text).unwrap();
    [a, b]
}

async fn channel(site: &Site, identity: &NodeIdentity) -> Channel {
    let trust = identity.svid.trust().clone();
    let tls = control_client(Some(&identity.svid), trust).unwrap();
    connect(&site.url(), tls).await.unwrap()
}

async fn certificate(site: &Site, identity: &NodeIdentity) -> Result<usize, Status> {
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let ask = IstioCertificateRequest {
        csr: Csr::new(&id).unwrap().csr_pem(),
        validity_duration: 3_600,
        metadata: None,
    };
    let mut client = IstioCertificateServiceClient::new(channel(site, identity).await);
    let answer = client.create_certificate(ask).await?;
    Ok(answer.into_inner().cert_chain.len())
}

/// The first response of a type, as its resources' names and versions.
async fn first(
    site: &Site,
    identity: &NodeIdentity,
    type_url: &str,
) -> Result<Vec<(String, String)>, Status> {
    let mut stream = Delta::open(channel(site, identity).await, "").await?;
    stream.ask(type_url).await;
    let response = stream.next().await?;
    let named = response.resources.into_iter().map(|r| (r.name, r.version));
    Ok(named.collect())
}

#[tokio::test]
async fn another_control_plane_serves_the_same_and_obeys_the_primary() {
    let [a, b] = sites();
    let mut at_a = a.start();
    a.up(&mut at_a).await;
    let mut at_b = b.start();
    b.up(&mut at_b).await;

    let refused = b.token(false, &token_for("edge-1")).await.unwrap_err();
    assert!(refused.to_string().contains(&a.url()), "{refused}");
    let token = a.token(false, &token_for("edge-1")).await.unwrap();
    let joined = b.join("edge-1", &token);
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(
        said.contains("NOT_PRIMARY") && said.contains(&a.url()),
        "{said}"
    );
    let joined = a.join("edge-1", &token);
    assert!(joined.status.success(), "{joined:?}");
    let identity = NodeIdentity::load(&a.path("edge-1")).unwrap().unwrap();

    // By name and version the two are one.
    let of_a = first(&a, &identity, ADDRESS).await.unwrap();
    assert!(!of_a.is_empty());
    assert_eq!(first(&b, &identity, ADDRESS).await.unwrap(), of_a);
    assert_eq!(certificate(&b, &identity).await.unwrap(), 3);
    let believed = first(&a, &identity, TRUST).await.unwrap();
    eventually("the primary's bundle at the other", || async {
        match first(&b, &identity, TRUST).await {
            Ok(here) if here == believed => Ok(()),
            other => Err(other),
        }
    })
    .await;

    let revoked = a.ask(Method::POST, "/nodes/revoke", "edge-1".to_owned());
    revoked.await.unwrap();
    let shut_out = |outcome: Result<usize, Status>| match outcome {
        Err(status)
            if status.code() == Code::PermissionDenied && status.message().contains("revoked") =>
        {
            Ok(())
        }
        other => Err(other),
    };
    eventually("the other shuts it out too", || async {
        shut_out(certificate(&b, &identity).await)
    })
    .await;
    // With no primary to ask, it still knows.
    at_a.kill();
    at_b.kill();
    let mut at_b = b.start();
    b.up(&mut at_b).await;
    shut_out(certificate(&b, &identity).await).unwrap();
    let streamed = first(&b, &identity, ADDRESS).await.unwrap_err();
    assert_eq!(streamed.code(), Code::PermissionDenied, "{streamed}");
}
