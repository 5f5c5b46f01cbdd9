//! rustls configurations for each kind of connection a mesh makes.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::svid::{Roots, Svid};
use super::trust::Trust;
use super::verify::{ClientRule, ClientVerifier, ServerRule, ServerVerifier};
use crate::clock;
use crate::identity::{SpiffeId, TrustDomain};

/// The one application protocol of every connection.
const ALPN: &[u8] = b"h2";

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The TLS stack refused the versions, suites or certificate.
    #[error("cannot build the TLS settings")]
    Settings {
        /// What it said.
        #[source]
        source: rustls::Error,
    },
}

impl From<rustls::Error> for TlsError {
    fn from(source: rustls::Error) -> Self {
        Self::Settings { source }
    }
}

/// aws-lc-rs with the suites and groups Istio's peers use, in our order: the hybrid group first,
/// whose key share carries a classical one too, so that a classical peer costs no round trip.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    &PROVIDER
}

/// How tunnels are accepted: the settings of handshakes, and by what clients are judged then and
/// after.
#[derive(Debug)]
pub struct ServerSide {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// What clients are judged by.
    pub trust: Trust,
    /// The server's own trust domain.
    pub trust_domain: TrustDomain,
}

/// Inbound HBONE: a client certificate is required and must name a workload of our own trust
/// domain.
///
/// # Errors
/// [`TlsError`] when the certificate cannot serve.
pub fn hbone_server(svid: &Svid) -> Result<Arc<ServerSide>, TlsError> {
    let key = SingleCertAndKey::from(Arc::clone(svid.key()));
    Ok(Arc::new(ServerSide {
        config: Arc::new(workload_server(svid, Arc::new(key))?),
        trust: svid.trust().clone(),
        trust_domain: svid.id().trust_domain().clone(),
    }))
}

/// Settings of an HBONE server that judges its clients as `svid` does, and presents what `keys` says.
pub(super) fn workload_server(
    svid: &Svid,
    keys: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let rule = ClientRule::Workload(svid.id().trust_domain().clone());
    let trust = svid.trust().clone();
    let mut config = server(Arc::new(ClientVerifier { trust, rule }), keys)?;
    // The byte path seals and opens records itself.
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Outbound HBONE: the server must be one of `accepted`, whatever its address. An empty set
/// accepts nobody.
///
/// # Errors
/// [`TlsError`] when the certificate cannot be presented.
pub fn hbone_client(
    svid: &Svid,
    accepted: Arc<BTreeSet<SpiffeId>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let trust = svid.trust().clone();
    let rule = ServerRule::Workload { trust, accepted };
    let mut config = client(believing(rule), Some(svid))?;
    // The byte path seals and opens records itself.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The control plane's port: presents its chain with the roots behind it, so that a joining
/// machine can find the pinned one; a client certificate is optional, and when given must name a
/// node or control plane of `trust_domain` (`spec/control-plane.md` §1.2).
///
/// # Errors
/// [`TlsError`] when the certificate cannot serve.
pub fn control_server(
    svid: &Svid,
    trust_domain: &TrustDomain,
) -> Result<Arc<ServerConfig>, TlsError> {
    let rule = ClientRule::NodeOrControl(trust_domain.clone());
    let trust = svid.trust().clone();
    let mut presented = svid.chain().to_vec();
    presented.extend_from_slice(trust.bundle().roots().certificates());
    let key = CertifiedKey::new(presented, Arc::clone(&svid.key().key));
    let key = SingleCertAndKey::from(key);
    let verifier = ClientVerifier { trust, rule };
    server(Arc::new(verifier), Arc::new(key)).map(Arc::new)
}

/// Towards a control plane: believes what `trust` does, the name dialled and a control identity;
/// presents `svid` when there is one.
///
/// # Errors
/// [`TlsError`] when the certificate cannot be presented.
pub fn control_client(svid: Option<&Svid>, trust: Trust) -> Result<Arc<ClientConfig>, TlsError> {
    client(believing(ServerRule::Control { trust }), svid).map(Arc::new)
}

/// Towards another's control plane: believes `roots` and the name dialled, and shows no certificate,
/// which such a one would take for more than it is (`spec/control-plane.md` §3.8).
///
/// # Errors
/// [`TlsError`] when the TLS stack refuses the settings.
pub fn named_client(roots: &Roots) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots.store();
    client(believing(ServerRule::Named { roots }), None).map(Arc::new)
}

/// Towards a control plane that a join token names: believes only a presented root with the
/// pinned key. `presented` holds what the server showed once the handshake has passed.
///
/// # Errors
/// [`TlsError`] when the TLS stack refuses the settings.
pub fn join_client(
    pin: [u8; 32],
    presented: Arc<OnceLock<Vec<CertificateDer<'static>>>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = presented;
    client(believing(ServerRule::Pinned { pin, chain }), None).map(Arc::new)
}

pub(super) fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    keys: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(keys);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.time_provider = Arc::new(Clock);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Our clock, by which certificates are in date or not.
#[derive(Debug)]
pub(super) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = clock::now().duration_since(SystemTime::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(since.ok()?))
    }
}

fn believing(rule: ServerRule) -> Arc<dyn ServerCertVerifier> {
    Arc::new(ServerVerifier { rule })
}

/// The name dialled is told in clear; an address never is (RFC 6066 §3), and tunnels go to addresses
/// unless several workloads share one (§1.1, DESIGN §7).
pub(super) fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    svid: Option<&Svid>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match svid {
        Some(svid) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(svid.key())))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.time_provider = Arc::new(Clock);
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustls::{ClientConnection, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::tls::testing::{Leaf, TestCa};
    use crate::tls::{Bundle, Grace, PeerRefused, spki_sha256};

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const CONTROL: &str = "spiffe://cluster.local/control/a";
    const NODE: &str = "spiffe://cluster.local/node/edge-1";

    /// Runs a handshake in memory; the first side to fail tells why.
    fn handshake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> Result<(), rustls::Error> {
        let name = ServerName::try_from("control.site").unwrap();
        let mut client = ClientConnection::new(client, name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut io::Cursor::new(wire)).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut io::Cursor::new(wire)).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn accept(ids: &[&str]) -> Arc<BTreeSet<SpiffeId>> {
        Arc::new(ids.iter().map(|id| id.parse().unwrap()).collect())
    }

    fn reason(outcome: Result<(), rustls::Error>) -> String {
        match outcome {
            Ok(()) => "accepted".to_owned(),
            Err(e) => match PeerRefused::of(&e) {
                Some(refused) => refused.to_string(),
                None => e.to_string(),
            },
        }
    }

    #[test]
    fn a_tunnel_server_judges_its_clients() {
        let mesh = TestCa::new();
        let other = TestCa::new();
        let server = Arc::clone(&hbone_server(&mesh.svid(CART)).unwrap().config);
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let expired = Leaf {
            not_before: now - 2 * hour,
            not_after: now - hour,
            ..Leaf::uris(&[WEB])
        };
        let future = Leaf {
            not_before: now + hour,
            not_after: now + 2 * hour,
            ..Leaf::uris(&[WEB])
        };
        let foreign = "spiffe://other.local/ns/shop/sa/web";
        for (name, svid, want) in [
            ("a workload of the mesh", mesh.svid(WEB), "accepted"),
            (
                "another trust domain",
                mesh.svid(foreign),
                "of another trust domain",
            ),
            (
                "a node is no workload",
                mesh.svid(NODE),
                "no workload identity",
            ),
            ("expired", mesh.svid_of(&expired), "expired"),
            ("not yet valid", mesh.svid_of(&future), "not valid yet"),
        ] {
            let client = hbone_client(&svid, accept(&[CART])).unwrap();
            let got = reason(handshake(client, Arc::clone(&server)));
            assert!(got.contains(want), "{name}: {got}");
        }
        let stranger = client(
            believing(ServerRule::Workload {
                trust: mesh.trust(),
                accepted: accept(&[CART]),
            }),
            Some(&other.svid(WEB)),
        );
        let got = reason(handshake(Arc::new(stranger.unwrap()), Arc::clone(&server)));
        assert!(got.contains("UnknownIssuer"), "another mesh's root: {got}");
        let nobody = ServerRule::Workload {
            trust: mesh.trust(),
            accepted: accept(&[CART]),
        };
        let nobody = client(believing(nobody), None).unwrap();
        let got = reason(handshake(Arc::new(nobody), server));
        assert!(got.contains("no certificates"), "no certificate: {got}");
    }

    #[test]
    fn identities_of_the_mesh_s_other_trust_domains_are_believed() {
        let mesh = TestCa::new();
        let trust = mesh.trust();
        let (chain, key) = mesh.leaf(&Leaf::uris(&[CART]));
        let cart = Svid::new(vec![chain], key, trust.clone()).unwrap();
        let server = Arc::clone(&hbone_server(&cart).unwrap().config);
        let foreign = mesh.svid("spiffe://old.example/ns/shop/sa/web");
        let meet = || {
            let client = hbone_client(&foreign, accept(&[CART])).unwrap();
            reason(handshake(client, Arc::clone(&server)))
        };
        assert!(meet().contains("of another trust domain"));
        let domains = ["cluster.local", "old.example"].map(|td| td.parse().unwrap());
        let bundle = Bundle::of_roots(mesh.roots()).unwrap();
        trust.replace(bundle.believing(domains.to_vec()));
        assert_eq!(meet(), "accepted");
    }

    #[test]
    fn a_certificate_with_two_uris_is_nobody() {
        let mesh = TestCa::new();
        let (chain, key) = mesh.leaf(&Leaf::uris(&[WEB, CART]));
        let outcome = Svid::new(vec![chain], key, mesh.trust());
        assert!(matches!(outcome, Err(crate::tls::SvidError::NoIdentity)));
    }

    #[test]
    fn a_tunnel_client_judges_its_server() {
        let mesh = TestCa::new();
        let server = Arc::clone(&hbone_server(&mesh.svid(CART)).unwrap().config);
        let web = mesh.svid(WEB);
        for (name, accepted, want) in [
            ("the one expected", accept(&[CART]), "accepted"),
            ("one of several", accept(&[WEB, CART]), "accepted"),
            (
                "another",
                accept(&[WEB]),
                "expected spiffe://cluster.local/ns/shop/sa/web",
            ),
            ("nobody is expected", accept(&[]), "the peer is"),
        ] {
            let client = hbone_client(&web, accepted).unwrap();
            let got = reason(handshake(client, Arc::clone(&server)));
            assert!(got.contains(want), "{name}: {got}");
        }
    }

    #[test]
    fn the_control_plane_and_its_clients_judge_each_other() {
        let mesh = TestCa::new();
        let leaf = Leaf {
            dns: &["control.site"],
            ..Leaf::uris(&[CONTROL])
        };
        let elsewhere = Leaf {
            dns: &["elsewhere.site"],
            ..Leaf::uris(&[CONTROL])
        };
        let imposter = Leaf {
            dns: &["control.site"],
            ..Leaf::uris(&[CART])
        };
        let td = TrustDomain::default();
        let node = mesh.svid(NODE);
        let cart = mesh.svid(CART);
        for (name, leaf, client, want) in [
            ("node", &leaf, Some(&node), "accepted"),
            ("no certificate", &leaf, None, "accepted"),
            (
                "a workload is no node",
                &leaf,
                Some(&cart),
                "no node identity",
            ),
            ("another name", &elsewhere, None, "not valid for name"),
            (
                "a workload is no control plane",
                &imposter,
                None,
                "no control plane identity",
            ),
        ] {
            let server = control_server(&mesh.svid_of(leaf), &td).unwrap();
            let client = control_client(client.map(|c| &**c), mesh.trust()).unwrap();
            let got = reason(handshake(client, server));
            assert!(got.contains(want), "{name}: {got}");
        }
    }

    #[test]
    fn an_expired_certificate_is_taken_while_its_grace_lasts_and_by_workloads_only() {
        let now = SystemTime::now();
        let ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
        let hour = Duration::from_secs(3600);
        for (name, lasts, alone, ended, taken) in [
            ("none is set", Duration::ZERO, Some(ago(40)), ago(30), false),
            ("nobody was there", hour, Some(ago(40)), ago(30), true),
            ("somebody is there", hour, None, ago(30), false),
            ("somebody was", hour, Some(ago(20)), ago(30), false),
            ("it is over", hour, Some(ago(90)), ago(61), false),
        ] {
            let mesh = TestCa::new();
            let trust = mesh.trust();
            trust.give(Grace { lasts, alone });
            let svid = |ids: &[&str], dns: &[&str], not_after| {
                let leaf = Leaf {
                    dns,
                    not_before: ago(120),
                    not_after,
                    ..Leaf::uris(ids)
                };
                let (chain, key) = mesh.leaf(&leaf);
                Svid::new(vec![chain], key, trust.clone()).unwrap()
            };
            let web = |ends| hbone_client(&svid(&[WEB], &[], ends), accept(&[CART])).unwrap();
            let cart = |ends| hbone_server(&svid(&[CART], &[], ends)).unwrap();
            let meet =
                |client, server: Arc<ServerSide>| handshake(client, Arc::clone(&server.config));
            let good = now + hour;
            for (side, outcome) in [
                ("client", meet(web(ended), cart(good))),
                ("server", meet(web(good), cart(ended))),
            ] {
                let got = reason(outcome);
                assert_eq!(got == "accepted", taken, "{name}, {side}: {got}");
                assert!(taken || got.contains("expired"), "{name}, {side}: {got}");
            }
            let td = TrustDomain::default();
            let control = svid(&[CONTROL], &["control.site"], good);
            let node = svid(&[NODE], &[], ended);
            let node = control_client(Some(&node), trust.clone()).unwrap();
            let got = reason(handshake(node, control_server(&control, &td).unwrap()));
            assert!(got.contains("expired"), "{name}, a node: {got}");
            let control = svid(&[CONTROL], &["control.site"], ended);
            let client = control_client(None, trust.clone()).unwrap();
            let got = reason(handshake(client, control_server(&control, &td).unwrap()));
            assert!(got.contains("expired"), "{name}, a control plane: {got}");
        }
    }

    #[test]
    fn a_revoked_certificate_is_refused_by_either_side() {
        let mesh = TestCa::new();
        let trust = mesh.trust();
        let (chain, key) = mesh.leaf(&Leaf::uris(&[WEB]));
        let web = Svid::new(vec![chain], key, trust.clone()).unwrap();
        let (chain, key) = mesh.leaf(&Leaf::uris(&[CART]));
        let cart = Svid::new(vec![chain], key, trust.clone()).unwrap();
        let client = hbone_client(&web, accept(&[CART])).unwrap();
        let server = Arc::clone(&hbone_server(&cart).unwrap().config);
        let meet = || reason(handshake(Arc::clone(&client), Arc::clone(&server)));
        assert_eq!(meet(), "accepted");
        for (number, revoked) in [(1, &web), (2, &cart)] {
            let crl = mesh.crl(number, &[&revoked.chain()[0]]);
            let then = SystemTime::UNIX_EPOCH;
            let bundle = Bundle::new(number, mesh.roots(), &[crl], then).unwrap();
            trust.replace(bundle);
            let got = meet();
            assert!(got.contains("Revoked"), "{number}: {got}");
        }
    }

    #[test]
    fn a_joining_machine_believes_the_pinned_root_only() {
        let mesh = TestCa::new();
        let imposter = TestCa::new();
        let leaf = Leaf {
            dns: &["control.site"],
            ..Leaf::uris(&[CONTROL])
        };
        let pin = spki_sha256(&mesh.root).unwrap();
        for (name, ca, want) in [
            ("the pinned root", &mesh, "accepted"),
            (
                "another root",
                &imposter,
                "another key than the join token pins",
            ),
        ] {
            let server = control_server(&ca.svid_of(&leaf), &TrustDomain::default()).unwrap();
            let presented = Arc::new(OnceLock::new());
            let client = join_client(pin, Arc::clone(&presented)).unwrap();
            let got = reason(handshake(client, server));
            assert!(got.contains(want), "{name}: {got}");
            assert_eq!(presented.get().is_some(), want == "accepted", "{name}");
        }
    }
}
