//! Values to bytes and back: the protobuf types of Istio's and our own control protocols, and
//! their conversion to and from [`crate::model`]. No tasks, no clock; nothing else sees protobuf's
//! shape of a workload.

pub mod convert;

/// Generated from `proto/` at build time.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    unnameable_types,
    clippy::all,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    clippy::or_fun_call,
    clippy::wildcard_imports,
    reason = "generated code"
)]
pub mod proto {
    /// `istio.workload`.
    pub mod workload {
        tonic::include_proto!("istio.workload");
    }
    /// `istio.security`.
    pub mod security {
        tonic::include_proto!("istio.security");
    }
    /// `istio.v1.auth`.
    pub mod citadel {
        tonic::include_proto!("istio.v1.auth");
    }
    /// `envoy.service.discovery.v3`.
    pub mod discovery {
        tonic::include_proto!("envoy.service.discovery.v3");
    }
    /// `envoy.service.auth.v3`.
    pub mod ext_authz {
        tonic::include_proto!("envoy.service.auth.v3");
    }
    /// `grpc.health.v1`.
    pub mod grpc_health {
        tonic::include_proto!("grpc.health.v1");
    }
    /// `lateen.v1`.
    pub mod lateen {
        tonic::include_proto!("lateen.v1");
    }
    /// `lateen.waypoint.v1`.
    pub mod waypoint {
        tonic::include_proto!("lateen.waypoint.v1");
    }
}

/// Type URL of [`proto::workload::Address`].
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Type URL of Istio's L4 policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
/// Type URL of [`proto::lateen::Revision`].
pub const REVISION: &str = "type.googleapis.com/lateen.v1.Revision";
/// Type URL of [`proto::lateen::TrustBundle`].
pub const TRUST: &str = "type.googleapis.com/lateen.v1.TrustBundle";
/// Type URL of [`proto::lateen::Placement`].
pub const PLACEMENT: &str = "type.googleapis.com/lateen.v1.Placement";
/// Type URL of [`proto::waypoint::Resource`].
pub const WAYPOINT: &str = "type.googleapis.com/lateen.waypoint.v1.Resource";

/// The key of a node's metadata under which it tells which waypoints it is, as a list of
/// `namespace/name`.
pub const WAYPOINTS: &str = "WAYPOINTS";
/// The key of a node's metadata under which our own tell their version.
pub const LATEEN_VERSION: &str = "LATEEN_VERSION";
