//! Moves the datagrams of one flow.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::leg::Leg;
use crate::causes::chain;
use crate::hbone::{Traffic, TunnelError};
use crate::node::session::Session;

/// How long a flow may be silent both ways.
const IDLE: Duration = Duration::from_secs(120);
/// Datagrams moved before others have their turn.
const TURN: usize = 64;

/// What has become of a flow.
enum Moved {
    Some,
    Ended,
}

/// Moves datagrams until either leg ends, both are silent for two minutes, or it is let in no more.
pub(super) async fn relay(mut session: Box<Session>, mut first: Leg, mut second: Leg) {
    let traffic = Arc::clone(&session.traffic);
    let mut silent_since = Instant::now();
    let broke = loop {
        let moving = poll_fn(|cx| poll(cx, &mut first, &mut second, &traffic));
        tokio::select! {
            biased;
            denial = session.over() => return session.denied(&denial),
            moved = moving => match moved {
                Ok(Moved::Some) => {
                    silent_since = Instant::now();
                    behind_others().await;
                }
                Ok(Moved::Ended) => break None,
                Err(error) => break Some(error),
            },
            () = sleep_until(silent_since + IDLE) => break None,
        }
    };
    if broke.is_none() {
        first.close();
        second.close();
    }
    session.closed(broke.map(|error| chain(&error)));
}

/// Takes its place in line again at once. What tokio makes of a task that has moved a lot, and of one that
/// yields, waits for the line to be looked at anew: meanwhile whoever deals out to flows may have had two turns,
/// and there is room for one.
async fn behind_others() {
    let mut had_turn = false;
    poll_fn(|cx| match std::mem::replace(&mut had_turn, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

fn poll(
    cx: &mut Context<'_>,
    first: &mut Leg,
    second: &mut Leg,
    traffic: &Traffic,
) -> Poll<Result<Moved, TunnelError>> {
    let forth = pass(cx, first, second, &traffic.forth)?;
    let back = pass(cx, second, first, &traffic.back)?;
    let (Some(forth), Some(back)) = (forth, back) else {
        return Poll::Ready(Ok(Moved::Ended));
    };
    if first.poll_unwanted(cx)?.is_ready() || second.poll_unwanted(cx)?.is_ready() {
        return Poll::Ready(Ok(Moved::Ended));
    }
    match forth || back {
        true => Poll::Ready(Ok(Moved::Some)),
        false => Poll::Pending,
    }
}

/// Passes on what has come; whether anything had, `None` at the end.
fn pass(
    cx: &mut Context<'_>,
    from: &mut Leg,
    to: &mut Leg,
    count: &AtomicU64,
) -> Result<Option<bool>, TunnelError> {
    for turn in 0..TURN {
        match from.poll_recv(cx)? {
            Poll::Ready(Some(payload)) => {
                if to.send(cx, &payload)? {
                    count.fetch_add(payload.len() as u64, Ordering::Relaxed);
                }
            }
            Poll::Ready(None) => return Ok(None),
            Poll::Pending => return Ok(Some(turn > 0)),
        }
    }
    Ok(Some(true))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// Who has turns in which order, of which the first waits by `wait` and the other wakes itself.
    async fn turns(wait: impl Future<Output = ()> + Send + 'static) -> Vec<&'static str> {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let (seen, of_other) = (Arc::clone(&turns), Arc::clone(&turns));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            seen.lock().unwrap().push("first");
            wait.await;
            seen.lock().unwrap().push("first again");
        });
        tasks.spawn(poll_fn(move |cx| {
            let mut turns = of_other.lock().unwrap();
            turns.push("other");
            cx.waker().wake_by_ref();
            match turns.len() < 4 {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        }));
        tasks.join_all().await;
        turns.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn whoever_goes_behind_others_is_passed_by_nobody_twice() {
        let want = ["first", "other", "first again", "other"];
        assert_eq!(turns(behind_others()).await, want);
        let passed = ["first", "other", "other", "other"];
        assert_eq!(turns(yield_now()).await[..4], passed, "tokio's own");
    }
}
