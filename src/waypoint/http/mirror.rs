//! Copies of requests for somebody else (`spec/waypoint-l7.md` §2.3): their answers are of no account, and
//! nothing that happens to them does anything to the request.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::request::Parts;
use http::uri::Authority;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tracing::debug;

use super::pool::{Lease, Version, asked_host};
use super::upload::Upload;
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::route::{Filter, Rule, Target};
use crate::model::waypoint::Picking;
use crate::waypoint::Arrival;
use crate::waypoint::routing::Seen;

/// Copies under way at once, each of which holds at most what [`super::copy`] lets it fall behind; more
/// are given up.
pub(super) const UNDER_WAY: usize = 512;
/// Longest that one may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Whom a rule has copies sent to, this time.
pub(super) fn drawn(rule: &Rule<Target>) -> impl Iterator<Item = &Target> {
    rule.filters.iter().filter_map(|filter| match filter {
        Filter::Mirror(mirror) if mirror.share.takes(rand::random()) => Some(&mirror.to),
        _ => None,
    })
}

/// A copy on its way.
pub(super) struct Mirrored<C: Connector> {
    pub(super) arrival: Arc<Arrival<C>>,
    pub(super) seen: Seen,
    pub(super) to: Target,
    pub(super) version: Version,
}

impl<C: Connector + Clone> Mirrored<C> {
    /// Sends it, beside everything else.
    pub(super) fn begin(self, head: Parts, body: Upload) {
        let arrival = Arc::clone(&self.arrival);
        let pool = &arrival.shared.http;
        let Some(place) = pool.mirror() else {
            return arrival.shared.metrics.mirror_dropped();
        };
        pool.spawn(async move {
            let _place = place;
            let request = Request::from_parts(head, body);
            if tokio::time::timeout(LONGEST, self.send(request))
                .await
                .is_err()
            {
                debug!("a mirror does not answer");
            }
        });
    }

    async fn send(&self, request: Request<Upload>) {
        let asked = self.arrival.bound.asked();
        let Ok(Some(to)) = self.seen.destination(&self.to, asked) else {
            return;
        };
        let host = asked_host(&request);
        let picking = Picking {
            host: host.as_ref().map(Authority::host),
            ..Picking::default()
        };
        let chosen = match self.arrival.choose(&self.seen, &to, &picking).await {
            Ok(chosen) => chosen,
            Err(e) => return debug!(error = %chain(&e), "a mirror has no endpoint"),
        };
        let pool = &self.arrival.shared.http;
        let mut request = Some(request);
        // One that waited may turn out to be closed before anything is sent.
        for fresh in [false, true] {
            let Some(copy) = request.take() else {
                return;
            };
            let host = picking.host;
            let lent = pool.lend(&self.arrival, &chosen, self.version, host, fresh);
            let lent = lent.await;
            let mut lease = match lent {
                Ok(lease) => lease,
                Err(e) => return debug!(error = %chain(&e), "no way to a mirror"),
            };
            let mut error = match lease.send(copy).await {
                Ok(response) => return discard(response.into_body(), lease).await,
                Err(error) => error,
            };
            request = error.take_message();
            debug!(error = %chain(&error.into_error()), "a mirror failed");
        }
    }
}

async fn discard(mut answer: Incoming, lease: Lease) {
    while let Some(frame) = answer.frame().await {
        if frame.is_err() {
            return;
        }
    }
    lease.give_back();
}
