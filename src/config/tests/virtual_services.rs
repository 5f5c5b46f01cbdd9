//! Virtual services: what is wrong with one by itself, and, in [`across`], what becomes of it in a mesh.

mod across;
mod docs;
mod keys;

use super::routes::MESH;
use super::{Code, Row, judge};

#[test]
fn each_mistake_in_a_virtual_service_is_found_where_it_is() {
    judge(rows());
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = keys::rows();
    rows.extend(across::rows());
    rows
}

type Found = (&'static str, u32, u32, Code, &'static str);

/// The mesh of routes, in which `v1` has the subset `one`.
pub(super) fn mesh() -> String {
    let rule = "[[destination-rule]]\nname = \"v1\"\nnamespace = \"shop\"\nhost = \"v1\"\nsubsets = [{ name = \"one\", labels = { app = \"a\" } }]\n";
    format!("{MESH}{rule}")
}

fn row(name: &'static str, text: String, want: Vec<Found>) -> Row {
    (name, vec![("a.toml", mesh()), ("b.toml", text)], want)
}

/// A virtual service in `shop`, five lines; its hosts are the fourth, and its rules the fifth, of which
/// the first begins at column 9.
fn service(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "[[virtual-service]]\nname = \"{name}\"\nnamespace = \"shop\"\nhosts = [{hosts}]\nhttp = [{http}]\n"
    )
}

/// Where most go.
const TO: &str = "route = [{ destination = { host = \"v1\" } }]";
/// What most are for.
const CART: &str = "\"cart\"";
