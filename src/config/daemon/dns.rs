//! `[dns]`: how names are answered on this host.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::model::names::CLUSTER_DOMAIN;

/// Whether the host's own resolver is told of the mesh's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostNames {
    /// It is left as it is.
    #[default]
    Off,
    /// systemd-resolved is, where it runs.
    Auto,
    /// systemd-resolved is; that it does not run is a fault.
    Resolved,
}

/// The `[dns]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    capture: bool,
    domain: Arc<str>,
    preferred_namespace: Option<Arc<str>>,
    host: HostNames,
}

impl Dns {
    /// Whether what captured workloads ask of name servers is captured, where neither they nor their
    /// labels say; it is unless set.
    pub fn capture(&self) -> bool {
        self.capture
    }

    /// The domain of the mesh, where its control plane does not tell it; `cluster.local` unless set.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Of services that share a name, those of this namespace come first where none is the asker's own
    /// or canonical.
    pub fn preferred_namespace(&self) -> Option<&Arc<str>> {
        self.preferred_namespace.as_ref()
    }

    /// Whether the host's own resolver is told of the mesh's names; it is not unless set.
    pub fn host(&self) -> HostNames {
        self.host
    }
}

/// Reads `[dns]`. `guest` says that the control plane is another's, and `listens` whether programs of
/// the host can ask.
pub(super) fn read(root: &Table<'_>, guest: bool, listens: bool) -> Dns {
    let mut dns = Dns {
        capture: true,
        domain: Arc::from(CLUSTER_DOMAIN),
        preferred_namespace: None,
        host: HostNames::Off,
    };
    let Some(table) = root.optional("dns", |value| value.titled("`[dns]`")) else {
        return dns;
    };
    if let Some(capture) = table.optional("capture", Value::boolean) {
        dns.capture = capture;
    }
    if let Some(domain) = table.optional("domain", |value| domain(value, guest)) {
        dns.domain = domain;
    }
    let preferred = table.optional("preferred-namespace", scalar::label);
    dns.preferred_namespace = preferred.map(|namespace| namespace.value);
    let ways = [
        ("off", HostNames::Off),
        ("auto", HostNames::Auto),
        ("resolved", HostNames::Resolved),
    ];
    if let Some(host) = table.optional("host", |value| scalar::choice(value, &ways)) {
        dns.host = host;
    }
    if let Some(value) = table.value("host")
        && dns.host != HostNames::Off
        && !listens
    {
        value.reject(
            Code::ConflictingKeys,
            "takes a listener to send questions to",
            "nobody would answer",
            "take `dns = \"off\"` out of `[listen]`",
        );
    }
    table.finish();
    dns
}

fn domain(value: &Value<'_>, guest: bool) -> Option<Arc<str>> {
    let domain = scalar::domain(value)?.value;
    if !guest {
        value.reject(
            Code::ConflictingKeys,
            "is for nodes whose control plane is not one of Lateen",
            "no use here",
            "write `domain` in the `[mesh]` table of the mesh files",
        );
    }
    Some(domain)
}

/// An address of loopback: whoever can ask learns who is in the mesh, and the listener asks others
/// for whoever does.
pub(super) fn listen(value: &Value<'_>) -> Option<Option<SocketAddr>> {
    if value.text()? == "off" {
        return Some(None);
    }
    let address: SocketAddr = scalar::parsed(value, "an address with a port", "127.0.0.1:15053")?;
    if !address.ip().is_loopback() {
        value.bad(
            "is not an address of this host alone",
            "others could ask, too",
            "write an address of loopback, as in `\"127.0.0.1:15053\"`, or `\"off\"`",
        );
        return None;
    }
    Some(Some(address))
}
