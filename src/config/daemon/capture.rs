//! `[[capture]]`: which workloads run on this host, and how they are captured, where the control plane
//! is another's and does not say.

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::mesh::read_capture;
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::Capture;

/// A workload that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCapture {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name, as the control plane has it.
    pub name: Arc<str>,
    /// How it is captured.
    pub capture: Capture,
}

/// Reads every entry; `guest` says that the control plane does not place workloads.
pub(super) fn read(root: &Table<'_>, guest: bool) -> Vec<LocalCapture> {
    let Some(entries) = root.value("capture") else {
        return Vec::new();
    };
    let entries = entries.array_of_tables("capture");
    if let Some(first) = entries.first().filter(|_| !guest) {
        first.reject(
            Code::ConflictingKeys,
            "is for nodes whose control plane is not one of Lateen",
            "no use here",
            "write `capture` in the `[[workload]]` of the mesh files, or set `token-file` and `root-file` in `[control]`",
        );
    }
    let mut captures: Vec<LocalCapture> = Vec::new();
    for value in entries {
        let Some(entry) = entry(&value) else {
            continue;
        };
        let same =
            |other: &LocalCapture| other.namespace == entry.namespace && other.name == entry.name;
        if captures.iter().any(same) {
            value.reject(
                Code::DuplicateName,
                &format!("names `{}/{}` a second time", entry.namespace, entry.name),
                "twice",
                "keep one of them",
            );
        }
        captures.push(entry);
    }
    captures
}

fn entry(value: &Value<'_>) -> Option<LocalCapture> {
    let table = value.resource("capture")?;
    let namespace = table.required("namespace", "namespace = \"shop\"", scalar::label);
    let name = table.required("name", "name = \"cart-1\"", scalar::name);
    let capture = table.required("capture", "capture = { netns = \"cart-1\" }", read_capture);
    table.finish();
    Some(LocalCapture {
        namespace: namespace?.value,
        name: name?.value,
        capture: capture?,
    })
}
