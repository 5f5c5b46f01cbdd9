//! What virtual services say of the rest of the mesh, and what becomes of them there
//! (`spec/waypoint-l7.md` §2.1, §3.1). As of routes, nothing of that is an error but what no waypoint
//! could carry out: a subset that nobody declares (§3.4), and delegation beyond one level.

mod backends;
mod delegates;
mod hosts;
mod shadowed;

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use crate::config::diagnose::Diagnostic;
use crate::config::mesh::WrittenVirtualService;
use crate::model::compile::waypoints::{RouteState, survey};
use crate::model::declaration::Mesh;
use crate::model::route::Kind;

/// A virtual service, and how far it is in force.
struct Judged<'a> {
    written: &'a WrittenVirtualService,
    state: &'a RouteState,
}

pub(super) fn check(context: &Context<'_>, mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let written = &context.written.virtual_services;
    if written.is_empty() {
        return;
    }
    let surveyed = survey(mesh);
    let states = surveyed.routes.iter();
    let states = states.filter(|state| state.key.kind == Kind::VirtualService);
    let states: HashMap<(&Arc<str>, &Arc<str>), &RouteState> = states
        .map(|state| ((&state.key.namespace, &state.key.name), state))
        .collect();
    let judged = written.iter().filter_map(|written| {
        let (namespace, name) = (&written.route.namespace.value, &written.route.name.value);
        let state = states.get(&(namespace, name)).copied()?;
        Some(Judged { written, state })
    });
    let judged: Vec<Judged<'_>> = judged.collect();
    hosts::check(&judged, mesh, found);
    hosts::beside_routes(&judged, (mesh, &surveyed.services), found);
    backends::check(&judged, mesh, found);
    delegates::check(written, found);
    shadowed::check(&judged, mesh, found);
}

/// Such as ``virtual-service `shop/cart` ``, to tell it from others.
fn title(written: &WrittenVirtualService) -> String {
    super::routes::title(&written.route)
}
