//! What a node keeps on disk to serve and enforce with no control plane in reach: the mesh as last
//! heard and its workloads' certificates (`spec/control-plane.md` §6.6–§6.7). All of it belongs to
//! one mesh, told by its epoch, and all of it can be had again: what is damaged is set aside.

pub(super) mod certs;
pub(super) mod clock;
pub(super) mod view;

use std::path::Path;
use std::time::SystemTime;

use tracing::warn;

use crate::files;

/// Puts a damaged file where it can be looked at, and says so.
pub(super) fn set_aside(path: &Path, reason: &str) {
    let aside = files::set_aside(path, SystemTime::now());
    warn!(path = %path.display(), reason, aside = ?aside,
        "what was kept for a start without control plane is damaged and will be asked for again");
}
