//! A pair of Envoys: TCP proxies whose connections go through HTTP/2 CONNECT in mutual TLS.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use serde_json::{Value, json};

use super::{Mesh, capture_by_mark, listens};
use crate::exec::Daemon;
use crate::fault::Fault;
use crate::rig::{Ground, Place, Stage};

/// Where it takes captured connections.
const CAPTURED: u16 = 15001;
/// Where its tunnels arrive.
const TUNNELS: u16 = 15008;
/// `SOL_SOCKET` and `SO_MARK`, as Linux numbers them on most machines.
const MARK_OPTION: (u8, u8) = (1, 36);
/// What Envoy calls the types of its settings.
pub(super) const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Brings one up in every namespace, then captures them.
pub(super) fn up(stage: &Stage, ground: &Ground, binary: &Path) -> Result<Mesh, Fault> {
    let issuer = authority(stage, ground)?;
    let mut mesh = Mesh::transparent(ground);
    for place in ground.places() {
        let files = certify(stage, ground, place, &issuer)?;
        let name = format!("{}/{}.json", ground.name, place.namespace);
        let file = stage.write(&name, &settings(&files).to_string())?;
        let mut command = stage.within(place, &binary.display().to_string());
        command.args(["--base-id", &base_id(ground, place), "-c"]);
        let log = stage.file(&format!("{}/{}.log", ground.name, place.namespace));
        let daemon = Daemon::start(command.arg(file), &log)?;
        if place.namespace == ground.client.namespace {
            mesh.client_side.push(daemon.pid());
        } else if place.namespace == ground.server.namespace {
            mesh.server_side.push(daemon.pid());
        }
        mesh.daemons.push(daemon);
    }
    for place in ground.places() {
        for port in [CAPTURED, TUNNELS] {
            listens(stage, place, port, &mut mesh)?;
        }
        capture_by_mark(stage, place)?;
    }
    mesh.tunnel_port = Some(TUNNELS);
    Ok(mesh)
}

/// Several on one machine share memory by this number unless it differs.
fn base_id(ground: &Ground, place: &Place) -> String {
    let [.., net, last] = place.address().octets();
    format!("{}{net:03}{last:03}", ground.index + 1)
}

/// Paths of a certificate, its key, and the authority's certificate.
pub(super) struct Files {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) authority: String,
}

/// A certificate that was not made.
pub(super) fn failed(source: &rcgen::Error) -> Fault {
    Fault::said("making certificates", source.to_string())
}

fn authority(stage: &Stage, ground: &Ground) -> Result<Issuer<'static, KeyPair>, Fault> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "bench authority");
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    let certificate = params.self_signed(&key).map_err(|e| failed(&e))?;
    stage.write(&format!("{}/ca.pem", ground.name), &certificate.pem())?;
    Ok(Issuer::new(params, key))
}

fn certify(
    stage: &Stage,
    ground: &Ground,
    place: &Place,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<Files, Fault> {
    let id = format!("spiffe://bench/ns/bench/sa/{}", place.namespace);
    let (certificate, key) = leaf(&id, issuer)?;
    let write = |end: &str, text: &str| {
        let name = format!("{}/{}.{end}", ground.name, place.namespace);
        let path = stage.write(&name, text)?;
        Ok::<_, Fault>(path.display().to_string())
    };
    let authority = stage.file(&format!("{}/ca.pem", ground.name));
    Ok(Files {
        certificate: write("pem", &certificate)?,
        key: write("key", &key)?,
        authority: authority.display().to_string(),
    })
}

/// A certificate for `id`, good at both ends of a tunnel, and its key, both as PEM.
pub(super) fn leaf(id: &str, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String), Fault> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
    params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(|e| failed(&e))?)];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    let certificate = params.signed_by(&key, issuer).map_err(|e| failed(&e))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn settings(files: &Files) -> Value {
    json!({
        "static_resources": {
            "listeners": [captured(), tunnels(files)],
            "clusters": [to_tunnel(files), to_program()],
        }
    })
}

fn listener(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": port } },
    })
}

/// Takes a captured connection and asks its peer, where it was going, to pass it on.
fn captured() -> Value {
    let mut listener = listener("captured", CAPTURED);
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.original_dst",
        "typed_config": {
            "@type": format!("{TYPES}.filters.listener.original_dst.v3.OriginalDst"),
        },
    }]);
    listener["filter_chains"] = json!([{ "filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "captured",
            "cluster": "to-tunnel",
            "tunneling_config": { "hostname": "%DOWNSTREAM_LOCAL_ADDRESS%" },
        },
    }] }]);
    listener
}

/// Answers CONNECT and passes the stream on to the address that was asked for.
fn tunnels(files: &Files) -> Value {
    let mut listener = listener("tunnels", TUNNELS);
    let upgrade = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    let manager = json!({
        "@type": format!(
            "{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "tunnels",
        "codec_type": "HTTP2",
        "http2_protocol_options": { "allow_connect": true },
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": { "connect_matcher": {} },
                "route": { "cluster": "to-program", "timeout": "0s", "upgrade_configs": upgrade },
            }],
        }] },
    });
    listener["filter_chains"] = json!([{
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }],
        "transport_socket": tls(files, "DownstreamTlsContext", "require_client_certificate"),
    }]);
    listener
}

/// The peer's tunnel port at whatever address was asked for.
fn to_tunnel(files: &Files) -> Value {
    let mut cluster = cluster("to-tunnel", &json!({ "upstream_port_override": TUNNELS }));
    cluster["transport_socket"] = tls(files, "UpstreamTlsContext", "allow_renegotiation");
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {
                "http2_protocol_options": { "allow_connect": true },
            },
        }
    });
    cluster
}

/// The program that CONNECT names.
fn to_program() -> Value {
    cluster(
        "to-program",
        &json!({ "use_http_header": true, "http_header_name": ":authority" }),
    )
}

/// Connects to the address that a connection was meant for, marked as the proxy's own.
fn cluster(name: &str, destination: &Value) -> Value {
    let (level, option) = MARK_OPTION;
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "original_dst_lb_config": destination,
        "upstream_bind_config": {
            "source_address": { "address": "0.0.0.0", "port_value": 0 },
            "socket_options": [{
                "level": level,
                "name": option,
                "int_value": ::lateen::capture::ruleset::PROXY_MARK,
                "state": "STATE_PREBIND",
            }],
        },
    })
}

/// Mutual TLS 1.3 by our authority, whoever the peer is of those it certified.
pub(super) fn tls(files: &Files, context: &str, switch: &str) -> Value {
    let mut config = json!({
        "@type": format!("{TYPES}.transport_sockets.tls.v3.{context}"),
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": { "filename": files.certificate },
                "private_key": { "filename": files.key },
            }],
            "validation_context": { "trusted_ca": { "filename": files.authority } },
        },
    });
    // The accepting side must be told to ask for a certificate.
    config[switch] = json!(switch == "require_client_certificate");
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}
