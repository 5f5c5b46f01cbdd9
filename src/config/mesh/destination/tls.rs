//! `tls` and `proxy-protocol` (§3.5).

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::mesh::no_effect;
use crate::config::read::{Table, Value, scalar};
use crate::model::traffic::{ProxyProtocol, TlsOrigination, UpstreamTls};

const MODES: [(&str, Mode); 4] = [
    ("DISABLE", Mode::None),
    ("ISTIO_MUTUAL", Mode::None),
    ("SIMPLE", Mode::Simple),
    ("MUTUAL", Mode::Mutual),
];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Nothing beyond HBONE.
    None,
    Simple,
    Mutual,
}

/// Keys that say how TLS is originated, and nothing where it is not.
const OF_ORIGINATION: [&str; 6] = [
    "client-certificate",
    "private-key",
    "ca-certificates",
    "subject-alt-names",
    "sni",
    "insecure-skip-verify",
];

pub(super) fn read(value: &Value<'_>) -> Option<UpstreamTls> {
    let table = value.nested()?;
    let mode = table.required("mode", "mode = \"SIMPLE\"", |value| {
        scalar::choice(value, &MODES)
    });
    table.unsupported(
        "credential-name",
        "there are no secrets to name: give `client-certificate`, `private-key` and `ca-certificates`, paths of files on the waypoint's host",
    );
    table.unsupported(
        "ca-crl",
        "take the certificate out of `ca-certificates` instead",
    );
    if mode == Some(Mode::None) {
        in_vain(&table);
        table.finish();
        return Some(UpstreamTls::None);
    }
    let skip = table.optional("insecure-skip-verify", Value::boolean);
    let origination = TlsOrigination {
        sni: table.optional("sni", |value| Some(scalar::name(value)?.value)),
        subject_alt_names: table
            .optional("subject-alt-names", |value| value.list(alt_name))
            .unwrap_or_default(),
        ca_certificates: table.optional("ca-certificates", path),
        insecure_skip_verify: skip.unwrap_or(false),
        client_certificate: certificate(&table, mode),
    };
    table.finish();
    mode.map(|_| UpstreamTls::Originate(origination))
}

fn in_vain(table: &Table<'_>) {
    for key in OF_ORIGINATION {
        if let Some(value) = table.value(key) {
            let message = format!("{}: `{key}` means nothing in this mode", table.what());
            let help = "write `mode = \"SIMPLE\"` or `\"MUTUAL\"`, or take it out";
            no_effect(table, value.place().clone(), message, help);
        }
    }
}

fn certificate(table: &Table<'_>, mode: Option<Mode>) -> Option<(Arc<str>, Arc<str>)> {
    if mode == Some(Mode::Mutual) {
        let example = "client-certificate = \"/etc/lateen/tls/client.pem\"";
        let certificate = table.required("client-certificate", example, path);
        let example = "private-key = \"/etc/lateen/tls/client-key.pem\"";
        let key = table.required("private-key", example, path);
        return Some((certificate?, key?));
    }
    for key in ["client-certificate", "private-key"] {
        if let Some(value) = table.value(key) {
            value.reject(
                Code::ConflictingKeys,
                "is not shown in this mode",
                "needs `MUTUAL`",
                "write `mode = \"MUTUAL\"`, or take it out",
            );
        }
    }
    None
}

/// A file on the waypoint's host.
pub(super) fn path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    if !text.starts_with('/') {
        value.bad(
            &format!("is not an absolute path: {text:?}"),
            "not an absolute path",
            "write the path of a file on the waypoint's host, as in `\"/etc/lateen/tls/ca.pem\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// A DNS name, which may begin with `*.`, a URI or an address.
pub(super) fn alt_name(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let legal = text.contains("://")
        || text.parse::<std::net::IpAddr>().is_ok()
        || scalar::name_fault(bare).is_none();
    if !legal {
        value.bad(
            &format!("is no name of a certificate: {text:?}"),
            "not a name",
            "write a DNS name, an address, or a URI such as `spiffe://…`",
        );
        return None;
    }
    Some(Arc::from(text))
}

const VERSIONS: [(&str, ProxyProtocol); 2] = [("V1", ProxyProtocol::V1), ("V2", ProxyProtocol::V2)];

/// `{ version = "V1" }`, which is the default version.
pub(super) fn proxy_protocol(value: &Value<'_>) -> Option<ProxyProtocol> {
    let table = value.nested()?;
    let version = table.optional("version", |value| scalar::choice(value, &VERSIONS));
    table.finish();
    Some(version.unwrap_or(ProxyProtocol::V1))
}
