//! Revisions: the whole mesh at one moment, encoded once for everyone.
//!
//! A [`Revision`] is immutable. Names and versions are content (`spec/control-plane.md` §3.2–3.3),
//! so two control planes that read the same files offer the same resources, and a resource that did
//! not change is the same memory in the next revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::history::{Changes, History, Names};
use crate::model::compile::Compiled;
use crate::wire::convert::{self, RevisionSummary, delta};
use crate::wire::{ADDRESS, AUTHORIZATION, PLACEMENT, REVISION, TRUST, WAYPOINT};

mod content;

pub use content::{Content, Expected};

/// A type of resource this control plane serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whom to believe.
    Trust,
    /// Workloads and services.
    Address,
    /// L4 policies.
    Authorization,
    /// How the asking node captures its own workloads.
    Placement,
    /// What the asking node's waypoints are told.
    Waypoint,
    /// Which revision the rest makes up.
    Revision,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Trust,
        Self::Address,
        Self::Authorization,
        Self::Placement,
        Self::Waypoint,
        Self::Revision,
    ];

    /// The kind with this type URL; none when it is not served.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.type_url() == type_url)
    }

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Address => "address",
            Self::Authorization => "authorization",
            Self::Placement => "placement",
            Self::Waypoint => "waypoint",
            Self::Revision => "revision",
        }
    }

    /// Its type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Trust => TRUST,
            Self::Address => ADDRESS,
            Self::Authorization => AUTHORIZATION,
            Self::Placement => PLACEMENT,
            Self::Waypoint => WAYPOINT,
            Self::Revision => REVISION,
        }
    }
}

/// A content hash, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// The hash of an encoded resource and of what its readers derive beyond it.
    fn of(encoded: &[u8], derived: &[u8]) -> Self {
        let mut sum = Sha256::new();
        // The length keeps the two parts apart.
        sum.update((encoded.len() as u64).to_be_bytes());
        sum.update(encoded);
        sum.update(derived);
        let digest: [u8; 32] = sum.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One resource, ready to be sent.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Version,
    /// The encoded discovery `Resource`: name, version, aliases and content.
    pub encoded: Bytes,
    /// The node the workload it describes runs on; empty for everything else.
    pub node: Arc<str>,
    /// Other names it can be found by. Those of workloads on their host's network are only told,
    /// not in here: such an address is not the workload's own.
    pub lookup: Vec<String>,
    /// The services the workload it describes belongs to, by resource name, whether they exist or
    /// not; none for everything else.
    pub services: Vec<Arc<str>>,
}

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

static NONE: Resources = Resources::new();

/// The whole mesh at one moment.
#[derive(Debug)]
pub struct Revision {
    summary: RevisionSummary,
    content: Content,
    /// The one resource of type [`Kind::Revision`].
    announcement: Resources,
    /// Bytes of all addresses and policies as they are sent.
    size: usize,
    history: History,
    /// The first revision with the trust bundle that this one has.
    trust_since: u64,
    aliases: OnceLock<BTreeMap<String, Vec<Arc<str>>>>,
    endpoints: OnceLock<BTreeMap<Arc<str>, Vec<Arc<str>>>>,
}

/// What a revision is called and where it comes from: its summary without what follows from its
/// content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The mesh's own random number.
    pub epoch: [u8; 16],
    /// Order across control planes, 0 for none.
    pub serial: u64,
    /// This control plane's counter; higher than any before.
    pub number: u64,
    /// Where the mesh was read from, for people.
    pub source: String,
    /// When.
    pub compiled_at: std::time::SystemTime,
    /// How many warnings there were.
    pub warnings: u32,
    /// How long certificates are taken past their end while no control plane is there.
    pub expired_grace: std::time::Duration,
    /// The suffix of service host names.
    pub domain: String,
}

impl Revision {
    /// A revision of `content` that follows `previous`.
    pub fn new(title: Title, content: Content, previous: Option<&Self>) -> Self {
        let summary = RevisionSummary {
            digest: content.digest(),
            totals: content.totals(),
            epoch: title.epoch,
            serial: title.serial,
            number: title.number,
            source: title.source,
            compiled_at: title.compiled_at,
            warnings: title.warnings,
            expired_grace: title.expired_grace,
            domain: title.domain,
        };
        let history = previous.map(|previous| {
            let changes = previous.content.changes_to(&content);
            let from = previous.summary.number;
            let history = &previous.history;
            history.followed_by(from, summary.compiled_at, changes)
        });
        let same = previous.filter(|p| !content.trust_differs(&p.content));
        Self {
            trust_since: same.map_or(summary.number, |p| p.trust_since),
            announcement: announcement(&summary),
            size: content.size(),
            history: history.unwrap_or_default(),
            aliases: OnceLock::new(),
            endpoints: OnceLock::new(),
            summary,
            content,
        }
    }

    /// What it is called and where it comes from.
    pub fn title(&self) -> Title {
        Title {
            epoch: self.summary.epoch,
            serial: self.summary.serial,
            number: self.summary.number,
            source: self.summary.source.clone(),
            compiled_at: self.summary.compiled_at,
            warnings: self.summary.warnings,
            expired_grace: self.summary.expired_grace,
            domain: self.summary.domain.clone(),
        }
    }

    /// What it is, in short.
    pub fn summary(&self) -> &RevisionSummary {
        &self.summary
    }

    /// This control plane's number of it.
    pub fn number(&self) -> u64 {
        self.summary.number
    }

    /// The number of the first revision that had the trust bundle of this one: a node that
    /// acknowledged it has the bundle.
    pub fn trust_since(&self) -> u64 {
        self.trust_since
    }

    /// How many bytes a client is sent that has none of it.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What is in it.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// `<epoch, 8 hex>/<serial>/<number>` (§3.3).
    pub fn version_info(&self) -> String {
        let [a, b, c, d, ..] = self.summary.epoch;
        let epoch = u32::from_be_bytes([a, b, c, d]);
        format!("{epoch:08x}/{}/{}", self.summary.serial, self.number())
    }

    /// Whether the mesh files declare the node.
    pub fn knows(&self, node: &str) -> bool {
        self.content.placements.contains_key(node)
    }

    /// Whether a workload placed on `node`, or a waypoint there, runs as that service account: what a
    /// node may have certificates for (§4.3).
    pub fn runs(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let placed = self.content.placements.get(node);
        placed.is_some_and(|placed| {
            let mut all = placed.identities.iter();
            all.any(|(ns, sa)| &**ns == namespace && &**sa == service_account)
        })
    }

    /// Namespace and service account of everything that runs on `node`.
    pub fn identities(&self, node: &str) -> impl Iterator<Item = (&str, &str)> {
        let placed = self.content.placements.get(node);
        let all = placed.into_iter().flat_map(|placed| &placed.identities);
        all.map(|(namespace, account)| (&**namespace, &**account))
    }

    /// What `node` is to report of a workload or a waypoint; none when that is not placed on it.
    pub fn expects(&self, node: &str, uid: &str) -> Option<Expected> {
        self.content
            .placements
            .get(node)?
            .expected
            .get(uid)
            .copied()
    }

    /// Whether the mesh files declare the workload, wherever it is.
    pub fn declares(&self, uid: &str) -> bool {
        self.content.addresses.contains_key(uid)
    }

    /// Whether the node is to report: it is declared, and the proxy it runs is ours.
    pub fn hears(&self, node: &str) -> bool {
        self.knows(node) && !self.content.mute.contains(node)
    }

    /// All resources of a type, as `node` sees them.
    pub fn resources(&self, kind: Kind, node: &str) -> &Resources {
        match kind {
            Kind::Trust => &self.content.trust,
            Kind::Address => &self.content.addresses,
            Kind::Authorization => &self.content.authorizations,
            Kind::Placement => {
                let placed = self.content.placements.get(node);
                placed.map_or(&NONE, |placed| &placed.resources)
            }
            Kind::Waypoint => {
                let told = self.content.told.by_node.get(node);
                told.map_or(&NONE, |told| &**told)
            }
            Kind::Revision => &self.announcement,
        }
    }

    /// The policies without those that are only tried.
    pub fn enforced(&self) -> &Resources {
        let enforced = self.content.enforced.as_ref();
        enforced.unwrap_or(&self.content.authorizations)
    }

    /// Names of the resources an alias such as `/10.0.0.1` stands for.
    pub fn by_alias(&self, alias: &str) -> &[Arc<str>] {
        let aliases = self.aliases.get_or_init(|| self.content.aliases());
        aliases.get(alias).map_or(&[], Vec::as_slice)
    }

    /// Names of the workloads that belong to the service of this resource name.
    pub fn endpoints(&self, service: &str) -> &[Arc<str>] {
        let endpoints = self.endpoints.get_or_init(|| self.content.endpoints());
        endpoints.get(service).map_or(&[], Vec::as_slice)
    }

    /// What changed since revision `number`, oldest first; none when that is not remembered.
    pub fn changes_since(&self, number: u64) -> Option<impl Iterator<Item = &Changes>> {
        self.history.since(number)
    }
}

fn announcement(summary: &RevisionSummary) -> Resources {
    let body = convert::encode_revision(summary);
    let name = convert::REVISION_NAME;
    let resource = resource(
        Kind::Revision,
        name,
        Version::of(&body, &[]),
        Vec::new(),
        body,
    );
    [(resource.name.clone(), Arc::new(resource))].into()
}

fn resource(
    kind: Kind,
    name: &str,
    version: Version,
    aliases: Vec<String>,
    body: Vec<u8>,
) -> Resource {
    let text = version.to_string();
    Resource {
        name: Arc::from(name),
        version,
        encoded: delta::encode_resource(kind.type_url(), name, &text, aliases, body),
        node: Arc::default(),
        lookup: Vec::new(),
        services: Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
