//! Which endpoints a service prefers: `traffic-distribution` (`spec/waypoint-l7.md` §3.6).

use crate::model::declaration::TrafficDistribution;
use crate::model::service::{BalanceMode, LoadBalancing, Scope};

/// What nodes and waypoints are told of it.
pub(super) fn preferred(distribution: Option<TrafficDistribution>) -> LoadBalancing {
    use Scope::{Network, Node, Region, Subzone, Zone};
    let preference = match distribution {
        None => return LoadBalancing::default(),
        Some(TrafficDistribution::SameZone) => vec![Network, Region, Zone],
        Some(TrafficDistribution::SameNode) => vec![Network, Region, Zone, Subzone, Node],
    };
    LoadBalancing {
        preference,
        mode: BalanceMode::Failover,
        ..LoadBalancing::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_a_failover() {
        use Scope::{Network, Node, Region, Subzone, Zone};
        for (distribution, mode, scopes) in [
            (None, BalanceMode::Unspecified, &[][..]),
            (
                Some(TrafficDistribution::SameZone),
                BalanceMode::Failover,
                &[Network, Region, Zone],
            ),
            (
                Some(TrafficDistribution::SameNode),
                BalanceMode::Failover,
                &[Network, Region, Zone, Subzone, Node],
            ),
        ] {
            let told = preferred(distribution);
            assert_eq!((told.mode, &*told.preference), (mode, scopes));
        }
    }
}
