//! The mesh directory: workloads spread over nodes and services, in files of a thousand.

use std::env;
use std::fmt::Write as _;

use crate::support::Site;

/// Workloads of one file; a mesh file is at most 1 MiB.
const PER_FILE: usize = 1_000;

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) workloads: usize,
    pub(crate) services: usize,
    pub(crate) nodes: usize,
    pub(crate) changes: usize,
}

impl Size {
    pub(crate) fn from_environment() -> Self {
        let told = |key: &str, unless: usize| {
            let text = env::var(key).ok();
            text.map_or(unless, |n| n.parse().expect("a number"))
        };
        Self {
            workloads: told("WORKLOADS", 100_000),
            services: told("SERVICES", 5_000),
            nodes: told("NODES", 200),
            changes: told("CHANGES", 20),
        }
    }
}

pub(crate) fn node(n: usize) -> String {
    format!("edge-{n}")
}

/// A service's address, which nothing else has.
pub(crate) fn vip(n: usize) -> String {
    format!("10.96.{}.{}", n / 250, 1 + n % 250)
}

/// Writes it all; how many bytes.
pub(crate) fn write(site: &Site, size: Size) -> usize {
    let mut bytes = 0;
    let mut file = |name: &str, text: &str| {
        bytes += text.len();
        site.write_mesh(name, text);
    };
    let mut text = String::from("[mesh]\nservice-range = [\"10.96.0.0/16\"]\n");
    text.push_str("[[namespace]]\nname = \"shop\"\ndataplane-mode = \"ambient\"\n");
    for n in 0..size.nodes {
        writeln!(text, "[[node]]\nname = \"{}\"", node(n)).unwrap();
    }
    file("mesh.toml", &text);
    for first in (0..size.services).step_by(PER_FILE) {
        let mut text = String::from("default-namespace = \"shop\"\n");
        for n in first..size.services.min(first + PER_FILE) {
            writeln!(
                text,
                "[[service]]\nname = \"app-{n}\"\naddresses = [\"{}\"]\n\
                 ports = [{{ port = 80, target-port = 8080 }}]\nselector = {{ app = \"app-{n}\" }}",
                vip(n),
            )
            .unwrap();
        }
        file(&format!("services-{first}.toml"), &text);
    }
    for first in (0..size.workloads).step_by(PER_FILE) {
        file(
            &format!("workloads-{first}.toml"),
            &workloads(size, first, 1),
        );
    }
    bytes
}

/// Workload 0 gets another capacity; its file is written anew.
pub(crate) fn change(site: &Site, size: Size, capacity: usize) {
    site.write_mesh("workloads-0.toml", &workloads(size, 0, capacity));
}

fn workloads(size: Size, first: usize, capacity: usize) -> String {
    let mut text = String::from("default-namespace = \"shop\"\n");
    for n in first..size.workloads.min(first + PER_FILE) {
        let app = n % size.services;
        writeln!(
            text,
            "[[workload]]\nname = \"w-{n}\"\nservice-account = \"app-{app}\"\nnode = \"{}\"\n\
             addresses = [\"10.{}.{}.{}\"]\nlabels = {{ app = \"app-{app}\" }}\n\
             capture = {{ netns = \"w-{n}\" }}",
            node(n % size.nodes),
            128 + n / 62_500,
            n / 250 % 250,
            1 + n % 250,
        )
        .unwrap();
        if n == 0 {
            writeln!(text, "capacity = {capacity}").unwrap();
        }
    }
    text
}
