//! Which backend of a rule a request goes to (`spec/waypoint-l7.md` §2.6).

use super::{Backend, Rule, Target};

/// The backend within whose share a draw, evenly from 0 to below 1, falls. `None` where nobody has
/// one.
pub fn backend(rule: &Rule<Target>, draw: f64) -> Option<&Backend<Target>> {
    let sum: f64 = rule.backends.iter().map(share).sum();
    let mut left = draw * sum;
    let mut last = None;
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        left -= share(backend);
        last = Some(backend);
        if left < 0.0 {
            break;
        }
    }
    last
}

fn share(backend: &Backend<Target>) -> f64 {
    f64::from(backend.weight)
}
