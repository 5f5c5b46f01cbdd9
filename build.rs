//! Compiles `proto/` to Rust with protox, so that no protoc is needed.

use std::error::Error;

const FILES: [&str; 8] = [
    "istio/workload.proto",
    "istio/citadel.proto",
    "istio/authorization.proto",
    "envoy/discovery.proto",
    "envoy/ext_authz.proto",
    "grpc/health.proto",
    "lateen/lateen.proto",
    "lateen/waypoint.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Ordered maps encode alike in every process, which content versions rest on.
        .btree_map(".")
        .bytes(".envoy.service.discovery.v3")
        .compile_fds(descriptors)?;
    Ok(())
}
