//! Bearer tokens: what names a node to us where a stock proxy, which cannot present a certificate,
//! speaks for it (`spec/control-plane.md` §1.3, §5). Signed as a JWT with ES256, each also a small
//! file here: one that is not on file is no token, whatever its signature.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use tonic::{Request, Status};
use tracing::warn;

use super::audit;
use super::caller::Caller;
use crate::clock::seconds;
use crate::files::{self, FileError};
use crate::hex::hex;
use crate::identity::{SpiffeId, TrustDomain};

/// Whom the tokens are for, as Istio's certificate authority calls itself.
const AUDIENCE: &str = "istio-ca";
/// Life where none is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest life.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// Makes and judges them.
pub struct Bearers {
    directory: PathBuf,
    issuer: String,
    trust_domain: TrustDomain,
    signing: EncodingKey,
    verifying: DecodingKey,
    known: Mutex<BTreeMap<String, Record>>,
}

/// What is kept of a token, which is not the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The node it names.
    pub node: Arc<str>,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// It has been taken back.
    pub revoked: bool,
}

impl Record {
    /// How it is, in a word.
    pub fn state(&self, now: SystemTime) -> &'static str {
        match self {
            Self { revoked: true, .. } => "revoked",
            Self { expires, .. } if *expires <= seconds(now) => "expired",
            _ => "valid",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    iat: u64,
    exp: u64,
}

/// Why there are no tokens to be had, or none more.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// A file did not read or write.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that does not read.
    #[error("{} is no key; move it away, and every bearer token is void", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// A record that does not read.
    #[error("{} is damaged; move it away, and its token is void", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("cannot make a key")]
    Make(#[from] rcgen::Error),
    /// The name is no node's.
    #[error("the node's name is not usable")]
    Name(#[from] crate::identity::IdentityError),
    /// The token could not be signed.
    #[error("cannot sign a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Why a token names nobody. All but the first are told alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its time is over.
    #[error("the bearer token has expired; make a new one with lateen token node")]
    Expired,
    /// It has been taken back.
    #[error("the bearer token is revoked")]
    Revoked,
    /// It is none of ours.
    #[error("this is no bearer token of this control plane")]
    Unknown,
}

impl Bearers {
    /// Opens what is kept in `state`, making a key where there is none.
    ///
    /// # Errors
    /// [`BearerError`] for anything there that does not read.
    pub fn open(
        state: &Path,
        epoch: [u8; 16],
        trust_domain: &TrustDomain,
    ) -> Result<Self, BearerError> {
        let directory = state.join("control/bearers");
        files::directory(&directory)?;
        let known = records(&directory)?;
        let path = state.join("control/bearer.key");
        if !known.is_empty() && !path.exists() {
            warn!(path = %path.display(), tokens = known.len(), "the key of bearer tokens is gone and is made anew: every token made before is void");
        }
        let key = key(&path)?;
        Ok(Self {
            known: Mutex::new(known),
            directory,
            issuer: hex(&epoch),
            trust_domain: trust_domain.clone(),
            signing: EncodingKey::from_ec_der(key.serialized_der()),
            verifying: DecodingKey::from_ec_der(key.public_key_raw()),
        })
    }

    /// Makes a token that names `node`.
    ///
    /// # Errors
    /// When it cannot be put on file.
    pub fn make(&self, node: &str, ttl: Duration, now: SystemTime) -> Result<String, BearerError> {
        let id = SpiffeId::node(&self.trust_domain, node)?;
        let iat = seconds(now);
        let random: [u8; 16] = rand::random();
        let record = Record {
            id: hex(&random),
            node: Arc::from(node),
            expires: iat + ttl.min(MAX_TTL).as_secs(),
            revoked: false,
        };
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: id.to_string(),
            jti: record.id.clone(),
            iat,
            exp: record.expires,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)?;
        self.keep(record)?;
        Ok(token)
    }

    /// All that were made and have not been forgotten, by id.
    pub fn list(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// Takes a token back. Whether there was one.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn revoke(&self, id: &str) -> Result<bool, BearerError> {
        let record = self.lock().get(id).cloned();
        let Some(record) = record else {
            return Ok(false);
        };
        self.keep(Record {
            revoked: true,
            ..record
        })?;
        Ok(true)
    }

    /// The node that a token names.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, token: &str, now: SystemTime) -> Result<Arc<str>, Refused> {
        self.judged(token, now).map(|record| record.node)
    }

    fn judged(&self, token: &str, now: SystemTime) -> Result<Record, Refused> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[&self.issuer]);
        // By our own clock, which tests can set.
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &rules);
        let claims = claims.map_err(|e| match e.kind() {
            ErrorKind::ExpiredSignature => Refused::Expired,
            _ => Refused::Unknown,
        })?;
        let claims = claims.claims;
        let record = self.lock().get(&claims.jti).cloned();
        let record = record.ok_or(Refused::Unknown)?;
        let id = SpiffeId::node(&self.trust_domain, &record.node);
        match id {
            Ok(id) if id.to_string() == claims.sub => {}
            _ => return Err(Refused::Unknown),
        }
        if record.revoked {
            return Err(Refused::Revoked);
        }
        if record.expires <= seconds(now) {
            return Err(Refused::Expired);
        }
        Ok(record)
    }

    /// Whether a token has been taken back since it was judged.
    pub fn is_revoked(&self, id: &str) -> bool {
        self.lock().get(id).is_none_or(|record| record.revoked)
    }

    /// Takes every token of a node back.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn revoke_node(&self, node: &str) -> Result<(), BearerError> {
        for record in self.list() {
            if *record.node == *node && !record.revoked {
                self.revoke(&record.id)?;
            }
        }
        Ok(())
    }

    /// Puts the node that a request's token names into its caller.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a token that names nobody, or another than the certificate beside it.
    pub fn authenticate(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(header) = request.metadata().get("authorization") else {
            return Ok(request);
        };
        let token = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer "));
        let judged = token.ok_or(Refused::Unknown);
        let judged = judged.and_then(|token| self.judged(token, SystemTime::now()));
        let Some(caller) = request.extensions_mut().get_mut::<Caller>() else {
            return Err(Status::internal("the caller of this request is not known"));
        };
        let refuse = |reason: &str| {
            audit::refused("bearer", &"-", &caller.address, reason);
            Status::unauthenticated(reason)
        };
        match judged {
            Ok(Record { node, .. }) if caller.node.as_ref().is_some_and(|c| *c != node) => {
                Err(refuse("certificate and bearer token name different nodes"))
            }
            Ok(Record {
                id, node, expires, ..
            }) => {
                caller.bearer = Some(node);
                caller.bearer_id = Some(Arc::from(id));
                caller.until(UNIX_EPOCH + Duration::from_secs(expires));
                Ok(request)
            }
            Err(refused) => Err(refuse(&refused.to_string())),
        }
    }

    fn keep(&self, record: Record) -> Result<(), FileError> {
        let path = self.directory.join(format!("{}.json", record.id));
        let text = serde_json::to_vec(&record).unwrap_or_default();
        files::write(&path, &text)?;
        self.lock().insert(record.id.clone(), record);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(path: &Path) -> Result<KeyPair, BearerError> {
    if let Some(der) = files::read_secret(path)? {
        return KeyPair::try_from(der).map_err(|_not_one| BearerError::Key {
            path: path.to_owned(),
        });
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    files::write(path, key.serialized_der())?;
    Ok(key)
}

fn records(directory: &Path) -> Result<BTreeMap<String, Record>, BearerError> {
    let failed = |source| FileError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let text = files::read(&path)?.unwrap_or_default();
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(_damaged) => return Err(BearerError::Record { path }),
        };
        // Nobody can use it any more, and the list would only grow.
        if record.expires + MAX_TTL.as_secs() < seconds(SystemTime::now()) {
            if let Err(e) = files::remove(&path) {
                warn!(error = %e, "an old bearer token's record is not removed");
            }
            continue;
        }
        records.insert(record.id.clone(), record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: [u8; 16] = [7; 16];

    fn bearers(dir: &Path) -> Bearers {
        Bearers::open(dir, EPOCH, &TrustDomain::default()).unwrap()
    }

    #[test]
    fn a_token_names_its_node_until_it_expires_or_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let control = bearers(dir.path());
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let token = control.make("edge-1", hour, now).unwrap();
        assert_eq!(control.judge(&token, now).as_deref(), Ok("edge-1"));
        assert_eq!(control.judge(&token, now + hour), Err(Refused::Expired));
        // Key and record outlive the process.
        let control = bearers(dir.path());
        assert_eq!(control.judge(&token, now).as_deref(), Ok("edge-1"));
        let id = control.list()[0].id.clone();
        assert!(control.revoke(&id).unwrap());
        assert_eq!(control.judge(&token, now), Err(Refused::Revoked));
        assert_eq!(
            bearers(dir.path()).judge(&token, now),
            Err(Refused::Revoked)
        );
        assert!(!control.revoke("another").unwrap());
    }

    #[test]
    fn what_is_none_of_ours_names_nobody() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (control, other) = (bearers(here.path()), bearers(there.path()));
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let ours = control.make("edge-1", hour, now).unwrap();
        let theirs = other.make("edge-1", hour, now).unwrap();
        let mut parts: Vec<&str> = ours.split('.').collect();
        let swapped = theirs.split('.').collect::<Vec<_>>();
        parts[1] = swapped[1];
        let mixed = parts.join(".");
        // alg "none", with our claims.
        let unsigned = format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
            ours.split('.').nth(1).unwrap()
        );
        for (name, token) in [
            ("another control plane's", theirs.as_str()),
            ("another's claims under our signature", &mixed),
            ("cut", &ours[..ours.len() - 4]),
            ("unsigned", &unsigned),
            ("nothing", ""),
            ("no token", "a.b.c"),
        ] {
            assert_eq!(control.judge(token, now), Err(Refused::Unknown), "{name}");
        }
        let moved = Bearers::open(here.path(), [8; 16], &TrustDomain::default()).unwrap();
        assert_eq!(
            moved.judge(&ours, now),
            Err(Refused::Unknown),
            "another mesh"
        );
        let renamed = Bearers::open(here.path(), EPOCH, &"other".parse().unwrap()).unwrap();
        assert_eq!(
            renamed.judge(&ours, now),
            Err(Refused::Unknown),
            "another trust domain"
        );
        fs::remove_dir_all(here.path().join("control/bearers")).unwrap();
        assert_eq!(
            bearers(here.path()).judge(&ours, now),
            Err(Refused::Unknown),
            "not on file"
        );
    }

    fn request(header: Option<&str>, certificate: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(header) = header {
            let value = header.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let node = certificate.map(|n| SpiffeId::node(&TrustDomain::default(), n).unwrap());
        let address = "192.0.2.1:1".parse().unwrap();
        let caller = Caller::new(node.as_ref(), None, address);
        request.extensions_mut().insert(caller);
        request
    }

    #[test]
    fn callers_are_told_apart_by_what_they_show() {
        let dir = tempfile::tempdir().unwrap();
        let control = bearers(dir.path());
        let token = control
            .make("edge-1", DEFAULT_TTL, SystemTime::now())
            .unwrap();
        let bearer = format!("Bearer {token}");
        for (name, header, certificate, want) in [
            ("nothing", None, None, Ok(None)),
            ("a certificate", None, Some("edge-1"), Ok(Some("edge-1"))),
            ("a token", Some(bearer.as_str()), None, Ok(Some("edge-1"))),
            ("both", Some(&bearer), Some("edge-1"), Ok(Some("edge-1"))),
            ("both, unlike", Some(&bearer), Some("edge-2"), Err(())),
            ("another scheme", Some("Basic eDp5"), None, Err(())),
            (
                "a bad token beside a good certificate",
                Some("Bearer x"),
                Some("edge-1"),
                Err(()),
            ),
        ] {
            let got = control.authenticate(request(header, certificate));
            let got = got.map(|r| Caller::of(&r).unwrap().named().ok().cloned());
            let got = got.map_err(|s| assert_eq!(s.code(), tonic::Code::Unauthenticated, "{name}"));
            assert_eq!(got, want.map(|n| n.map(Arc::from)), "{name}");
        }
    }
}
