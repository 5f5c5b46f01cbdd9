//! What a handshake needs: TLS settings out of a certificate, made anew whenever one is rotated.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use lateen::identity::SpiffeId;
use lateen::tls::{Roots, Svid, Trust, hbone_client, hbone_server};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::clock::Clock;

/// Whom the client's end of a tunnel is.
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// Whom the server's end is.
pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    let ends = Ends::new().expect("certificates of our own making are legal");
    let accepted = Arc::new([ends.cart.id().clone()].into());
    let mut group = c.benchmark_group("tls-settings");
    group.bench_function("server", |b| b.iter(|| hbone_server(black_box(&ends.cart))));
    group.bench_function("client", |b| {
        b.iter(|| hbone_client(black_box(&ends.web), Arc::clone(&accepted)));
    });
    group.finish();
}

/// Certificates of two workloads of one mesh, in date for an hour.
pub(crate) struct Ends {
    pub(crate) web: Arc<Svid>,
    pub(crate) cart: Arc<Svid>,
}

impl Ends {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?.der().clone();
        let trust = Trust::of_roots(Arc::new(Roots::new(vec![root])?))?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            web: svid(&WEB.parse()?, &issuer, &trust)?,
            cart: svid(&CART.parse()?, &issuer, &trust)?,
        })
    }
}

fn svid(
    id: &SpiffeId,
    issuer: &Issuer<'_, KeyPair>,
    trust: &Trust,
) -> Result<Arc<Svid>, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, issuer)?.der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let svid = Svid::new(vec![certificate], key.into(), trust.clone())?;
    Ok(Arc::new(svid))
}
