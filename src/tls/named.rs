//! Several workloads at one address: a client says by name whom it means, and meets that one (DESIGN §7,
//! `spec/control-plane.md` §11).

use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::config::{ServerSide, TlsError, workload_server};
use super::svid::Svid;
use crate::identity::SpiffeId;

/// How tunnels are accepted at an address that several workloads share.
#[derive(Debug)]
pub struct NamedServer {
    /// In the order given; never empty.
    svids: Vec<Arc<Svid>>,
    keys: Arc<Vec<Named>>,
    config: ServerConfig,
}

/// Who may be asked for.
#[derive(Debug)]
struct Named {
    name: Option<String>,
    id: SpiffeId,
    key: Arc<CertifiedKey>,
}

/// Whom the client of one connection has asked for by name.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<OnceLock<SpiffeId>>);

impl Asked {
    /// Nobody until the handshake is over, and none where the name was nobody's here or there was none.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.0.get()
    }
}

impl NamedServer {
    /// A server that is each of these, and the first to clients that ask for nobody here: stock ones
    /// name nobody at all. All must believe the same.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate cannot serve; `None` for no certificate.
    pub fn new(svids: Vec<Arc<Svid>>) -> Result<Option<Self>, TlsError> {
        let Some(first) = svids.first() else {
            return Ok(None);
        };
        let named = |svid: &Arc<Svid>| Named {
            name: svid.id().server_name(),
            id: svid.id().clone(),
            key: Arc::clone(svid.key()),
        };
        let keys = Arc::new(svids.iter().map(named).collect::<Vec<_>>());
        let resolver = Resolver {
            keys: Arc::clone(&keys),
            asked: Asked::default(),
        };
        let config = workload_server(first, Arc::new(resolver))?;
        Ok(Some(Self {
            svids,
            keys,
            config,
        }))
    }

    /// Whether these are the certificates it serves with.
    pub fn serves(&self, svids: &[Arc<Svid>]) -> bool {
        let (ours, theirs) = (self.svids.iter(), svids.iter());
        self.svids.len() == svids.len() && ours.zip(theirs).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// The settings of one connection, and what tells whom its client asks for.
    pub fn connection(&self) -> Option<(Arc<ServerSide>, Asked)> {
        let first = self.svids.first()?;
        let asked = Asked::default();
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(Resolver {
            keys: Arc::clone(&self.keys),
            asked: asked.clone(),
        });
        let side = ServerSide {
            config: Arc::new(config),
            trust: first.trust().clone(),
            trust_domain: first.id().trust_domain().clone(),
        };
        Some((Arc::new(side), asked))
    }
}

#[derive(Debug)]
struct Resolver {
    keys: Arc<Vec<Named>>,
    asked: Asked,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let found = asked.and_then(|asked| {
            let mut named = self.keys.iter();
            named.find(|named| named.name.as_deref() == Some(asked))
        });
        if let Some(found) = found {
            // A second hello of one handshake asks for the same.
            let _asked_again = self.asked.0.set(found.id.clone());
        }
        let presented = found.or_else(|| self.keys.first())?;
        Some(Arc::clone(&presented.key))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{ClientConnection, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::tls::testing::TestCa;
    use crate::tls::{hbone_client, peer_identity};

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const API: &str = "spiffe://cluster.local/ns/shop/sa/api";

    /// Who answers to a client that names `name` and believes either, and whom it has asked for.
    fn met(server: &NamedServer, ca: &TestCa, name: &str) -> (SpiffeId, Option<SpiffeId>) {
        let either = [CART, WEB].map(|id| id.parse().unwrap());
        let tls = hbone_client(&ca.svid(API), Arc::new(either.into())).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(tls, name).unwrap();
        let (side, asked) = server.connection().unwrap();
        let mut server = ServerConnection::new(Arc::clone(&side.config)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut io::Cursor::new(wire)).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut io::Cursor::new(wire)).unwrap();
            client.process_new_packets().unwrap();
        }
        let leaf = client.peer_certificates().unwrap().first().unwrap();
        (peer_identity(leaf).unwrap(), asked.identity().cloned())
    }

    #[test]
    fn a_client_meets_whom_it_names() {
        let ca = TestCa::new();
        let svids = [CART, WEB].map(|id| ca.svid(id)).to_vec();
        let server = NamedServer::new(svids.clone()).unwrap().unwrap();
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        for (case, name, want, asked) in [
            ("the first", "cart.shop.sa.cluster.local", CART, Some(CART)),
            ("the second", "web.shop.sa.cluster.local", WEB, Some(WEB)),
            ("in capitals", "WEB.shop.sa.CLUSTER.local", WEB, Some(WEB)),
            ("nobody here", "api.shop.sa.cluster.local", CART, None),
            ("another kind of name", "web.shop.mesh.internal", CART, None),
            ("an address, as stock peers", "10.77.0.11", CART, None),
        ] {
            let met = met(&server, &ca, name);
            assert_eq!(met, (id(want), asked.map(id)), "{case}");
        }
        assert!(server.serves(&svids));
        let renewed = vec![Arc::clone(&svids[0]), ca.svid(WEB)];
        assert!(!server.serves(&renewed) && !server.serves(&svids[..1]));
        assert!(NamedServer::new(Vec::new()).unwrap().is_none());
    }
}
