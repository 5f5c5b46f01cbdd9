//! `extension-ref`: a plugin that is run for this rule. There are none yet, and a filter that is not
//! there is never passed over.

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::read::{Value, scalar};

/// Why there is no such filter.
pub(super) fn read(value: &Value<'_>) -> Option<Arc<str>> {
    let table = value.nested()?;
    let group = table.required("group", "group = \"extensions.istio.io\"", scalar::plain);
    let kind = table.required("kind", "kind = \"WasmPlugin\"", scalar::plain);
    let name = table.required("name", "name = \"stamp\"", scalar::name);
    table.finish();
    let (group, kind, name) = (group?, kind?, name?.value);
    let (message, help) = match (group, kind) {
        ("extensions.istio.io", "WasmPlugin") => (
            "asks for a Wasm plugin, which this version does not run yet: the rule answers 500",
            "take the filter out until waypoints run plugins",
        ),
        _ => (
            "asks for a filter that is none here: the rule answers 500",
            "take it out; the kind that a later version runs is `WasmPlugin` of `extensions.istio.io`",
        ),
    };
    value.reject(Code::NotInForce, message, "answers 500", help);
    Some(format!("{kind} {name} is not there").into())
}
