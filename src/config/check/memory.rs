//! What one judgement of a mesh directory leaves to the next.
//!
//! A file in which nothing was wrong has nothing wrong in it while it says the same, in a mesh whose
//! nodes, namespaces and settings are the same, but for what it says twice with another file. Of that,
//! a [`Census`] of each file tells where to look.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::mesh::{Written, WrittenNamespace, WrittenNode, WrittenWorkload};
use crate::model::declaration::{DataplaneMode, Proxy, Settings, Workload};
use crate::model::shared::Shared;
use crate::model::workload::Locality;

/// What the last judgement found out.
#[derive(Default)]
pub(in crate::config) struct Memory {
    pub(super) tables: Option<Tables>,
    /// By the addresses that they have while they are held here.
    pub(super) files: HashMap<usize, Known>,
}

impl Memory {
    /// What is known of a file, by now at least its census.
    pub(super) fn take(&mut self, file: &Arc<Written>) -> Known {
        let known = self.files.remove(&Arc::as_ptr(file).addr());
        known.unwrap_or_else(|| Known {
            written: Arc::clone(file),
            census: Census::of(file),
            clean: false,
            declared: Vec::new(),
        })
    }

    /// Remembers this judgement instead of the last.
    pub(super) fn keep(&mut self, tables: Tables, files: Vec<Known>) {
        self.tables = Some(tables);
        let id = |known: &Known| Arc::as_ptr(&known.written).addr();
        self.files = files.into_iter().map(|known| (id(&known), known)).collect();
    }
}

/// What is known of a file.
pub(super) struct Known {
    pub(super) written: Arc<Written>,
    pub(super) census: Census,
    /// Nothing was wrong with it, in a mesh of the same tables.
    pub(super) clean: bool,
    /// Its workloads as they were last declared, in their order.
    pub(super) declared: Vec<Shared<Workload>>,
}

/// All that a workload is judged by besides itself, and besides what others say as well.
#[derive(PartialEq)]
pub(super) struct Tables {
    settings: Settings,
    nodes: Vec<NodeSays>,
    namespaces: Vec<NamespaceSays>,
}

#[derive(PartialEq)]
struct NodeSays {
    name: Arc<str>,
    proxy: Proxy,
    addresses: Vec<IpAddr>,
    network: Option<Arc<str>>,
    locality: Locality,
}

#[derive(PartialEq)]
struct NamespaceSays {
    name: Arc<str>,
    dataplane_mode: Option<DataplaneMode>,
    service_accounts: Option<Vec<Arc<str>>>,
}

impl Tables {
    pub(super) fn new(
        settings: &Settings,
        nodes: &[&WrittenNode],
        namespaces: &[&WrittenNamespace],
    ) -> Self {
        let node = |node: &&WrittenNode| NodeSays {
            name: node.name.value.clone(),
            proxy: node.proxy,
            addresses: node.addresses.iter().map(|a| a.value).collect(),
            network: node.network.clone(),
            locality: node.locality.clone(),
        };
        let namespace = |namespace: &&WrittenNamespace| NamespaceSays {
            name: namespace.name.value.clone(),
            dataplane_mode: namespace.dataplane_mode.as_ref().map(|mode| mode.value),
            service_accounts: namespace.service_accounts.clone(),
        };
        Self {
            settings: settings.clone(),
            nodes: nodes.iter().map(node).collect(),
            namespaces: namespaces.iter().map(namespace).collect(),
        }
    }
}

/// Hashes of what must not be said twice, and of what others look for. Equal ones are looked into;
/// that two different things have one hash costs no more than that.
pub(super) struct Census {
    /// Of each workload's name in its namespace.
    names: Vec<u64>,
    /// Of each address, with the number of the workload that has it.
    addresses: Vec<(u64, usize)>,
    /// Of the labels that workloads carry, each once.
    pub(super) labels: Vec<u64>,
}

impl Census {
    fn of(file: &Written) -> Self {
        let workloads = || file.workloads.iter().enumerate();
        let name = |w: &WrittenWorkload| hash(&(&w.namespace.value, &w.name.value));
        let addresses = workloads().flat_map(|(at, w)| {
            let addresses = w.addresses.iter();
            addresses.map(move |address| (hash(&address.value), at))
        });
        let labels = workloads().flat_map(|(_, w)| {
            let labels = w.labels.iter();
            labels.map(|(key, value)| label(&w.namespace.value, key, value))
        });
        let labels: HashSet<u64> = labels.collect();
        Self {
            names: file.workloads.iter().map(name).collect(),
            addresses: addresses.collect(),
            labels: labels.into_iter().collect(),
        }
    }
}

/// The hash of a label in a namespace.
pub(super) fn label(namespace: &str, key: &str, value: &str) -> u64 {
    hash(&(namespace, key, value))
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Workloads whose name may be another's too, in their order.
pub(super) fn namesakes<'a>(files: &[&'a Known]) -> Vec<&'a WrittenWorkload> {
    let all = files.iter().flat_map(|file| &file.census.names);
    let twice = twice(all.copied().collect());
    let named = files
        .iter()
        .filter(|_| !twice.is_empty())
        .flat_map(|file| file.census.names.iter().zip(&file.written.workloads));
    named
        .filter(|(name, _)| twice.contains(name))
        .map(|(_, workload)| workload)
        .collect()
}

/// Workloads with an address that may be another's too, or one of `others`, in their order, and
/// all workloads of the files that are not known to be clean.
pub(super) fn neighbours<'a>(
    files: &[&'a Known],
    others: impl Iterator<Item = IpAddr>,
) -> Vec<&'a WrittenWorkload> {
    let all = files.iter().flat_map(|file| &file.census.addresses);
    let all = all.map(|(address, _)| *address);
    let twice = twice(all.chain(others.map(|address| hash(&address))).collect());
    let mut found = Vec::new();
    for file in files {
        let workloads = &file.written.workloads;
        if !file.clean {
            found.extend(workloads);
            continue;
        }
        let shared = file.census.addresses.iter();
        let shared = shared.filter(|(address, _)| !twice.is_empty() && twice.contains(address));
        let mut shared: Vec<usize> = shared.map(|(_, at)| *at).collect();
        shared.dedup();
        found.extend(shared.into_iter().filter_map(|at| workloads.get(at)));
    }
    found
}

fn twice(mut hashes: Vec<u64>) -> HashSet<u64> {
    hashes.sort_unstable();
    let pairs = hashes.windows(2).filter(|pair| pair[0] == pair[1]);
    pairs.map(|pair| pair[0]).collect()
}
