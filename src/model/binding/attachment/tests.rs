use std::sync::Arc;

use super::*;
use crate::model::compile::sample::{gateway, mesh, service, using};
use crate::model::declaration::WaypointFor;

#[test]
fn what_becomes_of_each_set_of_targets() {
    use TargetKind::{Gateway, GatewayClass, Service, ServiceEntry};
    let mut mesh = mesh();
    mesh.gateways = vec![gateway("wp", WaypointFor::Service)];
    let mut cart = service("cart");
    cart.use_waypoint = using("wp");
    mesh.services = vec![cart, service("pay")];
    let waypoints = Waypoints::new(&mesh);
    let attachments = Attachments::new(&mesh, &waypoints);
    type Row<'a> = (
        &'a str,
        &'a [(TargetKind, &'a str)],
        (bool, &'a str),
        &'a str,
    );
    let rows: &[Row<'_>] = &[
        ("shop", &[(Service, "cart")], (true, "Accepted"), ""),
        ("shop", &[(Gateway, "wp")], (true, "Accepted"), ""),
        (
            "shop",
            &[(Service, "pay")],
            (false, "AncestorNotBound"),
            "behind no waypoint",
        ),
        (
            "shop",
            &[(Service, "crat")],
            (false, "TargetNotFound"),
            "Service.core:shop/crat is not",
        ),
        // Neither stands for the other (§2.2).
        (
            "shop",
            &[(ServiceEntry, "cart")],
            (false, "TargetNotFound"),
            "ServiceEntry.networking",
        ),
        // A reference is always into the policy's own namespace (vector 41).
        (
            "infra",
            &[(Service, "cart")],
            (false, "TargetNotFound"),
            "infra/cart",
        ),
        (
            "infra",
            &[(Gateway, "wp")],
            (false, "TargetNotFound"),
            "infra/wp",
        ),
        (
            "istio-system",
            &[(GatewayClass, "istio-waypoint")],
            (true, "Accepted"),
            "",
        ),
        (
            "istio-system",
            &[(GatewayClass, "waypoint")],
            (true, "Accepted"),
            "",
        ),
        // Vector 43.
        (
            "shop",
            &[(GatewayClass, "waypoint")],
            (false, "Invalid"),
            "outside the root",
        ),
        (
            "istio-system",
            &[(GatewayClass, "nginx")],
            (false, "Invalid"),
            "no class of waypoints",
        ),
        // Vector 44.
        (
            "shop",
            &[(Service, "cart"), (Service, "gone")],
            (true, "PartiallyInvalid"),
            "Service.core:shop/gone is not declared",
        ),
        (
            "shop",
            &[(Service, "pay"), (Service, "gone")],
            (false, "Invalid"),
            "shop/pay is behind no waypoint; Service.core:shop/gone",
        ),
    ];
    for (policy, refs, want, text) in rows {
        let refs = refs.iter().map(|(kind, name)| TargetRef {
            kind: *kind,
            name: Arc::from(*name),
        });
        let refs: Vec<_> = refs.collect();
        let condition = attachments.condition(policy, &refs);
        assert_eq!(
            (condition.status, condition.reason),
            *want,
            "{policy} {refs:?}"
        );
        assert!(
            condition.message.contains(text),
            "{refs:?}: {}",
            condition.message
        );
    }
    let names: Vec<_> = attachments.names(Service, "shop").collect();
    assert_eq!(names, ["cart", "pay"]);
}
