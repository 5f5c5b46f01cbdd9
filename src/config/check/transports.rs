//! Transports that nobody would use: only our own proxy speaks anything but TCP.

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::source::At;
use crate::model::declaration::Proxy;
use crate::model::workload::Transport;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let nodes = context.written.nodes.iter();
    let nodes = nodes.filter(|node| node.proxy == Proxy::Ztunnel);
    found.extend(nodes.filter_map(|node| {
        let what = format!("node `{}`", node.name.value);
        in_vain(node.transport.as_ref()?, &what, "it runs a ztunnel")
    }));
    let workloads = context.doubtful.iter();
    found.extend(workloads.filter_map(|workload| {
        let written = workload.transport.as_ref()?;
        let what = format!("workload `{}`", workload.name.value);
        let node = context.node_of(workload);
        match (&workload.node, node) {
            (None, _) => in_vain(written, &what, "it is on no node"),
            (Some(_), Some(node)) if node.proxy == Proxy::Ztunnel => {
                let why = format!("node `{}` runs a ztunnel", node.name.value);
                in_vain(written, &what, &why)
            }
            _ => None,
        }
    }));
}

fn in_vain(written: &At<Transport>, what: &str, why: &str) -> Option<Diagnostic> {
    let word = match written.value {
        Transport::Tcp => return None,
        other => other.as_str(),
    };
    let message = format!("{what} is to be reached over `{word}`, and {why}");
    Some(
        Diagnostic::new(Code::NoEffect, written.place.clone(), message)
            .label("has no effect")
            .help("it is reached over TCP; leave the key out"),
    )
}
