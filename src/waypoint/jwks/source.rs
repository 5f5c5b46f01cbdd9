//! What is known of one source of keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::model::authentication::Keys;

/// Between two times that a source is asked because a token names a key that it did not have
/// (`spec/waypoint-l7.md` §5.4): whoever makes names up does not make others work.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// A source.
pub(super) struct Source {
    state: watch::Sender<State>,
    /// Wakes who asks it.
    ask: Notify,
}

#[derive(Default)]
struct State {
    known: Option<Arc<Known>>,
    /// How often it has been asked to an end.
    rounds: u64,
    /// It is being asked.
    under_way: bool,
    /// When it was last asked for the sake of a token.
    asked: Option<Instant>,
}

/// Keys, and when they were last got.
pub(super) struct Known {
    pub(super) keys: Keys,
    pub(super) at: SystemTime,
}

impl Source {
    /// One that is being asked for the first time.
    pub(super) fn new(kept: Option<Known>) -> Self {
        let (state, _) = watch::channel(State {
            known: kept.map(Arc::new),
            under_way: true,
            ..State::default()
        });
        Self {
            state,
            ask: Notify::new(),
        }
    }

    /// What is known, after how many rounds.
    pub(super) fn known(&self) -> (Option<Arc<Known>>, u64) {
        let state = self.state.borrow();
        (state.known.clone(), state.rounds)
    }

    /// Ends a round, with other keys or with those that were known.
    pub(super) fn heard(&self, known: Option<Known>) {
        self.state.send_modify(|state| {
            if let Some(known) = known {
                state.known = Some(Arc::new(known));
            }
            state.rounds += 1;
            state.under_way = false;
        });
    }

    /// Begins a round for the sake of a token, unless there was one not long ago.
    ///
    /// # Cancel safety: what was begun goes on when this is dropped.
    pub(super) async fn renewed(&self, since: u64, patience: Duration) -> bool {
        let mut waits = true;
        let begun = self.state.send_if_modified(|state| {
            if state.rounds != since || state.under_way {
                return false;
            }
            let now = Instant::now();
            waits = state.asked.is_none_or(|at| now - at >= ASKED_AGAIN);
            if waits {
                (state.asked, state.under_way) = (Some(now), true);
            }
            waits
        });
        if begun {
            self.ask.notify_one();
        }
        if !waits {
            return false;
        }
        let mut state = self.state.subscribe();
        let over = state.wait_for(|state| state.rounds != since);
        // The sender is ours.
        tokio::time::timeout(patience, over).await.is_ok()
    }

    /// Returns when it is to be asked for the sake of a token.
    ///
    /// # Cancel safety: who asks while nobody waits is heard next time.
    pub(super) async fn asked(&self) {
        self.ask.notified().await;
    }

    /// A round begins of which no token is the reason.
    pub(super) fn begin(&self) {
        self.state.send_if_modified(|state| {
            state.under_way = true;
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn known() -> Option<Known> {
        Some(Known {
            keys: Keys::read(b"{\"keys\": []}").unwrap(),
            at: SystemTime::now(),
        })
    }

    /// What comes of wanting other keys than those after `since` rounds, with somebody who answers.
    async fn wanted(source: &Source, since: u64) -> (bool, bool) {
        let mut asked = false;
        let answers = async {
            source.asked().await;
            asked = true;
            source.heard(known());
            std::future::pending::<()>().await
        };
        let renewed = tokio::select! {
            renewed = source.renewed(since, PATIENCE) => renewed,
            () = answers => false,
        };
        (renewed, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_asked_at_once_and_then_not_for_a_while() {
        let source = Source::new(None);
        source.heard(known());
        assert_eq!(wanted(&source, 1).await, (true, true), "at once");
        assert_eq!(wanted(&source, 1).await, (true, false), "heard meanwhile");
        assert_eq!(wanted(&source, 2).await, (false, false), "not again");
        tokio::time::advance(ASKED_AGAIN).await;
        assert_eq!(wanted(&source, 2).await, (true, true), "after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_it_is_asked_waits_for_what_it_says() {
        let source = Source::new(None);
        let both = async {
            tokio::join!(
                source.renewed(0, PATIENCE),
                source.renewed(0, PATIENCE),
                async { source.heard(known()) }
            )
        };
        assert_eq!(both.await, (true, true, ()));
        let begun = Instant::now();
        let silent = Source::new(None);
        assert!(!silent.renewed(0, PATIENCE).await, "nobody answers");
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
