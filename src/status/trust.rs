//! The admin pages of certificates and of those who may have them: the authority's and the nodes' on
//! a control plane's host, the certificates of this host on every node's.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::admin::Answer;
use crate::agent::trust::made_at;
use crate::causes::chain;
use crate::clock::seconds;
use crate::control::audit;
use crate::control::ca::{Phase, RootState};
use crate::control::rotation::{in_the_way, standings};
use crate::control::server::Handle as ControlHandle;
use crate::hex::hex;
use crate::tls::{Svid, validity_of};

/// `lateen ca show -o json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaStatus {
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Number of the trust bundle in force.
    pub sequence: u64,
    /// `steady`, `add` or `switch`.
    pub phase: String,
    /// What is believed, the root that signs first.
    pub roots: Vec<CaLine>,
    /// The intermediate that signs.
    pub issuing: CaLine,
    /// Certificates that are revoked and have not expired.
    pub revoked: usize,
    /// Number of the revocation lists.
    pub crl_number: u64,
    /// What the next step of replacing the root would cut off.
    pub in_the_way: Vec<String>,
}

/// A certificate that signs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaLine {
    /// What its files are called, or `root`.
    pub name: String,
    /// How it is used.
    pub state: String,
    /// SHA-256 of its key, in hex.
    pub spki_sha256: String,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

/// What `lateen ca rotate` asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RotateAsk {
    /// The root; the intermediate otherwise.
    pub root: bool,
    /// Even if that cuts somebody off.
    pub force: bool,
}

/// One certificate of this host, for `lateen certificates`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateDetail {
    /// `node` or `workload`.
    pub kind: String,
    /// Its one name.
    pub identity: String,
    /// Its serial in hex; none while there is no certificate.
    pub serial: Option<String>,
    /// When it was made, in seconds since 1970.
    pub made: Option<u64>,
    /// When it expires, in seconds since 1970.
    pub expires: Option<u64>,
    /// When it is to be renewed, give or take a tenth of its age by then.
    pub renews: Option<u64>,
    /// The certificates from it up, leaf first, as PEM.
    pub chain: Vec<String>,
    /// Why it could not be had or renewed.
    pub error: Option<String>,
}

impl Sources {
    /// `GET /ca`.
    pub(super) fn ca(&self, _body: &[u8]) -> Answer {
        match self.of_control() {
            Ok(control) => Answer::json(&ca_status(control)),
            Err(answer) => answer,
        }
    }

    /// `POST /ca/rotate`.
    pub(super) fn ca_rotate(&self, body: &[u8]) -> Answer {
        let control = match self.of_primary() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let ask: RotateAsk = match serde_json::from_slice(body) {
            Ok(ask) => ask,
            Err(e) => return Answer::error(StatusCode::BAD_REQUEST, e.to_string()),
        };
        match ask.root {
            true => rotate_root(control, ask.force),
            false => rotate_issuing(control),
        }
    }

    /// `POST /ca/revoke`: one certificate, by its serial.
    pub(super) fn ca_revoke(&self, body: &[u8]) -> Answer {
        let control = match self.of_primary() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let serial = String::from_utf8_lossy(body).trim().to_owned();
        match control.authority.revoke(&serial, SystemTime::now()) {
            Ok(node) => {
                audit::granted("revoke", &serial, &"operator", &format!("of node {node}"));
                // If it was the node's own, its streams rest on nothing now; if not, it comes back.
                let reason = format!("a certificate of node {node} has been revoked");
                let status = tonic::Status::permission_denied(reason);
                control.clients.end(&node, status.clone());
                control.health.end(&node, status);
                Answer::text(format!(
                    "the certificate {serial} of node {node} is revoked"
                ))
            }
            Err(e) => Answer::error(StatusCode::NOT_FOUND, chain(&e)),
        }
    }

    /// `POST /nodes/revoke`: a node and everything it was given.
    pub(super) fn revoke_node(&self, body: &[u8]) -> Answer {
        let control = match self.of_primary() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let node = String::from_utf8_lossy(body).trim().to_owned();
        match shut_out(control, &node) {
            Ok(Some(count)) => {
                audit::granted("revoke node", &node, &"operator", "");
                Answer::text(format!(
                    "node {node} is shut out; {count} of its certificates are revoked"
                ))
            }
            Ok(None) => {
                let reason = format!("node `{node}` has neither joined nor a bearer token");
                Answer::error(StatusCode::NOT_FOUND, reason)
            }
            Err(reason) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, reason),
        }
    }

    /// `POST /nodes/approve`: lets a frozen node go on.
    pub(super) fn approve_node(&self, body: &[u8]) -> Answer {
        let control = match self.of_primary() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        let node = String::from_utf8_lossy(body).trim().to_owned();
        match control.enrolment.approve(&node) {
            Ok(true) => {
                audit::granted("approve node", &node, &"operator", "");
                Answer::text(format!(
                    "node {node} may go on with the certificate it was last given"
                ))
            }
            Ok(false) => Answer::error(
                StatusCode::NOT_FOUND,
                format!("node `{node}` has not joined"),
            ),
            Err(e) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, chain(&e)),
        }
    }

    /// `GET /certificates`: those of this host.
    pub(super) fn certificates(&self, _body: &[u8]) -> Answer {
        let Some(node) = self.node.as_ref().and_then(|n| n.borrow().clone()) else {
            let reason = "no node role runs in this process, or it has not joined";
            return Answer::error(StatusCode::NOT_FOUND, reason);
        };
        let own = node.agent.identity.as_ref().map(|i| i.borrow().clone());
        let own = own.iter().map(|own| {
            let id = own.svid.id().to_string();
            detail("node", id, Some(&own.svid), None)
        });
        let mut lines: Vec<_> = own.collect();
        for status in node.agent.certs.snapshot() {
            let error = status.error.map(|e| e.to_string());
            let id = status.id.to_string();
            lines.push(detail("workload", id, status.svid.as_deref(), error));
        }
        Answer::json(&lines)
    }
}

fn detail(
    kind: &str,
    identity: String,
    svid: Option<&Svid>,
    error: Option<String>,
) -> CertificateDetail {
    let made = svid.map(|s| made_at(s.not_before(), s.not_after()));
    let renews = svid.map(|s| {
        let most = match kind {
            "node" => Duration::from_secs(24 * 3600),
            _ => Duration::from_secs(12 * 3600),
        };
        let life = s
            .not_after()
            .duration_since(s.not_before())
            .unwrap_or_default();
        s.not_before() + most.min(life / 2)
    });
    CertificateDetail {
        kind: kind.to_owned(),
        identity,
        serial: svid.map(|s| s.serial().to_owned()),
        made: made.map(seconds),
        expires: svid.map(|s| seconds(s.not_after())),
        renews: renews.map(seconds),
        chain: svid.map_or_else(Vec::new, |s| {
            s.chain().iter().map(|c| crate::tls::to_pem(c)).collect()
        }),
        error,
    }
}

/// Shuts a node out everywhere; how many certificates that takes back. None for one nobody knows.
fn shut_out(control: &ControlHandle, node: &str) -> Result<Option<usize>, String> {
    let joined = control.enrolment.revoke_node(node).map_err(|e| chain(&e))?;
    let bearer = control.bearers.list().iter().any(|b| *b.node == *node);
    if !joined && !bearer {
        return Ok(None);
    }
    control.bearers.revoke_node(node).map_err(|e| chain(&e))?;
    let reason = format!("node {node} has been revoked");
    let status = tonic::Status::permission_denied(reason);
    control.clients.end(node, status.clone());
    control.health.end(node, status);
    control.health.revoked(node);
    let now = SystemTime::now();
    let count = control
        .authority
        .revoke_node(node, now)
        .map_err(|e| chain(&e))?;
    Ok(Some(count))
}

fn rotate_issuing(control: &ControlHandle) -> Answer {
    match control.authority.rotate_issuing(SystemTime::now()) {
        Ok(()) => {
            let name = control.authority.ring().issuing.name.clone();
            audit::granted("rotate", &"intermediate", &"operator", &name);
            Answer::text(format!(
                "{name} signs from now on; certificates of the former one stay good"
            ))
        }
        Err(e) => Answer::error(StatusCode::CONFLICT, chain(&e)),
    }
}

fn rotate_root(control: &ControlHandle, force: bool) -> Answer {
    let ring = control.authority.ring();
    let blocked = in_the_way(
        ring.phase,
        ring.since,
        &standings(control, SystemTime::now()),
    );
    if !blocked.is_empty() && !force {
        let reason = format!(
            "the next step would cut off:\n  {}\nwait for them, or go on without them with --force",
            blocked.join("\n  ")
        );
        return Answer::error(StatusCode::CONFLICT, reason);
    }
    match control.authority.rotate_root(SystemTime::now()) {
        Ok(phase) => {
            let (name, text) = told(phase);
            audit::granted("rotate", &"root", &"operator", name);
            Answer::text(text)
        }
        Err(e) => Answer::error(StatusCode::CONFLICT, chain(&e)),
    }
}

fn told(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Add => (
            "add",
            "a new root is believed beside the old one; run this again to let it sign, once every node has it",
        ),
        Phase::Switch => (
            "switch",
            "the new root signs, and nodes fetch new certificates; run this again to stop believing the old one, once they all have. Join tokens made before now are good until then",
        ),
        Phase::Steady => (
            "remove",
            "the old root is believed no more; the key of it may be destroyed",
        ),
    }
}

fn ca_status(control: &ControlHandle) -> CaStatus {
    let ring = control.authority.ring();
    let roots = ring.roots.iter().map(|r| CaLine {
        name: "root".to_owned(),
        state: match r.state {
            RootState::Active => "active",
            RootState::Added => "added",
            RootState::Retiring => "retiring",
        }
        .to_owned(),
        spki_sha256: hex(&r.spki),
        expires: validity_of(&r.certificate).map_or(0, |(_, ends)| seconds(ends)),
    });
    let issuing = &ring.issuing;
    let spki = crate::tls::spki_sha256(&issuing.certificate).unwrap_or_default();
    let (phase, _) = match ring.phase {
        Phase::Steady => ("steady", ()),
        Phase::Add => ("add", ()),
        Phase::Switch => ("switch", ()),
    };
    CaStatus {
        trust_domain: control.authority.trust_domain().to_string(),
        sequence: ring.sequence,
        phase: phase.to_owned(),
        roots: roots.collect(),
        issuing: CaLine {
            name: issuing.name.clone(),
            state: "active".to_owned(),
            spki_sha256: hex(&spki),
            expires: seconds(issuing.ends),
        },
        revoked: ring.revoked,
        crl_number: ring.crl_number,
        in_the_way: in_the_way(
            ring.phase,
            ring.since,
            &standings(control, SystemTime::now()),
        ),
    }
}
