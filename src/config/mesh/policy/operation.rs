//! `operation`: what a request is for (`spec/labels-and-policy.md` §3.1).

use super::{path, values};
use crate::config::read::Value;
use crate::model::declaration::Operation;

pub(super) fn read(value: &Value<'_>) -> Option<Operation> {
    let table = value.nested()?;
    let operation = Operation {
        ports: values::values(&table, "ports", "not-ports", values::port),
        hosts: values::values(&table, "hosts", "not-hosts", values::pattern),
        methods: values::values(&table, "methods", "not-methods", values::pattern),
        paths: values::values(&table, "paths", "not-paths", path::read),
    };
    table.finish();
    super::rule::judge_empty(value, &table, "ports = [\"8080\"]");
    Some(operation)
}
