//! The ports of a service-entry.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::mesh::protocol;
use crate::config::mesh::service::once;
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::Port;

pub(super) fn read(value: &Value<'_>) -> Option<Vec<Port>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no port",
            "name at least one, as in `[{ number = 443, protocol = \"TLS\" }]`",
        );
    }
    let (mut numbers, mut names) = (HashMap::new(), HashMap::new());
    value.list(|value| {
        let table = value.nested()?;
        let port = port(&table);
        table.finish();
        let port = port?;
        let number = format!("port {}", port.port);
        once(&table, &mut numbers, port.port, &number);
        if let Some(name) = &port.name {
            let named = format!("port name `{name}`");
            once(&table, &mut names, Arc::clone(name), &named);
        }
        Some(port)
    })
}

fn port(table: &Table<'_>) -> Option<Port> {
    let name = table.optional("name", |value| {
        let name = scalar::label(value)?;
        protocol::named(value, &name.value)?;
        Some(name.value)
    });
    let number = table.required("number", "number = 443", scalar::port);
    let target_port = table.optional("target-port", scalar::port);
    let spoken = table.optional("protocol", protocol::read);
    let port = number?;
    Some(Port {
        app_protocol: spoken.unwrap_or_else(|| protocol::guessed(name.as_deref(), port)),
        name,
        port,
        target_port: target_port.unwrap_or(port),
    })
}
