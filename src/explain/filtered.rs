//! What a waypoint's policies say of a request or a connection, asked of the set that the waypoint
//! asks (`spec/waypoint-l7.md` §4).

use std::net::IpAddr;

use super::request::Read;
use super::{Step, step};
use crate::clock;
use crate::model::authentication::{self, Invalid, Jwt, Keyring};
use crate::model::authorization::{Asked, Http, Question, Token, Verdict};
use crate::model::declaration::{KeySource, Remote};
use crate::model::policy::Peer;
use crate::model::route::Target;
use crate::model::waypoint::{AttachedSet, Bound, Options, Resources};
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

    /// What policies look at of what it asks.
    fn asks<'a>(
        &'a self,
        told: &Resources,
        bound: &Bound,
        request: Option<&'a Read>,
        token: Option<&'a Token>,
    ) -> Asked<'a> {
        let peer = self.peer.as_ref();
        Asked {
            peer,
            source: self.source,
            remote: request.map_or(self.source, |request| {
                let usual = Options::default();
                let options = told.gateway.as_ref().map_or(&usual, |g| &g.options);
                options.trusted.remote(peer, self.source, &request.headers)
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
                token,
            }),
        }
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

/// Asks the policies in the order in which a waypoint does, and tells what each has to say. What tokens
/// change of a request is changed.
///
/// # Errors
/// The status of the answer, where it is a request, and why it does not pass.
pub(super) fn judged(
    told: &Resources,
    bound: &Bound,
    client: &Client,
    mut request: Option<&mut Read>,
    steps: &mut Vec<Step>,
) -> Result<(), (u16, String)> {
    let Some(attached) = told.attached_to(bound) else {
        let why = "the waypoint was not told of what is asked for";
        return Err((503, why.to_owned()));
    };
    let set = told.policies_of(attached);
    for question in set.questions(&client.asks(told, bound, request.as_deref(), None)) {
        let text = provider(told, &question).map_err(|why| (403, why))?;
        steps.push(step("provider", text));
    }
    let token = match &mut request {
        Some(request) => authenticated(told, attached, request, steps)?,
        None => None,
    };
    if set.is_empty() {
        return Ok(());
    }
    let asked = client.asks(told, bound, request.as_deref(), token.as_ref());
    let marks = set.marks(&asked);
    steps.extend(marks.iter().map(|mark| step("mark", mark.to_string())));
    match set.judge(&asked) {
        Verdict::Denied(denial) => Err((403, denial.to_string())),
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

/// Who is asked before anything else. What he says nobody knows beforehand.
fn provider(told: &Resources, question: &Question) -> Result<String, String> {
    let Question { provider, cause } = question;
    let Some(known) = told.extensions.get(provider) else {
        return Err(format!(
            "denied: {cause} asks provider {provider}, which is none that could be asked"
        ));
    };
    let (file, line) = (&known.origin.file, known.origin.line);
    let failing = match known.check.fail_open {
        true => "passes".to_owned(),
        false => format!("is answered with {}", known.check.status_on_error.as_u16()),
    };
    match &known.to {
        Target::Service { key, port, .. } => Ok(format!(
            "provider {provider} ({file}:{line}) at {}:{port} has to allow it, by {cause}; what it cannot be asked about {failing}",
            key.hostname
        )),
        Target::Invalid(why) if known.check.fail_open => Ok(format!(
            "provider {provider} ({file}:{line}) cannot be asked, by {cause}: {why}; it {failing}"
        )),
        Target::Invalid(why) => Err(format!(
            "denied: {cause} asks provider {provider} ({file}:{line}), which cannot be asked: {why}"
        )),
    }
}

/// Issuers whose keys are elsewhere: who explains has none of them, and takes them to have signed.
struct Elsewhere;

impl Keyring for Elsewhere {
    fn verify(&self, _source: &Remote, _jwt: &Jwt<'_>) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Judges the tokens of a request, and tells who believes them; what they change of it is changed.
fn authenticated(
    told: &Resources,
    attached: &AttachedSet,
    request: &mut Read,
    steps: &mut Vec<Step>,
) -> Result<Option<Token>, (u16, String)> {
    let set = told.authentications_of(attached);
    if let Some(key) = set.missing() {
        let why = format!("request-authentication {key} holds here and is not known here");
        return Err((403, why));
    }
    if set.is_empty() {
        return Ok(None);
    }
    let asked = authentication::Request {
        method: &request.method,
        headers: &request.headers,
        query: request.target.split_once('?').map(|(_path, query)| query),
    };
    let judged = set.judge(&asked, clock::seconds(clock::now()), &Elsewhere);
    let admitted = judged.map_err(|refused| (refused.invalid.status(), refused.to_string()))?;
    request.change(&admitted.changes);
    let text = match (&admitted.by, &admitted.token) {
        (Some(by), Some(token)) => {
            let elsewhere = by
                .rule()
                .is_some_and(|r| matches!(r.keys, KeySource::Remote(_)));
            let condition = match elsewhere {
                true => ", if its issuer has signed it",
                false => "",
            };
            format!("of {}/{}, by {by}{condition}", token.issuer, token.subject)
        }
        _ => match set.rules().next() {
            Some(rule) => format!("none where a rule looks for one, such as {rule}: nobody's"),
            None => "none".to_owned(),
        },
    };
    steps.push(step("token", text));
    Ok(admitted.token)
}

#[cfg(test)]
mod tests;
