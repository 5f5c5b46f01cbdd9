//! Numbers that a node whose certificate has expired signs to prove its key: each for one node, for
//! a minute, once (`spec/control-plane.md` §6.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long a number is good for.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Numbers at once; when full, the one that ends first makes room.
const MOST: usize = 4096;

/// A number.
pub(super) type Nonce = [u8; 32];

/// The numbers that are out.
#[derive(Default)]
pub(super) struct Challenges(Mutex<HashMap<Nonce, (Arc<str>, SystemTime)>>);

impl Challenges {
    /// A number for a node, and until when it is good; one that is not `known` gets a number that is
    /// good for nothing.
    pub(super) fn make(&self, node: &str, known: bool, now: SystemTime) -> (Nonce, SystemTime) {
        let (nonce, ends): (Nonce, _) = (rand::random(), now + GOOD_FOR);
        if !known {
            return (nonce, ends);
        }
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|_, (_, ends)| *ends > now);
        if out.len() >= MOST {
            let first = out.iter().min_by_key(|(_, (_, ends))| *ends);
            if let Some(first) = first.map(|(nonce, _)| *nonce) {
                out.remove(&first);
            }
        }
        out.insert(nonce, (Arc::from(node), ends));
        (nonce, ends)
    }

    /// The node a number was made for; it is used up now.
    pub(super) fn redeem(&self, nonce: &[u8], now: SystemTime) -> Option<Arc<str>> {
        let nonce: Nonce = nonce.try_into().ok()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, ends) = known.remove(&nonce)?;
        (ends > now).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_good_once_and_for_a_minute() {
        let challenges = Challenges::default();
        let now = SystemTime::now();
        let (nonce, ends) = challenges.make("edge-1", true, now);
        let (late, _) = challenges.make("edge-2", true, now);
        let (stranger, _) = challenges.make("edge-9", false, now);
        assert_eq!(challenges.redeem(&stranger, now), None, "it never joined");
        assert_eq!(challenges.redeem(&nonce, now).as_deref(), Some("edge-1"));
        assert_eq!(challenges.redeem(&nonce, now), None, "used");
        assert_eq!(challenges.redeem(&late, ends), None, "too late");
        assert_eq!(challenges.redeem(&[1; 32], now), None);
        assert_eq!(challenges.redeem(b"short", now), None);
    }

    #[test]
    fn they_never_grow_without_end() {
        let challenges = Challenges::default();
        let now = SystemTime::now();
        for _ in 0..MOST + 10 {
            challenges.make("edge-1", true, now);
        }
        assert_eq!(challenges.0.lock().unwrap().len(), MOST);
    }
}
