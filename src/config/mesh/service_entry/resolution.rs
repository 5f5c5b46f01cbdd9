//! How endpoints are found, and what that takes.

use std::sync::Arc;

use ipnet::IpNet;

use super::not_beside;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::Endpoint;
use crate::model::waypoint::Resolution;

/// Istio's words.
const WORDS: [(&str, Resolution); 5] = [
    ("NONE", Resolution::None),
    ("STATIC", Resolution::Static),
    ("DNS", Resolution::Dns),
    ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
    ("DYNAMIC_DNS", Resolution::DynamicDns),
];

pub(super) fn read(value: &Value<'_>) -> Option<Resolution> {
    scalar::choice(value, &WORDS)
}

fn word(resolution: Resolution) -> &'static str {
    let mut words = WORDS.iter();
    let found = words.find(|(_, known)| *known == resolution);
    found.map_or("NONE", |(word, _)| *word)
}

/// What is written that must go together.
pub(super) struct Shape<'a> {
    pub(super) hosts: &'a [At<Arc<str>>],
    /// None where the key is not there, or cannot be read.
    pub(super) addresses: Option<&'a [At<IpNet>]>,
    pub(super) external: bool,
    pub(super) resolution: &'a At<Resolution>,
    pub(super) endpoints: Option<&'a At<Vec<Endpoint>>>,
    /// Where workloads are selected.
    pub(super) selector: Option<&'a Place>,
}

impl Shape<'_> {
    /// Reports what does not go together.
    pub(super) fn judge(&self, table: &Table<'_>) {
        self.hosts(table);
        self.one_source(table);
        match self.resolution.value {
            Resolution::None => self.as_asked(table),
            Resolution::Static => self.listed(table),
            Resolution::Dns => self.looked_up(table),
            Resolution::DnsRoundRobin => {
                self.looked_up(table);
                self.at_most_one(table);
            }
            Resolution::DynamicDns => self.dynamic(table),
        }
    }

    /// A wildcard stands for names that only the request says; an address stands for one host.
    fn hosts(&self, table: &Table<'_>) {
        let dynamic = self.resolution.value == Resolution::DynamicDns;
        for host in self.hosts {
            let help = match (dynamic, host.value.starts_with('*')) {
                (false, true) => {
                    "write `resolution = \"DYNAMIC_DNS\"`, and `use-waypoint`: a waypoint looks up the name that a request asks for"
                }
                (true, false) => {
                    "write a wildcard, as in `\"*.example.com\"`, or `resolution = \"DNS\"`"
                }
                _ => continue,
            };
            let message = format!(
                "{}: host `{}` does not go with resolution {}",
                table.what(),
                host.value,
                word(self.resolution.value)
            );
            table.report(
                Diagnostic::new(Code::BadValue, host.place.clone(), message)
                    .label("not a host for this")
                    .related(self.resolution.place.clone(), "how endpoints are found")
                    .help(help),
            );
        }
        if let ([_, second, ..], Some([address, ..])) = (self.hosts, self.addresses) {
            not_beside(
                table,
                second.place.clone(),
                "several hosts share `addresses`, so that nobody knows which is meant".to_owned(),
                &address.place,
                "write a service-entry for each host, or leave `addresses` out: each host is assigned its own",
            );
        }
    }

    fn one_source(&self, table: &Table<'_>) {
        if let (Some(endpoints), Some(selector)) = (self.endpoints, self.selector) {
            not_beside(
                table,
                selector.clone(),
                "`workload-selector` stands beside `endpoints`".to_owned(),
                &endpoints.place,
                "keep one of the two",
            );
        }
    }

    fn as_asked(&self, table: &Table<'_>) {
        self.no_endpoints(table, "write `resolution = \"STATIC\"`, or take them out");
        if self.addresses.is_none_or(<[_]>::is_empty) && !self.hosts.is_empty() {
            let message = format!(
                "{} has resolution NONE and no `addresses`: nobody could be reached",
                table.what()
            );
            let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
                .label("`addresses` is missing")
                .help("add the addresses that it is reached at, or write `resolution = \"DNS\"` to have its hosts looked up");
            table.missing(vec!["addresses"], finding);
        }
    }

    fn listed(&self, table: &Table<'_>) {
        let none = self.endpoints.is_none_or(|listed| listed.value.is_empty());
        if none && self.selector.is_none() && table.value("endpoints").is_none() {
            let message = format!("{} has resolution STATIC and no endpoints", table.what());
            let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
                .label("`endpoints` is missing")
                .help("add `endpoints = [{ address = \"192.0.2.10\" }]`, or a `workload-selector`");
            table.missing(vec!["endpoints", "workload-selector"], finding);
        }
    }

    fn looked_up(&self, table: &Table<'_>) {
        self.no_selector(table);
    }

    fn at_most_one(&self, table: &Table<'_>) {
        let Some(endpoints) = self.endpoints.filter(|listed| listed.value.len() > 1) else {
            return;
        };
        let message = format!(
            "{} has resolution DNS_ROUND_ROBIN and more than one endpoint",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::BadValue, endpoints.place.clone(), message)
                .label("one at most")
                .related(self.resolution.place.clone(), "how they are found")
                .help("keep one, or write `resolution = \"DNS\"`"),
        );
    }

    fn dynamic(&self, table: &Table<'_>) {
        self.no_endpoints(
            table,
            "take them out: the host is the one that a request asks for",
        );
        self.no_selector(table);
        if !self.external {
            let message = format!(
                "{} has resolution DYNAMIC_DNS and is MESH_INTERNAL",
                table.what()
            );
            table.report(
                Diagnostic::new(Code::BadValue, self.resolution.place.clone(), message)
                    .label("for hosts outside the mesh")
                    .help("write `location = \"MESH_EXTERNAL\"`, or leave `location` out"),
            );
        }
    }

    fn no_endpoints(&self, table: &Table<'_>, help: &str) {
        if let Some(endpoints) = self.endpoints {
            let word = word(self.resolution.value);
            not_beside(
                table,
                endpoints.place.clone(),
                format!("`endpoints` do not go with resolution {word}"),
                &self.resolution.place,
                help,
            );
        }
        if self.resolution.value == Resolution::None {
            self.no_selector(table);
        }
    }

    fn no_selector(&self, table: &Table<'_>) {
        if let Some(selector) = self.selector {
            let word = word(self.resolution.value);
            not_beside(
                table,
                selector.clone(),
                format!("`workload-selector` does not go with resolution {word}"),
                &self.resolution.place,
                "write `resolution = \"STATIC\"`",
            );
        }
    }
}
