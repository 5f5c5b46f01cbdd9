//! Circuit breakers: how much may be under way at a service port, per waypoint instance
//! (`spec/waypoint-l7.md` §3.4, `connection-pool` and `retry-budget`). What is too much is turned away
//! at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::model::traffic::Settings;

/// How much is under way.
#[derive(Debug, Default)]
pub(super) struct Load {
    connections: Counter,
    pending: Counter,
    requests: Counter,
    retries: Counter,
    /// Told when a connection may be free or another one opened.
    room: Notify,
}

#[derive(Debug, Default)]
struct Counter(AtomicU32);

impl Counter {
    fn enter(&self, most: u32) -> bool {
        let entered = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now < most).then(|| now.saturating_add(1))
            });
        entered.is_ok()
    }

    fn leave(&self) {
        // Only what has entered leaves.
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn now(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// What something that is under way is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Connection,
    Pending,
    Request,
    Retry,
}

/// A place among those under way, until it is dropped.
#[derive(Debug)]
pub(in crate::waypoint) struct Place {
    load: Arc<Load>,
    r#as: As,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.counter(self.r#as).leave();
        if self.r#as == As::Connection {
            self.load.tell_room();
        }
    }
}

/// Which limit there is no room below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::waypoint) enum Overflow {
    #[error("there are as many connections as `max-connections` says")]
    Connections,
    #[error("as many requests wait for a connection as `http1-max-pending-requests` says")]
    Pending,
    #[error("as many requests are under way as `http2-max-requests` says")]
    Requests,
}

impl Load {
    fn counter(&self, r#as: As) -> &Counter {
        match r#as {
            As::Connection => &self.connections,
            As::Pending => &self.pending,
            As::Request => &self.requests,
            As::Retry => &self.retries,
        }
    }

    fn enter(self: &Arc<Self>, r#as: As, most: u32) -> Option<Place> {
        self.counter(r#as).enter(most).then(|| Place {
            load: Arc::clone(self),
            r#as,
        })
    }

    /// A connection is opened.
    pub(super) fn connection(self: &Arc<Self>, rule: &Settings) -> Result<Place, Overflow> {
        let most = rule.connection_pool.max_connections;
        self.enter(As::Connection, most)
            .ok_or(Overflow::Connections)
    }

    /// Whether there are more connections than may be opened.
    pub(super) fn is_over(&self, rule: &Settings) -> bool {
        self.connections.now() > rule.connection_pool.max_connections
    }

    /// A request waits for a connection.
    pub(super) fn pending(self: &Arc<Self>, rule: &Settings) -> Result<Place, Overflow> {
        let most = rule.connection_pool.max_pending_requests;
        self.enter(As::Pending, most).ok_or(Overflow::Pending)
    }

    /// A request goes to an endpoint.
    pub(super) fn request(self: &Arc<Self>, rule: &Settings) -> Result<Place, Overflow> {
        let most = rule.connection_pool.max_requests;
        self.enter(As::Request, most).ok_or(Overflow::Requests)
    }

    /// A request is asked again; none where there are too many such already.
    pub(super) fn retry(self: &Arc<Self>, rule: &Settings) -> Option<Place> {
        let most = match rule.retry_budget {
            Some(budget) => {
                let share = f64::from(self.requests.now()) * budget.percent / 100.0;
                // Of so few requests a share rounds to nothing that a number could not hold.
                let share = share.min(f64::from(u32::MAX)) as u32;
                share.max(budget.min_concurrency)
            }
            None => rule.connection_pool.max_retries,
        };
        self.enter(As::Retry, most)
    }

    /// Returns once there may be room.
    pub(super) fn room(&self) -> &Notify {
        &self.room
    }

    /// Tells those who wait that there may be room.
    pub(super) fn tell_room(&self) {
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::{ConnectionPool, RetryBudget};

    fn limited(limit: fn(&mut ConnectionPool)) -> Settings {
        let mut settings = Settings::default();
        limit(&mut settings.connection_pool);
        settings
    }

    #[test]
    fn a_place_is_held_until_it_is_dropped() {
        let load = Arc::<Load>::default();
        let two = limited(|pool| pool.max_connections = 2);
        let first = load.connection(&two).unwrap();
        let _second = load.connection(&two).unwrap();
        assert_eq!(load.connection(&two).unwrap_err(), Overflow::Connections);
        drop(first);
        assert!(load.connection(&two).is_ok());
    }

    #[test]
    fn each_limit_is_by_itself() {
        let load = Arc::<Load>::default();
        let one = limited(|pool| {
            pool.max_pending_requests = 1;
            pool.max_requests = 1;
            pool.max_retries = 0;
        });
        let _held = (load.pending(&one).unwrap(), load.request(&one).unwrap());
        assert_eq!(load.pending(&one).unwrap_err(), Overflow::Pending);
        assert_eq!(load.request(&one).unwrap_err(), Overflow::Requests);
        assert!(load.retry(&one).is_none());
        assert!(load.connection(&one).is_ok());
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_under_way() {
        let load = Arc::<Load>::default();
        let budget = Settings {
            retry_budget: Some(RetryBudget::default()),
            ..limited(|pool| pool.max_retries = 0)
        };
        let requests: Vec<_> = (0..25).map(|_| load.request(&budget).unwrap()).collect();
        let retries: Vec<_> = std::iter::from_fn(|| load.retry(&budget)).collect();
        assert_eq!(retries.len(), 5, "20 % of 25");
        drop((requests, retries));
        let retries: Vec<_> = std::iter::from_fn(|| load.retry(&budget)).collect();
        assert_eq!(retries.len(), 3, "so many always");
    }

    #[tokio::test]
    async fn who_waits_is_told_of_room() {
        let load = Arc::<Load>::default();
        let one = limited(|pool| pool.max_connections = 1);
        let place = load.connection(&one).unwrap();
        let room = load.room().notified();
        tokio::pin!(room);
        room.as_mut().enable();
        drop(place);
        room.await;
        assert!(load.connection(&one).is_ok());
    }
}
