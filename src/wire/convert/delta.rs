//! Delta discovery responses whose resources are encoded once and shared by all clients.
//!
//! [`Response`] is, byte for byte, `envoy.service.discovery.v3.DeltaDiscoveryResponse`; only its
//! resources stay encoded. Putting one into a response costs a reference count, and its bytes are
//! first copied when the response is written out.

use bytes::Bytes;
use prost::Message;
use prost_types::Any;

use crate::wire::proto::discovery::Resource;

/// A `DeltaDiscoveryResponse` with encoded resources.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Which revision this is part of, for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Encoded `Resource` messages, made by [`encode_resource`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of all its resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the client's ACK will quote.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that no longer exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// The encoded `Resource` that carries `body`, an encoded message of type `type_url`.
pub fn encode_resource(
    type_url: &str,
    name: &str,
    version: &str,
    aliases: Vec<String>,
    body: Vec<u8>,
) -> Bytes {
    let resource = Resource {
        version: version.to_owned(),
        resource: Some(Any {
            type_url: type_url.to_owned(),
            value: body,
        }),
        name: name.to_owned(),
        aliases,
        ttl: None,
    };
    resource.encode_to_vec().into()
}
