//! What the files of a mesh directory mean together: every check across resources, then the
//! declaration with all defaults filled in.
//!
//! Each check is linear in the number of resources, or nearly so, and makes nothing while all is
//! well: a directory of 100,000 workloads is judged as a whole at every change.

mod addresses;
mod declare;
mod enrolment;
mod names;
mod probes;
mod references;

use std::collections::HashMap;
use std::sync::Arc;

use super::diagnose::{Code, Diagnostic};
use super::mesh::{Written, WrittenNamespace, WrittenNode, WrittenWorkload, default_settings};
use crate::model::declaration::{Mesh, Settings};

pub(super) use declare::Declared;

/// What is written, indexed, with the settings that hold for it.
struct Context<'a> {
    written: &'a Written,
    settings: &'a Settings,
    nodes: HashMap<&'a str, &'a WrittenNode>,
    namespaces: HashMap<&'a str, &'a WrittenNamespace>,
}

impl<'a> Context<'a> {
    /// Where a name is written twice the first one counts; the second is an error anyway.
    fn new(written: &'a Written, settings: &'a Settings) -> Self {
        let nodes = written.nodes.iter().rev();
        let namespaces = written.namespaces.iter().rev();
        Self {
            written,
            settings,
            nodes: nodes.map(|node| (&*node.name.value, &**node)).collect(),
            namespaces: namespaces.map(|n| (&*n.name.value, &**n)).collect(),
        }
    }

    fn node_of(&self, workload: &WrittenWorkload) -> Option<&'a WrittenNode> {
        let name = workload.node.as_ref()?;
        self.nodes.get(&*name.value).copied()
    }

    fn namespace_of(&self, workload: &WrittenWorkload) -> Option<&'a WrittenNamespace> {
        self.namespaces.get(&*workload.namespace.value).copied()
    }

    fn network_of_node(&self, node: &'a WrittenNode) -> &'a Arc<str> {
        node.network.as_ref().unwrap_or(&self.settings.network)
    }

    /// The workload's own network, else its node's, else the mesh's.
    fn network_of(&self, workload: &'a WrittenWorkload) -> &'a Arc<str> {
        let node = self.node_of(workload);
        let of_node = || node.and_then(|node| node.network.as_ref());
        let network = workload.network.as_ref().or_else(of_node);
        network.unwrap_or(&self.settings.network)
    }
}

/// Judges what is written. With `whole` false some files are known only in part, and what refers
/// to something missing is not wrong for that.
///
/// The mesh may only be used when there are no errors, neither here nor from reading. It shares
/// with the one before, by way of `declared`, what is the same in both.
pub(super) fn check(
    written: &Written,
    whole: bool,
    declared: &mut Declared,
) -> (Mesh, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let settings = settings(written, &mut found);
    let context = Context::new(written, &settings);
    names::check(&context, &mut found);
    addresses::check(&context, &mut found);
    enrolment::check(&context, &mut found);
    probes::check(&context, &mut found);
    if whole && !written.unread {
        references::check(&context, &mut found);
    }
    (declare::declare(&context, declared), found)
}

fn settings(written: &Written, found: &mut Vec<Diagnostic>) -> Settings {
    let Some((first, rest)) = written.settings.split_first() else {
        return default_settings();
    };
    for again in rest {
        let message = "the mesh has more than one `[mesh]` table";
        found.push(
            Diagnostic::new(Code::DuplicateSettings, again.place.clone(), message)
                .label("again")
                .related(first.place.clone(), "first here")
                .help("keep all settings in one of the two"),
        );
    }
    first.settings.clone()
}
