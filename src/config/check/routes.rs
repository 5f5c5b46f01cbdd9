//! What routes say of the rest of the mesh, and what becomes of them there (`spec/waypoint-l7.md`
//! §2.1, §2.2, §2.6). Nothing here is an error: a route may be written before what it is about, and a
//! backend that is not there costs its own share alone.

mod attached;
mod backends;
mod families;
mod twins;

use super::Context;
use crate::config::diagnose::Diagnostic;
use crate::config::mesh::WrittenRoute;
use crate::model::binding::Waypoints;
use crate::model::declaration::Mesh;

pub(super) fn check<'a>(
    context: &Context<'a>,
    (mesh, waypoints): (&'a Mesh, &Waypoints<'a>),
    found: &mut Vec<Diagnostic>,
) {
    let routes = &context.written.routes;
    if routes.is_empty() {
        return;
    }
    backends::check(routes, mesh, found);
    let mut attached = attached::accepted(routes, (mesh, waypoints), found);
    families::check(&mut attached, found);
    twins::check(&attached, found);
}

/// Such as ``http-route `shop/cart` ``, to tell it from others.
pub(super) fn title(route: &WrittenRoute) -> String {
    let (namespace, name) = (&route.namespace.value, &route.name.value);
    format!("{} `{namespace}/{name}`", route.kind.as_str())
}

/// Ports in words: `port 80`, `ports 80 and 90`.
fn ports(ports: &[u16]) -> String {
    let words: Vec<_> = ports.iter().map(u16::to_string).collect();
    match words.as_slice() {
        [one] => format!("port {one}"),
        [first @ .., last] => format!("ports {} and {last}", first.join(", ")),
        [] => "no port".to_owned(),
    }
}
