//! What a scripted control plane says of its health.

use std::sync::{Arc, Mutex};

use tonic::{Request, Response, Status};

use super::Script;
use crate::wire::proto::grpc_health::health_check_response::ServingStatus;
use crate::wire::proto::grpc_health::health_server::Health;
use crate::wire::proto::grpc_health::{HealthCheckRequest, HealthCheckResponse};

/// Whether it is fit to serve, as its script says.
#[derive(Default)]
pub(in crate::agent) struct Fitness(pub(super) Arc<Mutex<Script>>);

#[tonic::async_trait]
impl Health for Fitness {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match self.0.lock().unwrap().unfit {
            true => ServingStatus::NotServing,
            false => ServingStatus::Serving,
        };
        let status = status.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }
}
