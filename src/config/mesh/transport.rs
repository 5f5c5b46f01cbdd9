//! `transport`: over what tunnels go, wherever it is written.

use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::workload::Transport;

pub(super) fn read(value: &Value<'_>) -> Option<Transport> {
    let known = [Transport::Tcp, Transport::Auto, Transport::Quic];
    scalar::choice(
        value,
        &known.map(|transport| (transport.as_str(), transport)),
    )
}

/// The same beside its place, for what may be without effect.
pub(super) fn of(table: &Table<'_>) -> Option<At<Transport>> {
    table.optional("transport", |value| {
        Some(At::new(read(value)?, value.place().clone()))
    })
}
