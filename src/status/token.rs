//! The admin pages of tokens: those that machines join with, and those of stock proxies.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::admin::Answer;
use crate::causes::chain;
use crate::control::enrolment::DEFAULT_TTL;
use crate::control::server::Handle as ControlHandle;
use crate::control::{audit, bearer};

/// What makes a token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenAsk {
    /// The node it is for.
    pub node: String,
    /// Seconds it is good for.
    pub ttl: Option<u64>,
    /// Whether it may replace a node that has joined.
    pub replace: bool,
}

/// One token, without its secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenLine {
    /// Its id.
    pub id: String,
    /// `join`, or `bearer`.
    pub kind: String,
    /// The node it is for.
    pub node: String,
    /// `unused`, `used`, `revoked` or `expired`; of a bearer token `valid` instead of the first two.
    pub state: String,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

impl Sources {
    pub(super) fn tokens(&self, _body: &[u8]) -> Answer {
        let control = match self.of_control() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let now = SystemTime::now();
        let tokens = control.enrolment.tokens().into_iter();
        let joining = tokens.map(|t| TokenLine {
            state: t.state(now).to_owned(),
            kind: "join".to_owned(),
            node: t.node.to_string(),
            expires: t.expires,
            id: t.id,
        });
        let bearers = control.bearers.list().into_iter().map(|b| TokenLine {
            state: b.state(now).to_owned(),
            kind: "bearer".to_owned(),
            node: b.node.to_string(),
            expires: b.expires,
            id: b.id,
        });
        let lines: Vec<TokenLine> = joining.chain(bearers).collect();
        Answer::json(&lines)
    }

    /// What is asked for, by whom it can be given, for a node that there is.
    fn token_ask(&self, body: &[u8]) -> Result<(&ControlHandle, TokenAsk), Answer> {
        let control = self.of_primary()?;
        let ask: TokenAsk = serde_json::from_slice(body)
            .map_err(|e| Answer::error(StatusCode::BAD_REQUEST, e.to_string()))?;
        match unknown_node(control, &ask.node) {
            Some(unknown) => Err(unknown),
            None => Ok((control, ask)),
        }
    }

    pub(super) fn create_token(&self, body: &[u8]) -> Answer {
        let (control, ask) = match self.token_ask(body) {
            Ok(asked) => asked,
            Err(answer) => return answer,
        };
        let ttl = ask.ttl.map_or(DEFAULT_TTL, Duration::from_secs);
        let pin = control.authority.pin();
        let made = control
            .enrolment
            .create(&ask.node, ttl, ask.replace, pin, SystemTime::now());
        match made {
            Ok(token) => Answer::text(token.reveal()),
            Err(e) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, chain(&e)),
        }
    }

    pub(super) fn create_bearer(&self, body: &[u8]) -> Answer {
        let (control, ask) = match self.token_ask(body) {
            Ok(asked) => asked,
            Err(answer) => return answer,
        };
        let ttl = ask.ttl.map_or(bearer::DEFAULT_TTL, Duration::from_secs);
        match control.bearers.make(&ask.node, ttl, SystemTime::now()) {
            Ok(token) => {
                audit::granted("bearer", &ask.node, &"operator", "");
                Answer::text(token)
            }
            Err(e) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, chain(&e)),
        }
    }

    pub(super) fn revoke_token(&self, body: &[u8]) -> Answer {
        let control = match self.of_primary() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let id = String::from_utf8_lossy(body).trim().to_owned();
        let joining = control.enrolment.revoke(&id).map_err(|e| chain(&e));
        let revoked = match joining {
            Ok(false) => control.bearers.revoke(&id).map_err(|e| chain(&e)),
            other => other,
        };
        match revoked {
            Ok(true) => Answer::text("revoked"),
            Ok(false) => Answer::error(StatusCode::NOT_FOUND, format!("there is no token `{id}`")),
            Err(reason) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, reason),
        }
    }
}

/// The answer to who asks for a node that the mesh files do not have.
fn unknown_node(control: &ControlHandle, node: &str) -> Option<Answer> {
    let known = control
        .inputs
        .borrow()
        .as_ref()
        .map(|i| i.mesh.nodes.clone());
    let known = known.unwrap_or_default();
    if known.contains_key(node) {
        return None;
    }
    let names: Vec<&str> = known.keys().map(|n| &**n).collect();
    let reason = format!(
        "the mesh files have no node `{node}`; they have {}",
        names.join(", ")
    );
    Some(Answer::error(StatusCode::NOT_FOUND, reason))
}
