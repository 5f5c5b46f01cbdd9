//! A node whose control plane is an istiod: it has not joined, shows no certificate, and is named by
//! a bearer token that somebody keeps fresh in a file (`spec/control-plane.md` §1.3, §3.8).

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls::ClientConfig;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tonic::metadata::{Ascii, MetadataValue};

use crate::files::{self, FileError};
use crate::model::compile::Placement;
use crate::model::declaration::Capture;
use crate::model::view::View;
use crate::tls::{Roots, SvidError, TlsError, named_client};
use crate::wire::LATEEN_VERSION;
use crate::wire::proto::discovery::Node;

/// Whom a token that does not say it is taken to be of: ztunnel's own account, which istiod lets
/// ask for others' certificates.
const ACCOUNT: (&str, &str) = ("istio-system", "ztunnel");

/// What such a node is told by `lateen.toml`.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The node's name, as the control plane's workloads name it.
    pub node: Arc<str>,
    /// The file with the bearer token; read for every RPC.
    pub token_file: PathBuf,
    /// The file with the roots of the control plane's certificate; read for every connection.
    pub root_file: PathBuf,
    /// The name in that certificate, where it is not the one dialled.
    pub server_name: Option<Arc<str>>,
    /// The cluster the token is of.
    pub cluster_id: Arc<str>,
    /// Which workloads are captured here, and how: such a control plane does not say.
    pub captures: Vec<LocalCapture>,
}

/// A workload of this host, as `lateen.toml` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCapture {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// How it is captured.
    pub capture: Capture,
}

/// Why a file that such a node stands on is no use.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not there.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It holds no token.
    #[error("{} holds no bearer token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// It holds no roots.
    #[error("{} holds no root certificates", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: SvidError,
    },
    /// No TLS settings could be made.
    #[error("cannot prepare TLS")]
    Tls(#[from] TlsError),
}

impl Guest {
    /// TLS towards the control plane, over the roots of this moment.
    pub(super) async fn tls(&self) -> Result<Arc<ClientConfig>, GuestError> {
        let pem = read(&self.root_file).await?;
        let roots = Roots::from_pem(&pem).map_err(|source| GuestError::Roots {
            path: self.root_file.clone(),
            source,
        })?;
        Ok(named_client(&roots)?)
    }

    /// The token of this moment; an editor's end of line is not part of it.
    pub(super) async fn token(&self) -> Result<String, GuestError> {
        let bytes = read(&self.token_file).await?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim();
        if token.is_empty() || header(token).is_none() {
            let path = self.token_file.clone();
            return Err(GuestError::Token { path });
        }
        Ok(token.to_owned())
    }

    /// The metadata of every RPC.
    pub(super) async fn credentials<T>(&self, message: T) -> Result<tonic::Request<T>, GuestError> {
        let token = self.token().await?;
        let mut request = tonic::Request::new(message);
        if let Some(bearer) = header(&token) {
            request.metadata_mut().insert("authorization", bearer);
        }
        if let Ok(cluster) = self.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        Ok(request)
    }

    /// Who it is in discovery: what a stock node proxy at the address `local` says, under the
    /// account that the token is of.
    pub(super) fn describe(&self, token: &str, local: Option<IpAddr>) -> Node {
        let (namespace, account) = account(token);
        let address = local.unwrap_or(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)));
        let node = &self.node;
        let fields = [
            ("NAME", node.to_string()),
            ("NAMESPACE", namespace.clone()),
            ("SERVICE_ACCOUNT", account),
            ("INSTANCE_IPS", address.to_string()),
            ("NODE_NAME", node.to_string()),
            ("CLUSTER_ID", self.cluster_id.to_string()),
            // A control plane of ours is told that policies may be ones that are only tried.
            (LATEEN_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let text = |(key, text): (&str, String)| {
            let kind = Some(Kind::StringValue(text));
            (key.to_owned(), Value { kind })
        };
        Node {
            id: format!("ztunnel~{address}~{node}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: String::new(),
            metadata: Some(Struct {
                fields: fields.into_iter().map(text).collect(),
            }),
        }
    }

    /// What tells what is kept on disk of this mesh from what is kept of another: such a control
    /// plane names no epoch, so its addresses do.
    pub(super) fn epoch(urls: &[String]) -> Vec<u8> {
        let hash = Sha256::digest(format!("guest\n{}", urls.join("\n")));
        hash.iter().take(16).copied().collect()
    }

    /// The workloads to capture: all that are named here, whether the view has them or not, or their
    /// traffic would go out plainly. One that it lacks keeps what was `known` of it; where that is
    /// nothing, it has a name that no control plane gives.
    pub(super) fn placements(&self, view: &View, known: &[Arc<Placement>]) -> Vec<Arc<Placement>> {
        let placed = |local: &LocalCapture| {
            let of = |namespace: &Arc<str>, name: &Arc<str>| {
                *namespace == local.namespace && *name == local.name
            };
            let own = view.workloads().filter(|w| w.node == self.node);
            let here = own.filter(|w| of(&w.namespace, &w.name));
            let here = here.min_by(|a, b| a.uid.cmp(&b.uid));
            let known = || known.iter().find(|p| of(&p.namespace, &p.name));
            let (uid, service_account) = match here {
                Some(w) => (Arc::clone(&w.uid), Arc::clone(&w.service_account)),
                None => known().map_or_else(
                    || (local.placeholder(), Arc::from("")),
                    |p| (Arc::clone(&p.uid), Arc::clone(&p.service_account)),
                ),
            };
            Arc::new(Placement {
                uid,
                name: Arc::clone(&local.name),
                namespace: Arc::clone(&local.namespace),
                service_account,
                enrolled: true,
                capture: Some(local.capture.clone()),
                health: None,
                dns_capture: None,
            })
        };
        let mut placements: Vec<_> = self.captures.iter().map(placed).collect();
        placements.sort_by(|a, b| a.uid.cmp(&b.uid));
        placements
    }
}

impl LocalCapture {
    fn placeholder(&self) -> Arc<str> {
        Arc::from(format!("lateen.toml/{}/{}", self.namespace, self.name))
    }
}

fn header(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn read(path: &Path) -> Result<Vec<u8>, GuestError> {
    let owned = path.to_owned();
    let missing = || GuestError::Missing {
        path: path.to_owned(),
    };
    let reading = tokio::task::spawn_blocking(move || files::read(&owned));
    let bytes = reading.await.map_err(|_stopping| missing())??;
    bytes.ok_or_else(missing)
}

/// Namespace and service account of a Kubernetes token. Nothing is believed on its account: the
/// control plane compares what we say with what it has verified.
fn account(token: &str) -> (String, String) {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = token.split('.').nth(1);
    let claims = claims.and_then(|c| URL_SAFE_NO_PAD.decode(c).ok());
    let claims = claims.and_then(|c| serde_json::from_slice::<Claims>(&c).ok());
    let subject = claims.map(|c| c.sub).unwrap_or_default();
    let named = subject.strip_prefix("system:serviceaccount:");
    let (namespace, account) = named.and_then(|n| n.split_once(':')).unwrap_or(ACCOUNT);
    (namespace.to_owned(), account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_token_names_its_account() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (name, token, want) in [
            (
                "a service account's",
                token(r#"{"sub":"system:serviceaccount:mesh:proxy"}"#),
                ("mesh", "proxy"),
            ),
            ("somebody else's", token(r#"{"sub":"alice"}"#), ACCOUNT),
            ("not a JWT", "opaque".to_owned(), ACCOUNT),
            ("not base64", "a.%.c".to_owned(), ACCOUNT),
        ] {
            let (namespace, account) = account(&token);
            assert_eq!((&*namespace, &*account), want, "{name}");
        }
    }

    #[tokio::test]
    async fn files_are_read_each_time_and_named_when_they_are_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest {
            node: Arc::from("edge-1"),
            token_file: dir.path().join("token"),
            root_file: dir.path().join("root.pem"),
            server_name: None,
            cluster_id: Arc::from("Kubernetes"),
            captures: Vec::new(),
        };
        for (name, content, want) in [
            ("missing", None, Err("token is missing")),
            ("empty", Some("\n"), Err("holds no bearer token")),
            ("binary", Some("a\u{7}b"), Err("holds no bearer token")),
            ("with an end of line", Some("abc\r\n"), Ok("Bearer abc")),
            ("another one", Some("def"), Ok("Bearer def")),
        ] {
            if let Some(content) = content {
                std::fs::write(&guest.token_file, content).unwrap();
            }
            match (guest.credentials(()).await, want) {
                (Ok(request), Ok(want)) => {
                    let sent = request.metadata();
                    assert_eq!(sent.get("authorization").unwrap(), want, "{name}");
                    assert_eq!(sent.get("clusterid").unwrap(), "Kubernetes", "{name}");
                }
                (Err(e), Err(want)) => assert!(e.to_string().contains(want), "{name}: {e}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
        let described = guest.describe("abc", None).metadata.unwrap().fields;
        assert!(
            described.contains_key(LATEEN_VERSION),
            "or dry runs would be withheld"
        );
        std::fs::write(&guest.root_file, "no PEM").unwrap();
        let refused = guest.tls().await.unwrap_err().to_string();
        assert!(refused.contains("root.pem holds no root"), "{refused}");
    }
}
