//! `grpc.health.v1.Health/Check` on the control plane's port, for load balancers and nodes that
//! choose among several (`spec/control-plane.md` §1.1). Anyone may ask.
//!
//! Written by hand: what `tonic-health` adds is a register of services that set their own state,
//! and ours follows from two values that are there already.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::ca::Authority;
use super::revision::Revision;
use crate::wire::proto::grpc_health::health_check_response::ServingStatus;
use crate::wire::proto::grpc_health::health_server::{Health, HealthServer};
use crate::wire::proto::grpc_health::{HealthCheckRequest, HealthCheckResponse};

/// The service.
#[derive(Debug)]
pub struct Readiness {
    revisions: watch::Receiver<Option<Arc<Revision>>>,
    authority: Arc<Authority>,
}

impl Readiness {
    /// Ready when there is a revision to serve and an authority that can sign.
    pub fn new(
        revisions: watch::Receiver<Option<Arc<Revision>>>,
        authority: Arc<Authority>,
    ) -> HealthServer<Self> {
        HealthServer::new(Self {
            revisions,
            authority,
        })
    }

    fn status(&self, now: SystemTime) -> ServingStatus {
        match self.revisions.borrow().is_some() && self.authority.signs(now) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        // The empty name is the whole server; it has no parts that are ready by themselves.
        let service = request.into_inner().service;
        if !service.is_empty() {
            let message = format!("no health is kept for `{service}`, ask for the empty name");
            return Err(Status::not_found(message));
        }
        Ok(Response::new(HealthCheckResponse {
            status: self.status(SystemTime::now()).into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::revision::tests::{compiled, revision};
    use crate::identity::TrustDomain;
    use crate::model::compile::sample;
    use std::time::Duration;

    #[test]
    fn ready_with_a_revision_and_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Authority::open(dir.path(), None, &TrustDomain::default(), now).unwrap();
        let (revisions, seen) = watch::channel(None);
        let readiness = Readiness {
            revisions: seen,
            authority: Arc::new(authority),
        };
        assert_eq!(
            readiness.status(now),
            ServingStatus::NotServing,
            "no revision"
        );
        revisions.send_replace(Some(revision(1, &compiled(&sample::mesh()), &[], None)));
        assert_eq!(readiness.status(now), ServingStatus::Serving);
        let later = now + Duration::from_secs(20 * 365 * 86_400);
        assert_eq!(
            readiness.status(later),
            ServingStatus::NotServing,
            "the issuer is at its end"
        );
    }

    #[tokio::test]
    async fn knows_no_parts() {
        let dir = tempfile::tempdir().unwrap();
        let authority =
            Authority::open(dir.path(), None, &TrustDomain::default(), SystemTime::now());
        let (_revisions, seen) = watch::channel(None);
        let readiness = Readiness {
            revisions: seen,
            authority: Arc::new(authority.unwrap()),
        };
        let ask = |service: &str| {
            let service = service.to_owned();
            readiness.check(Request::new(HealthCheckRequest { service }))
        };
        let whole = ask("").await.unwrap().into_inner();
        assert_eq!(whole.status(), ServingStatus::NotServing);
        let part = ask("istio.v1.auth.IstioCertificateService").await;
        assert_eq!(part.unwrap_err().code(), tonic::Code::NotFound);
    }
}
