//! What a node keeps on disk to serve and enforce with no control plane in reach: the mesh as last
//! heard and its workloads' certificates (`spec/control-plane.md` §6.6–§6.7). All of it belongs to
//! one mesh, told by its epoch, and all of it can be had again: what is damaged is set aside.

pub(super) mod certs;
pub(super) mod view;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

/// Renames a damaged file so that it can be looked at, and says so.
fn set_aside(path: &Path, reason: &str) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(
        ".damaged-{}",
        since.unwrap_or_default().as_millis()
    ));
    let outcome = match fs::rename(path, &aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => format!("it cannot be renamed: {e}"),
        _ => format!("set aside as {}", Path::new(&aside).display()),
    };
    warn!(path = %path.display(), reason, outcome,
        "what was kept for a start without control plane is damaged and will be asked for again");
}
