//! The ports of a service, of TCP and of UDP.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::protocol::{self, Protocol};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::Place;
use crate::model::declaration::Port;
use crate::model::service::UdpPort;

/// One port beside its name.
struct Read {
    name: Option<Arc<str>>,
    port: u16,
    target_port: u16,
    protocol: Protocol,
}

/// Those of TCP and those of UDP, each in the order they were written. A number may be declared once for
/// each of the two; a name is one port's.
pub(super) fn read(value: &Value<'_>) -> Option<(Vec<Port>, Vec<UdpPort>)> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no port",
            "name at least one, as in `[{ port = 80 }]`",
        );
    }
    let (mut numbers, mut names) = (HashMap::new(), HashMap::new());
    let all = value.list(|value| {
        let table = value.nested()?;
        let read = port(&table);
        table.finish();
        let read = read?;
        let udp = read.protocol == Protocol::Udp;
        let kind = if udp { "UDP port" } else { "port" };
        let number = format!("{kind} {}", read.port);
        once(&table, &mut numbers, (read.port, udp), &number);
        if let Some(name) = &read.name {
            let named = format!("port name `{name}`");
            once(&table, &mut names, Arc::clone(name), &named);
        }
        Some(read)
    })?;
    let (mut ports, mut udp_ports) = (Vec::new(), Vec::new());
    for read in all {
        match read.protocol {
            Protocol::Udp => udp_ports.push(UdpPort {
                service_port: read.port,
                target_port: read.target_port,
            }),
            Protocol::Tcp(spoken) => ports.push(Port {
                app_protocol: spoken
                    .unwrap_or_else(|| protocol::guessed(read.name.as_deref(), read.port)),
                name: read.name,
                port: read.port,
                target_port: read.target_port,
            }),
        }
    }
    Some((ports, udp_ports))
}

fn port(table: &Table<'_>) -> Option<Read> {
    let name = table.optional("name", scalar::label);
    let port = table.required("port", "port = 80", scalar::port);
    let target_port = table.optional("target-port", scalar::port);
    let protocol = protocol::of_port(table, name.as_ref());
    let port = port?;
    Some(Read {
        name: name.map(|name| name.value),
        port,
        target_port: target_port.unwrap_or(port),
        protocol: protocol?,
    })
}

/// Reports what is declared for the second time.
pub(in crate::config::mesh) fn once<K: std::hash::Hash + Eq>(
    table: &Table<'_>,
    seen: &mut HashMap<K, Place>,
    key: K,
    what: &str,
) {
    if let Some(first) = seen.get(&key) {
        let message = format!("{}: {what} is declared twice", table.what());
        table.report(
            Diagnostic::new(Code::DuplicateName, table.place().clone(), message)
                .label("again")
                .related(first.clone(), "first here")
                .help("keep one of the two"),
        );
    } else {
        seen.insert(key, table.place().clone());
    }
}
