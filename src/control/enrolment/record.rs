//! One small durable file for each token and each node.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::files::{self, FileError};

/// Keeps a record; it is durable when this returns.
pub(super) fn keep<T: Serialize>(path: &Path, record: &T) -> Result<(), FileError> {
    let json = serde_json::to_vec(record).map_err(|e| FileError::Write {
        path: path.to_owned(),
        source: e.into(),
    })?;
    files::write(path, &json)
}

/// Every record of a directory. One that does not read is set aside, named in the log: a damaged
/// token or node must join again, the others are not to suffer.
pub(super) fn records<T: for<'a> Deserialize<'a>>(directory: &Path) -> Result<Vec<T>, FileError> {
    files::directory(directory)?;
    let failed = |source| FileError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        if name.is_none_or(|n| n.starts_with('.') || n.contains(".damaged-")) {
            continue;
        }
        let content = files::read(&path)?.unwrap_or_default();
        match serde_json::from_slice(&content) {
            Ok(record) => records.push(record),
            Err(e) => {
                let aside = files::set_aside(&path, SystemTime::now()).map_err(failed)?;
                warn!(path = %path.display(), aside = %aside.display(), error = %e,
                    "damaged record set aside; what it was about must join again");
            }
        }
    }
    Ok(records)
}
