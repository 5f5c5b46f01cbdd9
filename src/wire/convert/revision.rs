//! `lateen.v1.Revision` and the digest it carries (`spec/control-plane.md` §2.6).

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sha2::{Digest, Sha256};

use super::{ConvertError, Fault, Reason};
use crate::wire::proto::lateen as proto;

/// The only resource name of type [`crate::wire::REVISION`].
pub const REVISION_NAME: &str = "mesh";

/// The only resource name of type [`crate::wire::TRUST`].
pub const TRUST_NAME: &str = "mesh";

/// Which revision the resources sent before it make up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSummary {
    /// The mesh's own random number, made with its CA.
    pub epoch: [u8; 16],
    /// Order across control planes, declared by the mesh directory; 0 for none.
    pub serial: u64,
    /// The sending control plane's own counter.
    pub number: u64,
    /// [`digest`] of its Address and Authorization resources.
    pub digest: [u8; 32],
    /// Where the mesh was read from, for people.
    pub source: String,
    /// When it was compiled, to the millisecond.
    pub compiled_at: SystemTime,
    /// How many resources of each of those two types there are, by type URL.
    pub totals: BTreeMap<String, u32>,
    /// How many warnings its compilation gave.
    pub warnings: u32,
    /// How long workloads' certificates are taken past their end while no control plane is there, to
    /// the millisecond.
    pub expired_grace: Duration,
    /// The suffix of service host names; empty from a control plane that does not tell it.
    pub domain: String,
}

/// SHA-256 over the lines `type-url name version`, each ended by a line feed, sorted by bytes.
///
/// `resources` may come in any order; names and versions contain neither space nor line feed.
pub fn digest<'a, V: Display>(
    resources: impl IntoIterator<Item = (&'a str, &'a str, V)>,
) -> [u8; 32] {
    let (mut text, mut lines) = (String::new(), Vec::new());
    for (url, name, version) in resources {
        let start = text.len();
        // Writing to a string does not fail.
        let _written = writeln!(text, "{url} {name} {version}");
        lines.push(start..text.len());
    }
    let line = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    if !lines.is_sorted_by(|a, b| line(a) <= line(b)) {
        lines.sort_unstable_by(|a, b| line(a).cmp(line(b)));
    }
    let mut sum = Sha256::new();
    for range in &lines {
        sum.update(line(range));
    }
    sum.finalize().into()
}

/// The `lateen.v1.Revision` that says it.
pub fn encode_revision(revision: &RevisionSummary) -> Vec<u8> {
    let since = revision.compiled_at.duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    let revision = proto::Revision {
        epoch: revision.epoch.to_vec(),
        serial: revision.serial,
        number: revision.number,
        digest: revision.digest.to_vec(),
        source: revision.source.clone(),
        compiled_at_ms: i64::try_from(millis).unwrap_or(i64::MAX),
        totals: revision.totals.clone(),
        warnings: revision.warnings,
        expired_grace_ms: u64::try_from(revision.expired_grace.as_millis()).unwrap_or(u64::MAX),
        domain: revision.domain.clone(),
    };
    revision.encode_to_vec()
}

/// Reads a `lateen.v1.Revision` sent under `name`.
///
/// # Errors
/// [`ConvertError`] when it does not decode, is not named [`REVISION_NAME`], or its epoch, digest
/// or time have no possible value.
pub fn decode_revision(name: &str, bytes: &[u8]) -> Result<RevisionSummary, ConvertError> {
    decode(name, bytes).map_err(|fault| fault.of(name))
}

fn decode(name: &str, bytes: &[u8]) -> Result<RevisionSummary, Fault> {
    let given = proto::Revision::decode(bytes)
        .map_err(|e| Fault::new("revision", Reason::Undecodable(e)))?;
    if name != REVISION_NAME {
        let own = REVISION_NAME.to_owned();
        return Err(Fault::new("name", Reason::OtherName(own)));
    }
    Ok(RevisionSummary {
        epoch: fixed("epoch", &given.epoch)?,
        serial: given.serial,
        number: given.number,
        digest: fixed("digest", &given.digest)?,
        source: given.source,
        compiled_at: time("compiled_at_ms", given.compiled_at_ms)?,
        totals: given.totals,
        warnings: given.warnings,
        expired_grace: Duration::from_millis(given.expired_grace_ms),
        domain: given.domain,
    })
}

fn fixed<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Fault> {
    let length = Reason::Length {
        found: bytes.len(),
        want: N,
    };
    <[u8; N]>::try_from(bytes).map_err(|_wrong| Fault::new(field, length))
}

fn time(field: &str, millis: i64) -> Result<SystemTime, Fault> {
    let since = u64::try_from(millis).ok().map(Duration::from_millis);
    since
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| Fault::new(field, Reason::Time(millis)))
}
