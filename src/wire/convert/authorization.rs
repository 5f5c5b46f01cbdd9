//! Where an `istio.security.Authorization` holds (`spec/control-plane.md` §2.2).

use std::sync::Arc;

use prost::Message as _;

use crate::model::policy::Reach;
use crate::wire::proto::security::{Authorization, Scope};

/// Reads how far a policy reaches. What does not say it, or not in this version's words, is taken
/// to reach everybody: a policy nobody can read must not read as one that allows.
pub fn decode_reach(bytes: &[u8]) -> Reach {
    let Ok(policy) = Authorization::decode(bytes) else {
        return Reach::Mesh;
    };
    match Scope::try_from(policy.scope) {
        _ if policy.dry_run => Reach::Nobody,
        Ok(Scope::WorkloadSelector) => Reach::Listed,
        Ok(Scope::Namespace) if !policy.namespace.is_empty() => {
            Reach::Namespace(Arc::from(policy.namespace))
        }
        Ok(Scope::Namespace | Scope::Global) | Err(_) => Reach::Mesh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_clearly_narrower_reaches_everybody() {
        let shop = || Reach::Namespace(Arc::from("shop"));
        for (name, namespace, scope, dry_run, want) in [
            ("global", "shop", 0, false, Reach::Mesh),
            ("of a namespace", "shop", 1, false, shop()),
            ("of a namespace without a name", "", 1, false, Reach::Mesh),
            ("of workloads", "shop", 2, false, Reach::Listed),
            ("of a later version", "shop", 3, false, Reach::Mesh),
            ("only tried", "shop", 0, true, Reach::Nobody),
        ] {
            let policy = Authorization {
                name: "p".to_owned(),
                namespace: namespace.to_owned(),
                scope,
                dry_run,
            };
            assert_eq!(decode_reach(&policy.encode_to_vec()), want, "{name}");
        }
        assert_eq!(decode_reach(&[0xff]), Reach::Mesh, "undecodable");
    }
}
