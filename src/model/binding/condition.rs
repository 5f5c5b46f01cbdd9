//! What a user is told of a binding (`spec/labels-and-policy.md` §1.9).

use super::{Binding, Bound, CanaryFault, CanaryOutcome, Reason, Unbound};
use crate::model::condition::Condition;
use crate::model::declaration::{Gateway, Origin};

/// The condition of an object; none where no waypoint is asked for. `ingress` is what is said of
/// ingress gateways, for a service.
pub fn condition(binding: &Binding<'_>, ingress: Option<bool>) -> Option<Condition> {
    let (status, reason, message) = match binding {
        Binding::None => return None,
        Binding::Bound(bound) => (true, "WaypointAccepted", accepted(bound, ingress)),
        Binding::Unbound(unbound) => (false, unbound.reason.as_str(), refused(unbound)),
    };
    Some(Condition {
        kind: "istio.io/WaypointBound",
        status,
        reason,
        message,
    })
}

fn accepted(bound: &Bound<'_>, ingress: Option<bool>) -> String {
    let mut message = format!("behind {}", shown(bound.waypoint));
    if let Some(own) = bound.passed_over {
        message += &format!(
            ", its namespace's: its own, {}, is for traffic to {} alone",
            shown(own),
            own.waypoint_for.as_str()
        );
    }
    match ingress {
        Some(true) => message += "; ingress gateways pass it too",
        Some(false) => message += "; ingress gateways do not pass it",
        None => {}
    }
    match bound.canary {
        CanaryOutcome::None => {}
        CanaryOutcome::Shares(canary, weight) => {
            message += &format!("; {} takes {weight} % of it", shown(canary));
        }
        CanaryOutcome::LeftOut { named, fault, .. } => {
            message += &format!("; canary {named} is not used: {}", why(fault));
        }
    }
    message
}

fn why(fault: CanaryFault<'_>) -> String {
    let word = fault.as_str();
    match fault {
        CanaryFault::SameAsPrimary => format!("{word}: it is the same waypoint"),
        CanaryFault::InvalidWeight(text) => {
            format!("{word}: {text:?} is not a weight from 0 to 100")
        }
        CanaryFault::Unbound(_) => word.to_owned(),
    }
}

fn refused(unbound: &Unbound<'_>) -> String {
    let (named, wanted) = (unbound.named, unbound.traffic.as_str());
    match unbound.reason {
        Reason::WaypointIsNotReady => format!("there is no waypoint {named}"),
        Reason::AttachmentDenied => format!("waypoint {named} does not admit its namespace"),
        Reason::UnsupportedTrafficType => {
            format!("waypoint {named} does not take traffic to a {wanted}")
        }
        Reason::CrossNamespaceWaypointForbidden => {
            format!("it is of its own namespace alone, and waypoint {named} of another")
        }
    }
}

fn shown(gateway: &Gateway) -> String {
    let Origin { file, line } = &gateway.origin;
    format!("{}/{} ({file}:{line})", gateway.namespace, gateway.name)
}
