//! Looks at every request before its service does: whose token it carries, and whether the node
//! whose certificate it came under may still speak.

use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Code, Request, Status};

use super::bearer::Bearers;
use super::caller::Caller;
use super::enrolment::Enrolment;
use crate::causes::chain;
use crate::tls::Trust;

/// Who is let through. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    bearers: Arc<Bearers>,
    trust: Trust,
    /// None on a control plane that has no registry of nodes: a certificate is then all there is.
    nodes: Option<Arc<Enrolment>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that knows tokens, what is revoked and, where there is a registry, nodes.
    pub fn new(bearers: Arc<Bearers>, trust: Trust, nodes: Option<Arc<Enrolment>>) -> Self {
        Self {
            bearers,
            trust,
            nodes,
        }
    }

    /// Puts into the request's caller what is known of it. A certificate that is not taken is told
    /// by the service that needs one, since to renew is to show one that may have been replaced.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a token that names nobody, or another than the certificate beside it.
    pub fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut request = self.bearers.authenticate(request)?;
        if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
            self.judge(caller);
        }
        Ok(request)
    }

    /// A caller as it stands now: what was true when its request began may not be any more.
    #[must_use]
    pub fn again(&self, mut caller: Caller) -> Caller {
        caller.refused = None;
        caller.revoked = false;
        self.judge(&mut caller);
        caller
    }

    /// The same where there may be no gate to ask. Who registers a stream asks after that: a revocation
    /// that came before it ended nothing, and one that comes later ends the stream.
    pub(super) fn judged(gate: Option<&Self>, caller: Caller) -> Caller {
        match gate {
            Some(gate) => gate.again(caller),
            None => caller,
        }
    }

    fn judge(&self, caller: &mut Caller) {
        let denied = |reason: String| Some((Code::PermissionDenied, Arc::from(reason)));
        let spki = caller.spki.unwrap_or_default();
        if let (Some(nodes), Some(node)) = (&self.nodes, &caller.node)
            && let Err(e) = nodes.admit(node, spki)
        {
            caller.refused = denied(chain(&e));
        }
        let certificate = caller.certificate.as_ref();
        let revoked = certificate.filter(|c| self.trust.bundle().revokes(c));
        if let Some(revoked) = revoked {
            let who = caller.node.as_ref().or(caller.control.as_ref());
            let who = who.map_or("the caller", |name| name);
            let reason = format!("certificate {} of {who} is revoked", revoked.serial());
            caller.revoked = true;
            caller.refused = caller.refused.take().or_else(|| denied(reason));
        }
        let taken_back = |id: &Arc<str>| self.bearers.is_revoked(id);
        if caller.refused.is_none() && caller.bearer_id.as_ref().is_some_and(taken_back) {
            caller.refused = denied("the bearer token is revoked".to_owned());
        }
        let over = |end: SystemTime| end <= SystemTime::now();
        if caller.refused.is_none() && caller.expires.is_some_and(over) {
            let reason =
                Arc::from("the certificate or token that the connection began with has expired");
            caller.refused = Some((Code::Unauthenticated, reason));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::enrolment::{self, Joining, Presented};
    use crate::control::loopback::KEY;
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::tls::testing::{Leaf, TestCa};
    use crate::tls::{Bundle, CertificateKey};
    use std::path::Path;
    use std::time::Duration;

    /// One that lets the node `edge-1` through, by [`KEY`].
    pub(crate) fn gate(dir: &Path) -> (Gate, Arc<Enrolment>) {
        let bearers = Bearers::open(dir, [7; 16], &TrustDomain::default()).unwrap();
        let nodes = Arc::new(Enrolment::open(dir).unwrap());
        let now = SystemTime::now();
        let token = nodes
            .create("edge-1", enrolment::DEFAULT_TTL, false, [0; 32], now)
            .unwrap();
        let joining = Joining {
            token: &token.id,
            secret: &token.secret,
            node: "edge-1",
            spki: KEY,
            declared: true,
        };
        nodes.join(&joining, now).unwrap();
        let trust = TestCa::new().trust();
        let gate = Gate::new(Arc::new(bearers), trust, Some(Arc::clone(&nodes)));
        (gate, nodes)
    }

    /// What comes of a call under a certificate.
    fn call(gate: &Gate, node: &str, key: [u8; 32]) -> Result<(), Code> {
        let id = SpiffeId::node(&TrustDomain::default(), node).unwrap();
        let mut request = Request::new(());
        let address = "192.0.2.1:1".parse().unwrap();
        request
            .extensions_mut()
            .insert(Caller::new(Some(&id), Some(key), address));
        let request = gate.check(request).unwrap();
        let caller = Caller::of(&request).unwrap();
        caller.named().map(drop).map_err(|s| s.code())
    }

    #[test]
    fn a_certificate_is_worth_what_the_registry_says_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, nodes) = gate(dir.path());
        let denied = Err(Code::PermissionDenied);
        assert_eq!(call(&gate, "edge-1", KEY), Ok(()));
        assert_eq!(call(&gate, "edge-1", [2; 32]), denied, "another key");
        assert_eq!(call(&gate, "edge-2", KEY), denied, "never joined");
        let now = SystemTime::now() + Duration::from_secs(60);
        let presented = Presented {
            spki: KEY,
            made: SystemTime::now(),
        };
        nodes.renew("edge-1", presented, [3; 32], now).unwrap();
        assert_eq!(call(&gate, "edge-1", KEY), Ok(()), "the answer may be lost");
        assert_eq!(call(&gate, "edge-1", [3; 32]), Ok(()));
        assert_eq!(
            call(&gate, "edge-1", KEY),
            denied,
            "its successor is in use"
        );
        assert!(nodes.revoke_node("edge-1").unwrap());
        assert_eq!(call(&gate, "edge-1", [3; 32]), denied, "revoked");
        let elsewhere = Gate::new(Arc::clone(&gate.bearers), gate.trust.clone(), None);
        assert_eq!(call(&elsewhere, "edge-1", KEY), Ok(()), "no registry");
    }

    #[test]
    fn what_has_ended_since_the_connection_began_is_no_credential() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, _nodes) = gate(dir.path());
        let token = gate
            .bearers
            .make("edge-1", Duration::from_secs(3600), SystemTime::now())
            .unwrap();
        let mut request = Request::new(());
        let address = "192.0.2.1:1".parse().unwrap();
        request
            .extensions_mut()
            .insert(Caller::new(None, None, address));
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let caller = Caller::of(&gate.check(request).unwrap()).unwrap();
        assert!(gate.again(caller.clone()).named().is_ok());
        let mut late = caller.clone();
        late.until(SystemTime::now() - Duration::from_secs(1));
        let code = gate.again(late).named().unwrap_err().code();
        assert_eq!(code, Code::Unauthenticated);
        gate.bearers.revoke_node("edge-1").unwrap();
        let code = gate.again(caller).named().unwrap_err().code();
        assert_eq!(code, Code::PermissionDenied);
    }

    #[test]
    fn a_certificate_that_was_taken_back_is_good_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new();
        let bearers = Bearers::open(dir.path(), [7; 16], &TrustDomain::default()).unwrap();
        let trust = ca.trust();
        let gate = Gate::new(Arc::new(bearers), trust.clone(), None);
        let id = SpiffeId::node(&TrustDomain::default(), "edge-1").unwrap();
        let (leaf, _key) = ca.leaf(&Leaf::uris(&["spiffe://cluster.local/node/edge-1"]));
        let call = || {
            let address = "192.0.2.1:1".parse().unwrap();
            let mut caller = Caller::new(Some(&id), Some(KEY), address);
            caller.certificate = CertificateKey::of(&leaf);
            let mut request = Request::new(());
            request.extensions_mut().insert(caller);
            Caller::of(&gate.check(request).unwrap()).unwrap()
        };
        assert!(call().node().is_ok() && call().presented().is_ok());
        let crl = ca.crl(1, &[&leaf]);
        let bundle = Bundle::new(1, ca.roots(), &[crl], SystemTime::UNIX_EPOCH);
        trust.replace(bundle.unwrap());
        for refused in [call().node().cloned(), call().presented().cloned()] {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains("is revoked"), "{status}");
        }
    }
}
