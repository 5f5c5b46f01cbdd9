//! Routes: what is wrong with one by itself, and, in [`across`], what becomes of it in a mesh.

mod across;
mod docs;
mod filters;
mod keys;
mod matches;
mod times;

use std::collections::BTreeSet;

use super::{Code, Row, judge, loaded};
use crate::model::compile::waypoints::survey;

#[test]
fn each_mistake_in_a_route_is_found_where_it_is() {
    judge(rows());
}

/// What is said of a route where it is written is what becomes of it, as waypoints are told and people
/// are shown.
#[test]
fn what_is_found_is_what_becomes_of_it() {
    for (name, files, want) in across::rows() {
        let mesh = loaded(&files).mesh.unwrap();
        let surveyed = survey(&mesh);
        let said = |code| want.iter().any(|want| want.3 == code);
        let resolved = surveyed.routes.iter().all(|route| route.resolved.status);
        assert_eq!(resolved, !said(Code::BackendNotFound), "{name}");
        let parents = surveyed.routes.iter().flat_map(|route| &route.parents);
        let reasons: BTreeSet<_> = parents.map(|parent| parent.accepted.reason).collect();
        let refused = |these: &[&str]| these.iter().any(|reason| reasons.contains(reason));
        let missing = refused(&["NoMatchingParent"]);
        assert_eq!(missing, said(Code::NoMatchingParent), "{name}: {reasons:?}");
        let in_vain = refused(&[
            "AncestorNotBound",
            "NotAllowedByListeners",
            "UnsupportedProtocol",
        ]);
        assert_eq!(in_vain, said(Code::NoEffect), "{name}: {reasons:?}");
        let conflicted = refused(&["Conflicted"]);
        assert!(!conflicted || said(Code::Superseded), "{name}: {reasons:?}");
    }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = keys::rows();
    rows.extend(matches::rows());
    rows.extend(times::rows());
    rows.extend(filters::rows());
    rows.extend(across::rows());
    rows
}

/// Namespace `shop`, behind its waypoint `wp`, with services `cart` (80 HTTP, 90 TCP, 443 TLS, 9000
/// unknown), `v1` and `v2` (80 HTTP), and `bare`, which is behind no waypoint; namespace `other`.
pub(super) const MESH: &str = r#"
[[node]]
name = "e"
addresses = ["192.0.2.1"]
[[namespace]]
name = "shop"
use-waypoint = "wp"
[[namespace]]
name = "other"
[[namespace]]
name = "infra"
[[gateway]]
name = "wp"
namespace = "shop"
class = "waypoint"
node = "e"
[[gateway]]
name = "wp"
namespace = "infra"
class = "waypoint"
node = "e"
listeners = [{ port = 15009, allowed-routes = { namespaces = { from = "All" } } }]
[[workload]]
name = "w"
namespace = "shop"
addresses = ["10.1.0.11"]
labels = { app = "a" }
[[service]]
name = "cart"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }, { port = 90, app-protocol = "tcp" }, { port = 443, app-protocol = "tls" }, { port = 9000 }]
[[service]]
name = "v1"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
[[service]]
name = "v2"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
use-waypoint = "infra/wp"
[[service]]
name = "bare"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
use-waypoint = "none"
"#;

type Found = (&'static str, u32, u32, Code, &'static str);

fn row(name: &'static str, routes: String, want: Vec<Found>) -> Row {
    (
        name,
        vec![("a.toml", MESH.to_owned()), ("b.toml", routes)],
        want,
    )
}

/// A route of a kind in `shop`, four lines; its parents are the third, and its rules the fourth, of
/// which the first begins at column 10.
fn route(kind: &str, name: &str, parents: &str, rules: &str) -> String {
    format!(
        "[[{kind}]]\nname = \"{name}\"\nnamespace = \"shop\"\nparent-refs = [{parents}]\nrules = [{rules}]\n"
    )
}

/// Where most routes go.
const TO: &str = "backend-refs = [{ name = \"v1\", port = 80 }]";
/// What most are attached to.
const CART: &str = "{ name = \"cart\" }";

/// An `http-route` with one rule, of which this is the beginning; it begins at line 5, column 12.
fn ruled(fragment: &str) -> String {
    route("http-route", "r", CART, &format!("{{ {fragment}, {TO} }}"))
}
