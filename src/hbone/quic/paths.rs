//! Which peers UDP reaches: what worked is used, what did not is tried again with ever more patience
//! (`spec/hbone-dataplane.md` §11.5).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longest time until a peer is tried again.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// Failures in a row from which the time grows no more.
const DOUBLINGS: u32 = 7;
/// Share by which the time differs, in percent, so that those who lost a link together do not all come back
/// together.
const SPREAD: u64 = 20;
/// Between looks at TCP's way.
const LOOK: Duration = Duration::from_millis(500);
/// How long a way counts as poor that was found so: most of what would show it goes by QUIC then.
const POOR: Duration = Duration::from_secs(600);
/// Peers that are remembered, at most; then those go that may be tried again anyway.
const PEERS: usize = 4096;

/// What is known of the ways to peers.
#[derive(Debug, Default)]
pub(in crate::hbone) struct Paths {
    peers: Mutex<HashMap<SocketAddr, Peer>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// In a row.
    failures: u32,
    /// It is left alone until then.
    until: Option<Instant>,
    /// When TCP's way was last looked at.
    looked: Option<Instant>,
    /// It is known to be poor until then.
    poor: Option<Instant>,
}

impl Peer {
    fn is_known(&self, now: Instant) -> bool {
        [self.until, self.poor]
            .into_iter()
            .flatten()
            .any(|at| now < at)
    }
}

impl Paths {
    /// Whether it is worth trying: nothing is known against it, or that is long ago.
    pub(in crate::hbone) fn may_try(&self, to: SocketAddr, now: Instant) -> bool {
        let peers = self.lock();
        let until = peers.get(&to).and_then(|peer| peer.until);
        until.is_none_or(|until| now >= until)
    }

    /// Whether QUIC is worth what it costs: TCP's way has been found poor lately, as `is_poor` tells, which
    /// is asked now and then.
    pub(in crate::hbone) fn is_worth_it(
        &self,
        to: SocketAddr,
        now: Instant,
        is_poor: impl FnOnce() -> bool,
    ) -> bool {
        let mut peers = self.lock();
        if peers.len() >= PEERS {
            peers.retain(|_, peer| peer.is_known(now));
        }
        if peers.len() >= PEERS && !peers.contains_key(&to) {
            return false;
        }
        let peer = peers.entry(to).or_default();
        if peer.looked.is_none_or(|looked| now - looked >= LOOK) {
            peer.looked = Some(now);
            if is_poor() {
                peer.poor = Some(now + POOR);
            }
        }
        peer.poor.is_some_and(|until| now < until)
    }

    /// It answers.
    pub(in crate::hbone) fn works(&self, to: SocketAddr) {
        if let Some(peer) = self.lock().get_mut(&to) {
            (peer.failures, peer.until) = (0, None);
        }
    }

    /// It does not answer: it is left alone for `first`, and for twice as long with each failure since it
    /// last did.
    pub(in crate::hbone) fn fails(&self, to: SocketAddr, now: Instant, first: Duration) {
        let mut peers = self.lock();
        if peers.len() >= PEERS {
            peers.retain(|_, peer| peer.is_known(now));
        }
        if peers.len() >= PEERS && !peers.contains_key(&to) {
            return;
        }
        let peer = peers.entry(to).or_default();
        // Of several that failed at the same time one counts.
        if peer.until.is_some_and(|until| now < until) {
            return;
        }
        peer.until = Some(now + wait(first, peer.failures, rand::random()));
        peer.failures = peer.failures.saturating_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a peer is left alone after so many failures before this one.
fn wait(first: Duration, failures: u32, chance: u64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(DOUBLINGS));
    let percent = 100 - SPREAD + chance % (2 * SPREAD + 1);
    let percent = u32::try_from(percent).unwrap_or(100);
    doubled.min(LONGEST).saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_up_to_six_hours() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        for (failures, want) in [(0, 5), (1, 10), (2, 20), (6, 320), (7, 360), (40, 360)] {
            for (chance, percent) in [(0, 80), (20, 100), (40, 120), (41, 80)] {
                let got = wait(minutes(5), failures, chance);
                assert_eq!(got, minutes(want) * percent / 100, "{failures} {chance}");
            }
        }
    }

    #[test]
    fn a_peer_that_answered_is_tried_at_once() {
        let (paths, start) = (Paths::default(), Instant::now());
        let to = "192.0.2.1:15008".parse().unwrap();
        let after = |seconds| start + Duration::from_secs(seconds);
        let first = Duration::from_secs(100);
        assert!(paths.may_try(to, start));
        paths.fails(to, start, first);
        // Another that was under way.
        paths.fails(to, after(1), first);
        assert!(!paths.may_try(to, after(79)));
        assert!(paths.may_try(to, after(121)));
        paths.fails(to, after(121), first);
        assert!(!paths.may_try(to, after(280)), "twice as long");
        assert!(paths.may_try("192.0.2.2:15008".parse().unwrap(), start));
        paths.works(to);
        assert!(paths.may_try(to, after(122)));
    }

    #[test]
    fn a_poor_way_is_looked_at_now_and_then_and_remembered() {
        let (paths, start) = (Paths::default(), Instant::now());
        let to = "192.0.2.1:15008".parse().unwrap();
        for (after_ms, poor, want) in [
            (0, false, false),
            (400, true, false),
            (500, true, true),
            (5_000, false, true),
            (600_400, false, true),
            (600_600, false, false),
        ] {
            let now = start + Duration::from_millis(after_ms);
            let got = paths.is_worth_it(to, now, || poor);
            assert_eq!(got, want, "{after_ms} ms");
        }
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_is_room() {
        let (paths, now) = (Paths::default(), Instant::now());
        for port in 1..=u16::try_from(PEERS).unwrap() + 9 {
            paths.fails(([192, 0, 2, 1], port).into(), now, Duration::from_secs(1));
        }
        assert_eq!(paths.lock().len(), PEERS);
        let later = now + Duration::from_secs(2);
        paths.fails(([192, 0, 2, 2], 1).into(), later, Duration::from_secs(1));
        assert_eq!(paths.lock().len(), 1);
    }
}
