//! The rules that hold for what was asked for, and what they make of a request
//! (`spec/waypoint-l7.md` §5.2).

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::{Authentication, Invalid, Jwt, Keys, locate};
use crate::model::attached::PolicyKey;
use crate::model::authorization::Token;
use crate::model::declaration::{JwtRule, KeySource, Location, Remote};
use crate::model::route::{is_preflight, query_without};

/// What is asked of tokens: where they are.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The request's method.
    pub method: &'r Method,
    /// Its fields.
    pub headers: &'r HeaderMap,
    /// Its query.
    pub query: Option<&'r str>,
}

/// Who has keys from elsewhere.
pub trait Keyring {
    /// Whether one of a source's keys has signed a token.
    ///
    /// # Errors
    /// [`Invalid::NoKey`], [`Invalid::Signature`], and [`Invalid::NoKeys`] while the keys are not known.
    fn verify(&self, source: &Remote, jwt: &Jwt<'_>) -> Result<(), Invalid>;
}

/// The rules of a service behind a waypoint, or of what is addressed to workloads, by issuer and then in
/// the order they were written.
#[derive(Debug, Default)]
pub struct Set {
    rules: Vec<Held>,
    /// The fields that tell programs something, which clients have no business to set.
    told: Vec<HeaderName>,
    /// One that holds and that nobody has told of.
    missing: Option<PolicyKey>,
}

/// A rule by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// What it is of.
    pub policy: Arc<Authentication>,
    /// Its place in the list.
    pub rule: usize,
}

#[derive(Debug)]
struct Held {
    at: RuleRef,
    rule: JwtRule,
    /// Its keys, where it has them itself.
    inline: Option<Keys>,
}

/// What goes on, and as whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// The token that was validated; of several, that of the first rule.
    pub token: Option<Token>,
    /// The rule that validated it.
    pub by: Option<RuleRef>,
    /// What programs see otherwise than it was sent.
    pub changes: Changes,
}

/// Why a request does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong with its token.
    pub invalid: Invalid,
    /// The rule that found out.
    pub by: RuleRef,
}

/// What becomes of a request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    removed: Vec<HeaderName>,
    parameters: Vec<Arc<str>>,
    set: Vec<(HeaderName, HeaderValue)>,
}

/// What a rule makes of a request.
enum Judged {
    NoToken,
    Valid(Token, Changes),
    Invalid(Invalid),
}

impl Set {
    /// The rules of those policies; one that holds may be `missing`.
    pub fn new(
        policies: impl IntoIterator<Item = Arc<Authentication>>,
        missing: Option<PolicyKey>,
    ) -> Self {
        let mut set = Self {
            missing,
            ..Self::default()
        };
        for policy in policies {
            set.told.extend(policy.told_headers().cloned());
            let rules = policy.rules.iter().enumerate();
            set.rules.extend(rules.map(|(at, rule)| Held {
                at: RuleRef {
                    policy: Arc::clone(&policy),
                    rule: at,
                },
                inline: match &rule.keys {
                    KeySource::Inline(text) => Keys::read(text.as_bytes()).ok(),
                    KeySource::Remote(_) => None,
                },
                rule: rule.clone(),
            }));
        }
        // Those of one issuer stay in ORDER.
        set.rules.sort_by(|a, b| a.rule.issuer.cmp(&b.rule.issuer));
        set
    }

    /// One that holds and that nobody has told of: nothing passes.
    pub fn missing(&self) -> Option<&PolicyKey> {
        self.missing.as_ref()
    }

    /// Whether it has nothing to say to anybody.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.missing.is_none()
    }

    /// The rules, in the order they are asked.
    pub fn rules(&self) -> impl Iterator<Item = &RuleRef> {
        self.rules.iter().map(|held| &held.at)
    }

    /// Judges a request at this time, in seconds since 1970. A valid token of one rule is enough, and so
    /// is none at all.
    ///
    /// # Errors
    /// [`Refused`]: of several reasons the one that the token's own issuer gives.
    pub fn judge(
        &self,
        request: &Request<'_>,
        now: u64,
        ring: &impl Keyring,
    ) -> Result<Admitted, Refused> {
        let mut admitted = Admitted::default();
        admitted.changes.removed.clone_from(&self.told);
        if is_preflight(request.method, request.headers) {
            return Ok(admitted);
        }
        let mut refused: Option<Refused> = None;
        for held in &self.rules {
            match held.judge(request, now, ring) {
                Judged::NoToken => {}
                Judged::Valid(token, changes) => admitted.take(held, token, changes),
                Judged::Invalid(invalid) => {
                    let foreign = |r: &Refused| r.invalid == Invalid::Issuer;
                    if refused.as_ref().is_none_or(foreign) {
                        let by = held.at.clone();
                        refused = Some(Refused { invalid, by });
                    }
                }
            }
        }
        match refused {
            Some(refused) if admitted.token.is_none() => Err(refused),
            _ => Ok(admitted),
        }
    }
}

impl Held {
    /// Every token that the rule finds must be valid; the first one counts.
    fn judge(&self, request: &Request<'_>, now: u64, ring: &impl Keyring) -> Judged {
        let mut first = None;
        let mut changes = Changes::default();
        for location in &self.rule.locations {
            let tokens = locate::tokens(location, request);
            if !tokens.is_empty() && !self.rule.forward_original_token {
                changes.remove(location);
            }
            for text in tokens {
                let (token, told) = match self.validate(&text, now, ring) {
                    Ok(valid) => valid,
                    Err(invalid) => return Judged::Invalid(invalid),
                };
                first.get_or_insert((token, told));
            }
        }
        match first {
            None => Judged::NoToken,
            Some((token, told)) => {
                changes.set = told;
                Judged::Valid(token, changes)
            }
        }
    }

    fn validate(
        &self,
        text: &str,
        now: u64,
        ring: &impl Keyring,
    ) -> Result<(Token, Vec<(HeaderName, HeaderValue)>), Invalid> {
        let jwt = Jwt::read(text)?;
        jwt.fits(&self.rule, now)?;
        match (&self.rule.keys, &self.inline) {
            (KeySource::Remote(source), _) => ring.verify(source, &jwt)?,
            (KeySource::Inline(_), Some(keys)) => keys.verify(&jwt)?,
            (KeySource::Inline(_), None) => return Err(Invalid::NoKeys),
        }
        let told = self.told(&jwt);
        let token = Token {
            issuer: Arc::from(jwt.text("iss")),
            subject: Arc::from(jwt.text("sub")),
            spaced: Arc::from(self.rule.space_delimited.as_slice()),
            claims: jwt.claims,
        };
        Ok((token, told))
    }

    /// What programs are told of a token.
    fn told(&self, jwt: &Jwt<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let payload = self.rule.payload_header.as_ref();
        let payload = payload.map(|name| (name, jwt.payload.to_owned()));
        let claims = self.rule.claim_headers.iter().filter_map(|told| {
            let mut names = told.claim.split('.');
            let begin = jwt.claims.get(names.next()?)?;
            let claim = names.try_fold(begin, |value, name| value.get(name))?;
            Some((&told.header, said(claim)?))
        });
        let told = payload
            .into_iter()
            .chain(claims)
            .filter_map(|(name, text)| {
                // What no field can say is not said.
                let value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
                Some((name.clone(), value))
            });
        told.collect()
    }
}

/// A claim as a field says it: text, a whole number, or a truth value.
fn said(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) => Some(claim.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Admitted {
    fn take(&mut self, held: &Held, token: Token, changes: Changes) {
        if self.token.is_none() {
            self.token = Some(token);
            self.by = Some(held.at.clone());
        }
        self.changes.removed.extend(changes.removed);
        self.changes.parameters.extend(changes.parameters);
        let all = &mut self.changes.set;
        for (name, value) in changes.set {
            if all.iter().all(|(known, _)| *known != name) {
                all.push((name, value));
            }
        }
    }
}

impl Changes {
    /// Takes a token out of where it is; cookies stay.
    fn remove(&mut self, location: &Location) {
        match location {
            Location::Header { name, .. } => self.removed.push(name.clone()),
            Location::Parameter(name) => self.parameters.push(Arc::clone(name)),
            Location::Cookie(_) => {}
        }
    }

    /// Does all that to a request.
    pub fn apply(&self, parts: &mut Parts) {
        for name in &self.removed {
            parts.headers.remove(name);
        }
        for (name, value) in &self.set {
            parts.headers.insert(name, value.clone());
        }
        let query = parts.uri.query().filter(|_| !self.parameters.is_empty());
        let Some(query) = query else {
            return;
        };
        let kept = query_without(query, |name| self.parameters.iter().any(|p| **p == *name));
        let path = match kept.is_empty() {
            true => parts.uri.path().to_owned(),
            false => format!("{}?{kept}", parts.uri.path()),
        };
        let mut whole = std::mem::take(&mut parts.uri).into_parts();
        // Less of what was one is one.
        whole.path_and_query = PathAndQuery::try_from(path).ok();
        parts.uri = Uri::from_parts(whole).unwrap_or_default();
    }
}

impl RuleRef {
    /// The rule.
    pub fn rule(&self) -> Option<&JwtRule> {
        self.policy.rules.get(self.rule)
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.policy.place(self.rule);
        write!(f, "request-authentication {} ({place})", self.policy.key)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, by {}", self.invalid, self.by)
    }
}

#[cfg(test)]
mod tests;
