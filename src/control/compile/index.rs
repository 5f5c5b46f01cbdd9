//! One line per published revision, in the store.

use std::error::Error;
use std::time::UNIX_EPOCH;

use serde_json::json;
use tracing::warn;

use crate::control::store::{Store, StoreError, Tree};
use crate::hex::hex;
use crate::wire::convert::RevisionSummary;

/// How many revisions are listed.
const LISTED: usize = 100;

/// The highest number listed; 0 for none.
pub(super) fn last(store: &dyn Store) -> u64 {
    let entries = store.entries(Tree::RevisionIndex).unwrap_or_default();
    let number = |(key, _): &(Vec<u8>, Vec<u8>)| <[u8; 8]>::try_from(key.as_slice()).ok();
    entries
        .iter()
        .rev()
        .find_map(number)
        .map_or(0, u64::from_be_bytes)
}

/// Lists a revision. That it may fail is in the nature of the store, and costs nothing but the line.
pub(super) fn note(store: &dyn Store, summary: &RevisionSummary) {
    if let Err(e) = try_note(store, summary) {
        warn!(
            error = &e as &dyn Error,
            "cannot list the revision in the store"
        );
    }
}

fn try_note(store: &dyn Store, summary: &RevisionSummary) -> Result<(), StoreError> {
    let digest = hex(&summary.digest);
    let since = summary
        .compiled_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let line = json!({
        "serial": summary.serial,
        "digest": digest,
        "source": summary.source,
        "compiled_at": since.as_secs(),
        "warnings": summary.warnings,
    });
    let key = summary.number.to_be_bytes();
    store.put(Tree::RevisionIndex, &key, line.to_string().as_bytes())?;
    let entries = store.entries(Tree::RevisionIndex)?;
    let excess = entries.len().saturating_sub(LISTED);
    for (key, _) in entries.iter().take(excess) {
        store.remove(Tree::RevisionIndex, key)?;
    }
    Ok(())
}
