//! What goes on beyond the moment it was let in, a connection or a request that has become a byte
//! stream, is judged again whenever the waypoint is told something else (`spec/waypoint-l7.md` §4.1).

use std::future::pending;
use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;

use super::authorization;
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::authorization::{Token, Verdict};
use crate::waypoint::Arrival;
use crate::waypoint::routing::Seen;

/// What was let in, as it was judged then.
pub(in crate::waypoint) enum Standing {
    /// A connection that is no HTTP, and the server name that it asks for.
    Connection(Option<String>),
    /// A request.
    Request(Box<Head>),
}

/// A request's head.
pub(in crate::waypoint) struct Head {
    pub(in crate::waypoint) parts: Parts,
    pub(in crate::waypoint) authority: Authority,
    pub(in crate::waypoint) token: Option<Token>,
}

impl Standing {
    /// Returns once it is let in no more, and says why. It was let in by what was `seen`.
    pub(in crate::waypoint) async fn revoked<C: Connector>(
        &self,
        arrival: &Arrival<C>,
        seen: &Seen,
    ) -> String {
        let mut mesh = arrival.shared.mesh.clone();
        let mut told = seen.told();
        loop {
            mesh.mark_unchanged();
            let now = arrival.look();
            if let Some(now) = now.filter(|now| !same(&now.told(), &told)) {
                if let Some(why) = self.denied(arrival, &now) {
                    return why;
                }
                told = now.told();
            }
            if mesh.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    fn denied<C: Connector>(&self, arrival: &Arrival<C>, seen: &Seen) -> Option<String> {
        let attached = match seen.attached(&arrival.bound) {
            Ok(attached) => attached?,
            Err(untold) => return Some(chain(&untold)),
        };
        let (http, server_name) = match self {
            Self::Connection(server_name) => (None, server_name.as_deref()),
            Self::Request(head) => {
                let http = authorization::http(&head.parts, &head.authority, head.token.as_ref());
                (Some(http), None)
            }
        };
        let asked = authorization::asked((arrival, seen), http, server_name);
        match attached.policies().judge(&asked) {
            Verdict::Allowed(_) => None,
            Verdict::Denied(denial) => Some(format!("{}: {denial}", denial.detail())),
        }
    }
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
