//! Envoy as a waypoint, with the listeners that Istio gives it: one ends tunnels, one inside serves
//! what comes through them as HTTP, and one inside opens the tunnels to endpoints.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use super::super::envoy::{Files, TYPES, tls};
use super::authority::{Authority, identity, trust_domain};
use super::{Routing, TUNNELS, http};
use crate::exec::Daemon;
use crate::fault::Fault;
use crate::rig::{Host, Place, Stage};

/// The cluster of the service's endpoints.
pub(super) const ENDPOINTS: &str = "endpoints";
/// The listener, and the cluster that leads to it, where requests are served.
const SERVE: &str = "serve";
/// The listener that opens tunnels to endpoints.
const ORIGINATE: &str = "originate";
/// The cluster of nodes' tunnel ports.
const NODES: &str = "nodes";
/// What an endpoint is known by inside: the address that a connection would have been meant for.
const DESTINATION: &str = "envoy.filters.listener.original_dst";
/// Threads, as Istio runs its waypoints.
const THREADS: &str = "2";

/// Starts one on a host.
pub(super) fn start(
    stage: &Stage,
    (host, address): Host,
    binary: &Path,
    server: &Place,
    authority: &Authority,
    routing: &Routing,
) -> Result<Daemon, Fault> {
    let settings = Settings {
        files: authority.certify(stage, host)?,
        address,
        endpoint: SocketAddr::from((server.address(), http::PORT)),
        node: identity(&server.namespace),
        routes: routing.routes.clone(),
    };
    let text = settings.bootstrap().to_string();
    let file = stage.write(&format!("{host}.json"), &text)?;
    let mut command = stage.on(host, &binary.display().to_string());
    command.args(["--concurrency", THREADS, "-l", "warning", "-c"]);
    let log = stage.file(&format!("{host}.log"));
    Daemon::start(command.arg(file), &log)
}

/// What one is about. No access log and no administration: both are off unless asked for.
struct Settings {
    files: Files,
    /// Where it takes tunnels.
    address: Ipv4Addr,
    /// The program.
    endpoint: SocketAddr,
    /// Who is at the other end of the tunnel to it.
    node: String,
    routes: Value,
}

impl Settings {
    fn bootstrap(&self) -> Value {
        json!({
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": format!("{TYPES}.bootstrap.internal_listener.v3.InternalListener"),
                },
            }],
            "static_resources": {
                "listeners": [self.terminate(), self.serve(), originate()],
                "clusters": [internal(SERVE, SERVE, &json!({})), self.endpoints(), self.nodes()],
            },
        })
    }

    /// Ends tunnels and hands what is in them to [`SERVE`].
    fn terminate(&self) -> Value {
        let upgrade = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
        let mut manager = manager(
            "terminate",
            &json!([{
                "match": { "connect_matcher": {} },
                "route": { "cluster": SERVE, "timeout": "0s", "upgrade_configs": upgrade },
            }]),
        );
        manager["codec_type"] = json!("HTTP2");
        manager["http2_protocol_options"] = json!({ "allow_connect": true });
        manager["upgrade_configs"] = json!([{ "upgrade_type": "CONNECT" }]);
        let prefix = json!({ "prefix": trust_domain() });
        let socket = tls(
            &self.files,
            "DownstreamTlsContext",
            "require_client_certificate",
        );
        json!({
            "name": "terminate",
            "address": { "socket_address": {
                "address": self.address.to_string(),
                "port_value": TUNNELS,
            } },
            "filter_chains": [{
                "filters": [http_filter(&manager)],
                "transport_socket": peers(socket, &prefix),
            }],
        })
    }

    /// Serves requests.
    fn serve(&self) -> Value {
        json!({
            "name": SERVE,
            "internal_listener": {},
            "filter_chains": [{ "filters": [http_filter(&manager(SERVE, &self.routes))] }],
        })
    }

    /// The endpoints of the service, each by way of [`ORIGINATE`].
    fn endpoints(&self) -> Value {
        let endpoint = self.endpoint.to_string();
        let metadata = json!({ "filter_metadata": { DESTINATION: { "local": endpoint } } });
        let mut cluster = internal(ENDPOINTS, ORIGINATE, &metadata);
        cluster["lb_policy"] = json!("LEAST_REQUEST");
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {
                "@type": format!(
                    "{TYPES}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"
                ),
                "passthrough_metadata": [{ "kind": { "host": {} }, "name": DESTINATION }],
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": {
                        "@type": format!("{TYPES}.transport_sockets.raw_buffer.v3.RawBuffer"),
                    },
                },
            },
        });
        cluster
    }

    /// The node of whatever endpoint was chosen.
    fn nodes(&self) -> Value {
        let socket = tls(&self.files, "UpstreamTlsContext", "allow_renegotiation");
        json!({
            "name": NODES,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "original_dst_lb_config": { "upstream_port_override": TUNNELS },
            "transport_socket": peers(socket, &json!({ "exact": self.node })),
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {
                        "http2_protocol_options": { "allow_connect": true },
                    },
                },
            },
        })
    }
}

/// Opens a tunnel to the address that an endpoint is known by.
fn originate() -> Value {
    json!({
        "name": ORIGINATE,
        "internal_listener": {},
        "listener_filters": [{
            "name": DESTINATION,
            "typed_config": {
                "@type": format!("{TYPES}.filters.listener.original_dst.v3.OriginalDst"),
            },
        }],
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": ORIGINATE,
                "cluster": NODES,
                "tunneling_config": { "hostname": "%DOWNSTREAM_LOCAL_ADDRESS%" },
            },
        }] }],
    })
}

/// What turns a connection into requests and routes them.
fn manager(name: &str, routes: &Value) -> Value {
    json!({
        "@type": format!(
            "{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": name,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": routes,
        }] },
    })
}

fn http_filter(manager: &Value) -> Value {
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

/// A cluster whose one endpoint is a listener inside.
fn internal(name: &str, listener: &str, metadata: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": {
                    "envoy_internal_address": { "server_listener_name": listener },
                } },
                "metadata": metadata,
            }] }],
        },
    })
}

/// Mutual TLS with those peers only whose SPIFFE ID fits.
fn peers(mut socket: Value, fits: &Value) -> Value {
    let context = &mut socket["typed_config"]["common_tls_context"];
    context["validation_context"]["match_typed_subject_alt_names"] =
        json!([{ "san_type": "URI", "matcher": fits }]);
    socket
}
