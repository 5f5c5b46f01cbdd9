//! What a waypoint's policies say of a request or a connection, asked of the set that the waypoint
//! asks (`spec/waypoint-l7.md` §4).

use std::net::IpAddr;

use super::request::Read;
use super::{Step, step};
use crate::model::authorization::{Asked, Http, Verdict};
use crate::model::policy::Peer;
use crate::model::waypoint::{Bound, Options, Resources};
use crate::model::workload::Workload;

/// Who asks a waypoint, and from where.
pub(super) struct Client {
    peer: Option<Peer>,
    source: IpAddr,
}

impl Client {
    /// The namespace of its identity; empty where it has none.
    pub(super) fn namespace(&self) -> &str {
        let account = self.peer.as_ref().map(Peer::account);
        account.map_or("", |account| &account.namespace)
    }

    /// A workload, as its node speaks for it.
    pub(super) fn new(workload: &Workload, source: IpAddr) -> Self {
        let identity = workload.identity().ok();
        Self {
            peer: identity.as_ref().and_then(Peer::new),
            source,
        }
    }
}

/// Asks the policies, and tells what each has to say.
///
/// # Errors
/// Why it does not pass.
pub(super) fn judged(
    told: &Resources,
    bound: &Bound,
    client: &Client,
    request: Option<&Read>,
    steps: &mut Vec<Step>,
) -> Result<(), String> {
    let Some(attached) = told.attached_to(bound) else {
        return Err("the waypoint was not told of what is asked for".to_owned());
    };
    let set = told.policies_of(attached);
    if set.is_empty() {
        return Ok(());
    }
    let asked = Asked {
        peer: client.peer.as_ref(),
        source: client.source,
        remote: request.map_or(client.source, |request| {
            let usual = Options::default();
            let options = told.gateway.as_ref().map_or(&usual, |g| &g.options);
            let trusted = &options.trusted;
            trusted.remote(client.peer.as_ref(), client.source, &request.headers)
        }),
        destination: bound.asked(),
        server_name: None,
        http: request.map(|request| Http {
            method: request.method.as_str(),
            path: &request.path,
            target: &request.target,
            authority: &request.authority,
            scheme: "http",
            headers: &request.headers,
            token: None,
        }),
    };
    let marks = set.marks(&asked);
    steps.extend(marks.iter().map(|mark| step("mark", mark.to_string())));
    match set.judge(&asked) {
        Verdict::Denied(denial) => Err(denial.to_string()),
        Verdict::Allowed(by) => {
            let text = match by {
                Some(cause) => format!("allowed by {cause}"),
                None => "no policy denies it, and none allows others alone".to_owned(),
            };
            steps.push(step("policy", text));
            Ok(())
        }
    }
}
