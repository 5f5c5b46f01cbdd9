//! Which machines may join and which have: join tokens and enrolled nodes, each a small durable
//! file (`spec/control-plane.md` §6.1–§6.3).
//!
//! A token is spent before anything is signed. The same machine asking again with the same key
//! within ten minutes gets its answer again, since the first may have been lost on the way.

mod record;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::seconds;
use crate::files::FileError;
use crate::identity::token::Token;

use record::{keep, records};
pub use refusal::EnrolError;

/// Life of a token unless another is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);
/// Longest life of a token.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far a certificate is dated back at most, and clocks of one control plane may jump.
const FORMER: Duration = Duration::from_secs(300);
/// How long a spent token answers the same key again.
const REPEAT: Duration = Duration::from_secs(600);

/// A token as the control plane remembers it: the secret only as a hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenRecord {
    /// Its id.
    pub id: String,
    /// The node it is for.
    pub node: Arc<str>,
    secret_sha256: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// Whether it may replace a node that is enrolled already.
    pub replace: bool,
    /// Whether an operator took it back.
    pub revoked: bool,
    redeemed: Option<Redeemed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Redeemed {
    spki: [u8; 32],
    at: u64,
    /// Of the certificate that it was given for.
    generation: u64,
    /// Another machine had the name.
    replaces: bool,
}

impl TokenRecord {
    /// `unused`, `used`, `revoked` or `expired`.
    pub fn state(&self, now: SystemTime) -> &'static str {
        match self {
            Self { revoked: true, .. } => "revoked",
            Self {
                redeemed: Some(_), ..
            } => "used",
            Self { expires, .. } if seconds(now) >= *expires => "expired",
            _ => "unused",
        }
    }
}

/// A machine that has joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeRecord {
    /// Its name.
    pub name: Arc<str>,
    /// How many certificates it has been given.
    pub generation: u64,
    /// When it joined, in seconds since 1970.
    pub joined: u64,
    /// When its certificate expires, in seconds since 1970.
    pub expires: u64,
    current: [u8; 32],
    previous: Option<[u8; 32]>,
    /// Whether the current certificate has been seen in use.
    confirmed: bool,
    /// Whether two machines seem to hold this identity.
    pub frozen: bool,
    /// Whether an operator shut it out.
    #[serde(default)]
    pub revoked: bool,
    /// When it was last given a certificate, in seconds since 1970.
    #[serde(default)]
    pub renewed: u64,
}

impl NodeRecord {
    /// Why it may not speak as itself, whatever it shows.
    fn shut_out(&self) -> Option<EnrolError> {
        let node = self.name.to_string();
        match self {
            Self { revoked: true, .. } => Some(EnrolError::NodeRevoked { node }),
            Self { frozen: true, .. } => Some(EnrolError::CloneSuspected { node }),
            _ => None,
        }
    }
}

/// A machine that asks to join.
#[derive(Debug)]
pub struct Joining<'a> {
    /// The token's id.
    pub token: &'a str,
    /// The token's secret.
    pub secret: &'a [u8],
    /// The name it wants.
    pub node: &'a str,
    /// SHA-256 of its key.
    pub spki: [u8; 32],
    /// Whether the mesh files know the name.
    pub declared: bool,
}

/// A node's certificate, as it shows it.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// SHA-256 of its key.
    pub spki: [u8; 32],
    /// When it was made, dated back as certificates are.
    pub made: SystemTime,
}

/// What a machine that was let in may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation of its certificate.
    pub generation: u64,
    /// It takes the place of another machine, whose certificates are to be void.
    pub replaces: bool,
}

/// Tokens and nodes of one mesh.
#[derive(Debug)]
pub struct Enrolment {
    tokens: PathBuf,
    nodes: PathBuf,
    /// Held by who decides, until what is decided is on disk: decisions are rare and must not overlap.
    deciding: Mutex<()>,
    /// What is decided. Never held while the disk is at work, since every request asks it.
    state: Mutex<State>,
    /// Told when there is something in [`State::seen`].
    unsaved: Notify,
}

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<String, TokenRecord>,
    nodes: BTreeMap<Arc<str>, NodeRecord>,
    /// Nodes whose current certificate has been seen in use, which is not on disk yet.
    seen: BTreeSet<Arc<str>>,
}

impl Enrolment {
    /// Opens what is kept in `state`.
    ///
    /// # Errors
    /// [`FileError`] for a directory or file that does not read.
    pub fn open(state: &Path) -> Result<Self, FileError> {
        let tokens = state.join("control/tokens");
        let nodes = state.join("control/nodes");
        let mut known = State::default();
        for record in records::<TokenRecord>(&tokens)? {
            known.tokens.insert(record.id.clone(), record);
        }
        for record in records::<NodeRecord>(&nodes)? {
            known.nodes.insert(Arc::clone(&record.name), record);
        }
        Ok(Self {
            tokens,
            nodes,
            deciding: Mutex::default(),
            state: Mutex::new(known),
            unsaved: Notify::new(),
        })
    }

    /// Makes a token for a node of the mesh. Blocks on the disk, as all that decides does.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn create(
        &self,
        node: &str,
        ttl: Duration,
        replace: bool,
        pin: [u8; 32],
        now: SystemTime,
    ) -> Result<Token, EnrolError> {
        let token = Token::new(pin);
        let created = seconds(now);
        let record = TokenRecord {
            id: token.id.clone(),
            node: Arc::from(node),
            secret_sha256: Sha256::digest(token.secret).into(),
            created,
            expires: created + ttl.min(MAX_TTL).as_secs(),
            replace,
            revoked: false,
            redeemed: None,
        };
        let _alone = self.decide();
        self.keep_token(record)?;
        Ok(token)
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> Vec<TokenRecord> {
        self.lock().tokens.values().cloned().collect()
    }

    /// All nodes that have joined, by name.
    pub fn nodes(&self) -> Vec<NodeRecord> {
        self.lock().nodes.values().cloned().collect()
    }

    /// Takes a token back. Whether there was one.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn revoke(&self, id: &str) -> Result<bool, EnrolError> {
        let _alone = self.decide();
        let Some(record) = self.lock().tokens.get(id).cloned() else {
            return Ok(false);
        };
        self.keep_token(TokenRecord {
            revoked: true,
            ..record
        })?;
        Ok(true)
    }

    /// Spends a token for a machine, and tells what it may now have.
    ///
    /// # Errors
    /// [`EnrolError`], by the row that refuses it.
    pub fn join(&self, ask: &Joining<'_>, now: SystemTime) -> Result<Joined, EnrolError> {
        let _alone = self.decide();
        let record = self.judge(ask, now)?;
        let known = self.node(ask.node);
        let known = known.as_ref();
        let redeemed = match &record.redeemed {
            // The machine asks again: its answer may be lost, or may never have been made.
            Some(redeemed) => {
                let has = known.map_or(0, |n| n.generation);
                if let Some(node) = known.filter(|_| has >= redeemed.generation) {
                    return again(node, redeemed, ask, now);
                }
                redeemed.clone()
            }
            None => {
                let live = |n: &NodeRecord| n.expires > seconds(now) || n.shut_out().is_some();
                let enrolled = known.is_some_and(|n| live(n) && n.current != ask.spki);
                if enrolled && !record.replace {
                    let node = ask.node.to_owned();
                    return Err(EnrolError::NodeEnrolled { node });
                }
                Redeemed {
                    spki: ask.spki,
                    at: seconds(now),
                    generation: known.map_or(0, |n| n.generation) + 1,
                    replaces: known.is_some(),
                }
            }
        };
        let spent = TokenRecord {
            redeemed: Some(redeemed.clone()),
            ..record
        };
        self.keep_token(spent)?;
        self.keep_node(NodeRecord {
            name: Arc::from(ask.node),
            generation: redeemed.generation,
            joined: seconds(now),
            expires: seconds(now) + super::ca::NODE_TTL.as_secs(),
            current: ask.spki,
            previous: None,
            confirmed: false,
            frozen: false,
            revoked: false,
            renewed: seconds(now),
        })?;
        Ok(Joined {
            generation: redeemed.generation,
            replaces: redeemed.replaces,
        })
    }

    fn judge(&self, ask: &Joining<'_>, now: SystemTime) -> Result<TokenRecord, EnrolError> {
        let hash: [u8; 32] = Sha256::digest(ask.secret).into();
        let record = self.lock().tokens.get(ask.token).cloned();
        // Hashes are compared, so the time this takes tells nothing of the secret.
        let record = record.filter(|r| r.secret_sha256 == hash);
        let record = record.ok_or(EnrolError::TokenUnknown)?;
        if record.revoked {
            return Err(EnrolError::TokenRevoked);
        }
        if &*record.node != ask.node {
            return Err(EnrolError::TokenWrongNode {
                node: Arc::clone(&record.node),
                asked: ask.node.to_owned(),
            });
        }
        if let Some(redeemed) = &record.redeemed {
            let ago = seconds(now).saturating_sub(redeemed.at);
            if redeemed.spki != ask.spki || ago > REPEAT.as_secs() {
                return Err(EnrolError::TokenUsed { ago });
            }
        } else if seconds(now) >= record.expires {
            return Err(EnrolError::TokenExpired);
        }
        if !ask.declared {
            let node = ask.node.to_owned();
            return Err(EnrolError::NodeUnknown { node });
        }
        Ok(record)
    }

    /// Lets a node replace its certificate; the generation of the new one. `presented` is the
    /// certificate whose key it proved, `wanted` the key of the request.
    ///
    /// # Errors
    /// [`EnrolError::CloneSuspected`] when the key presented had been replaced and its successor
    /// was used (§6.3); the node is then frozen.
    pub fn renew(
        &self,
        node: &str,
        presented: Presented,
        wanted: [u8; 32],
        now: SystemTime,
    ) -> Result<u64, EnrolError> {
        let _alone = self.decide();
        let record = self.node(node).ok_or_else(|| EnrolError::NotEnrolled {
            node: node.to_owned(),
        })?;
        if record.revoked {
            let node = node.to_owned();
            return Err(EnrolError::NodeRevoked { node });
        }
        let key = presented.spki;
        let current = key == record.current;
        let unconfirmed = record.previous == Some(key) && !record.confirmed;
        // The machine that had the name before, back from the shelf: no clone, only too late.
        let former = seconds(presented.made) + FORMER.as_secs() < record.joined;
        if former && !current && !unconfirmed {
            let node = node.to_owned();
            return Err(EnrolError::Superseded { node });
        }
        if record.frozen || !(current || unconfirmed) {
            self.keep_node(NodeRecord {
                frozen: true,
                ..record
            })?;
            let node = node.to_owned();
            return Err(EnrolError::CloneSuspected { node });
        }
        let generation = record.generation + 1;
        self.keep_node(NodeRecord {
            generation,
            expires: seconds(now) + super::ca::NODE_TTL.as_secs(),
            renewed: seconds(now),
            previous: Some(key),
            current: wanted,
            confirmed: false,
            ..record
        })?;
        Ok(generation)
    }

    /// Whether a node may speak as itself with this key; notes that its current key is in use, which
    /// [`Enrolment::run`] puts on disk.
    ///
    /// # Errors
    /// [`EnrolError`], by the reason why not.
    pub fn admit(&self, node: &str, presented: [u8; 32]) -> Result<(), EnrolError> {
        let mut state = self.lock();
        let State { nodes, seen, .. } = &mut *state;
        let Some(record) = nodes.get_mut(node) else {
            let node = node.to_owned();
            return Err(EnrolError::NotEnrolled { node });
        };
        if let Some(shut_out) = record.shut_out() {
            return Err(shut_out);
        }
        if presented == record.current && !record.confirmed {
            record.confirmed = true;
            seen.insert(Arc::clone(&record.name));
            self.unsaved.notify_one();
        }
        let replaced = record.previous == Some(presented) && !record.confirmed;
        if presented == record.current || replaced {
            return Ok(());
        }
        let node = node.to_owned();
        Err(EnrolError::Superseded { node })
    }

    /// Puts on disk, until `shutdown`, which certificates have been seen in use. Should that be lost,
    /// only the clone check is weaker until they are used again.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while shutdown
            .run_until_cancelled(self.unsaved.notified())
            .await
            .is_some()
        {
            self.saved().await;
        }
        self.saved().await;
    }

    async fn saved(self: &Arc<Self>) {
        let enrolment = Arc::clone(self);
        if let Err(e) = tokio::task::spawn_blocking(move || enrolment.save_seen()).await {
            warn!(error = %e, "noting the use of node certificates died");
        }
    }

    fn save_seen(&self) {
        let _alone = self.decide();
        let seen = std::mem::take(&mut self.lock().seen);
        for node in seen {
            let Some(record) = self.node(&node) else {
                continue;
            };
            if let Err(e) = self.write_node(&record) {
                warn!(error = %e, %node, "use of a node certificate not noted");
                self.lock().seen.insert(node);
            }
        }
    }

    /// Shuts a node out until it joins anew. Whether there was one.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn revoke_node(&self, node: &str) -> Result<bool, EnrolError> {
        let known = self.amend(node, |record| record.revoked = true)?;
        // Its tokens too, or one that was made before would let it in again.
        let tokens = self.tokens().into_iter();
        for token in tokens.filter(|t| *t.node == *node && !t.revoked) {
            self.revoke(&token.id)?;
        }
        Ok(known)
    }

    /// Whether a machine has joined under this name.
    pub fn knows(&self, node: &str) -> bool {
        self.lock().nodes.contains_key(node)
    }

    /// Lets a frozen node go on with the certificate it was last given. Whether there was one.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn approve(&self, node: &str) -> Result<bool, EnrolError> {
        self.amend(node, |record| record.frozen = false)
    }

    fn amend(&self, node: &str, change: impl FnOnce(&mut NodeRecord)) -> Result<bool, EnrolError> {
        let _alone = self.decide();
        let Some(mut record) = self.node(node) else {
            return Ok(false);
        };
        change(&mut record);
        self.keep_node(record)?;
        Ok(true)
    }

    fn node(&self, name: &str) -> Option<NodeRecord> {
        self.lock().nodes.get(name).cloned()
    }

    fn keep_token(&self, record: TokenRecord) -> Result<(), FileError> {
        keep(&self.tokens.join(&record.id), &record)?;
        self.lock().tokens.insert(record.id.clone(), record);
        Ok(())
    }

    fn keep_node(&self, mut record: NodeRecord) -> Result<(), FileError> {
        self.write_node(&record)?;
        let mut state = self.lock();
        // Its certificate may have been seen in use while the disk was at work.
        let known = state.nodes.get(&record.name);
        record.confirmed |= known.is_some_and(|k| k.confirmed && k.generation == record.generation);
        state.nodes.insert(Arc::clone(&record.name), record);
        Ok(())
    }

    fn write_node(&self, record: &NodeRecord) -> Result<(), FileError> {
        keep(&self.nodes.join(&*record.name), record)
    }

    fn decide(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a machine that repeats itself, as long as nothing else has become of its node.
fn again(
    node: &NodeRecord,
    redeemed: &Redeemed,
    ask: &Joining<'_>,
    now: SystemTime,
) -> Result<Joined, EnrolError> {
    if let Some(shut_out) = node.shut_out() {
        return Err(shut_out);
    }
    let same = node.generation == redeemed.generation && node.current == ask.spki;
    if !same || node.previous.is_some() {
        let ago = seconds(now).saturating_sub(redeemed.at);
        return Err(EnrolError::TokenUsed { ago });
    }
    Ok(Joined {
        generation: node.generation,
        // Once the new machine speaks as the node, what is issued to the node is its own.
        replaces: redeemed.replaces && !node.confirmed,
    })
}

#[cfg(test)]
mod tests;
