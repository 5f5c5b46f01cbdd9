//! Providers that are asked over gRPC: Envoy's `envoy.service.auth.v3.Authorization/Check`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use prost::Message as _;

use super::answer::{Changes, Decision, Denied, Edit, Field, is_settable};
use super::{About, Request, Undecided};
use crate::hbone::Connector;
use crate::model::declaration::CheckedBody;
use crate::waypoint::http::{Ask, HEAD, Told, Unanswered, Version, request_id};
use crate::wire::proto::ext_authz as proto;
use proto::attribute_context::{HttpRequest, Peer, TlsSession};
use proto::check_response::HttpResponse;
use proto::header_value_option::HeaderAppendAction;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Octets before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Fields of an answer.
const FIELDS: usize = 100;

pub(super) async fn check<C: Connector + Clone>(
    ask: &Ask<'_, C>,
    about: &About<'_, C>,
    limit: Option<CheckedBody>,
) -> Result<Decision, Undecided> {
    let as_bytes = limit.is_some_and(|limit| limit.as_bytes);
    let message = proto::CheckRequest {
        attributes: Some(attributes(about, as_bytes)),
    };
    let question = question(&ask.host(), &message).ok_or(Unanswered::Unaskable)?;
    let told = ask.send(question, Version::Http2).await?;
    decision(read(&told)?)
}

fn question(host: &str, message: &proto::CheckRequest) -> Option<http::Request<Bytes>> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(host)
        .path_and_query(CHECK)
        .build();
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).ok()?);
    message.encode(&mut body).ok()?;
    http::Request::post(uri.ok()?)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body.freeze())
        .ok()
}

fn attributes<C: Connector>(about: &About<'_, C>, as_bytes: bool) -> proto::AttributeContext {
    let (arrival, instance) = (about.arrival, &about.seen.instance);
    let peer = |at: SocketAddr, principal: Option<String>| Peer {
        address: Some(address(at)),
        principal: principal.unwrap_or_default(),
        service: String::new(),
    };
    let http = about.request.map(|request| http_request(request, as_bytes));
    let tls = about.server_name.map(|name| TlsSession {
        sni: name.to_owned(),
    });
    let own = instance.identity().ok().map(|id| id.to_string());
    proto::AttributeContext {
        source: Some(peer(
            arrival.client.source,
            Some(arrival.client.identity.to_string()),
        )),
        destination: Some(peer(arrival.bound.asked(), own)),
        request: Some(proto::attribute_context::Request {
            time: Some(SystemTime::now().into()),
            http,
        }),
        tls_session: tls,
    }
}

fn address(at: SocketAddr) -> proto::Address {
    let socket = proto::SocketAddress {
        address: at.ip().to_canonical().to_string(),
        port_value: at.port().into(),
    };
    proto::Address {
        address: Some(proto::address::Address::SocketAddress(socket)),
    }
}

fn http_request(request: Request<'_>, as_bytes: bool) -> HttpRequest {
    let parts = request.parts;
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let scheme = parts.uri.scheme_str().unwrap_or("http");
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let (body, raw_body) = match request.body {
        Some(body) if as_bytes => (String::new(), body.bytes.to_vec()),
        Some(body) => (text(&body.bytes), Vec::new()),
        None => (String::new(), Vec::new()),
    };
    HttpRequest {
        id: request_id(&parts.headers).to_owned(),
        method: parts.method.to_string(),
        headers: fields(request, path, scheme),
        path: path.to_owned(),
        host: request.authority.to_string(),
        scheme: scheme.to_owned(),
        size: length.unwrap_or(-1),
        protocol: match parts.version {
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
        .to_owned(),
        body,
        raw_body,
    }
}

/// All fields, those of one name joined, with HTTP/2's own.
fn fields(request: Request<'_>, path: &str, scheme: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (name, value) in &request.parts.headers {
        let value = text(value.as_bytes());
        let known = fields.entry(name.to_string());
        known
            .and_modify(|known: &mut String| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    let own = [
        (":method", request.parts.method.as_str()),
        (":path", path),
        (":authority", request.authority.as_str()),
        (":scheme", scheme),
    ];
    fields.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(body) = request.body {
        let partial = (!body.whole).to_string();
        fields.insert("x-envoy-auth-partial-body".to_owned(), partial);
    }
    fields
}

/// protobuf has no other text than UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one message of an answer.
fn read(told: &Told) -> Result<proto::CheckResponse, Undecided> {
    if told.head.status != StatusCode::OK {
        return Err(Undecided::Status(told.head.status));
    }
    let status = told.trailers.get("grpc-status");
    let status = status.or_else(|| told.head.headers.get("grpc-status"));
    let status = status.ok_or(Undecided::Malformed("it has no gRPC status"))?;
    if status != "0" {
        let status = status.as_bytes();
        return Err(Undecided::Grpc(text(status.get(..16).unwrap_or(status))));
    }
    let malformed = || Undecided::Malformed("it is not one message");
    let (prefix, message) = told.body.split_at_checked(PREFIX).ok_or_else(malformed)?;
    let (compressed, length) = prefix.split_first().ok_or_else(malformed)?;
    let announced = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    if *compressed != 0 || announced != message.len() {
        return Err(malformed());
    }
    proto::CheckResponse::decode(message).map_err(|_unreadable| malformed())
}

/// What it means. Envoy takes a message without a status for leave; here it is none.
fn decision(given: proto::CheckResponse) -> Result<Decision, Undecided> {
    let status = given.status;
    let status = status.ok_or(Undecided::Malformed("it has no status"))?;
    match (status.code, given.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => Ok(Decision::Allow(changes(ok)?)),
        (0, None) => Ok(Decision::Allow(Changes::default())),
        (0, Some(HttpResponse::DeniedResponse(_))) => {
            Err(Undecided::Malformed("it allows and denies"))
        }
        (_, Some(HttpResponse::DeniedResponse(no))) => Ok(Decision::Deny(denied(no)?)),
        (_, Some(HttpResponse::OkResponse(_)) | None) => {
            Ok(Decision::Deny(super::nothing(StatusCode::FORBIDDEN)))
        }
    }
}

fn denied(given: proto::DeniedHttpResponse) -> Result<Denied, Undecided> {
    let status = match given.status.map_or(0, |status| status.code) {
        0 => StatusCode::FORBIDDEN,
        code => u16::try_from(code)
            .ok()
            .filter(|code| (200..=599).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(Undecided::Malformed("its status is none"))?,
    };
    let mut headers = HeaderMap::new();
    for field in read_fields(given.headers)? {
        match field.edit {
            Edit::Append => drop(headers.append(field.name, field.value)),
            _ => drop(headers.insert(field.name, field.value)),
        }
    }
    Ok(Denied {
        status,
        headers,
        body: Bytes::from(given.body),
    })
}

fn changes(given: proto::OkHttpResponse) -> Result<Changes, Undecided> {
    let remove = given.headers_to_remove.iter().map(|text| name(text));
    let query = given.query_parameters_to_set.into_iter();
    Ok(Changes {
        remove: remove.collect::<Result<_, _>>()?,
        fields: read_fields(given.headers)?,
        answer: read_fields(given.response_headers_to_add)?,
        unquery: given.query_parameters_to_remove,
        query: query.map(|set| (set.key, set.value)).collect(),
    })
}

/// Fields that may be said; one that may not makes all of the answer a lie.
fn read_fields(given: Vec<proto::HeaderValueOption>) -> Result<Vec<Field>, Undecided> {
    if given.len() > FIELDS {
        return Err(Undecided::Malformed("it has too many fields"));
    }
    let fields: Vec<Field> = given.into_iter().map(field).collect::<Result<_, _>>()?;
    let size: usize = fields.iter().map(|field| field.value.len()).sum();
    match size > HEAD {
        true => Err(Undecided::Malformed("its fields are too long")),
        false => Ok(fields),
    }
}

fn field(given: proto::HeaderValueOption) -> Result<Field, Undecided> {
    let action = given.append_action();
    let header = given
        .header
        .ok_or(Undecided::Malformed("a field is empty"))?;
    let value = match header.raw_value.is_empty() {
        true => header.value.into_bytes(),
        false => header.raw_value,
    };
    let value = HeaderValue::from_bytes(&value);
    Ok(Field {
        name: name(&header.key)?,
        value: value.map_err(|_illegal| Undecided::Malformed("the value of a field is none"))?,
        // Unset, it is no: here as in Envoy, whatever the action by itself would mean.
        edit: match (given.append, action) {
            (Some(true), _) => Edit::Append,
            (None, HeaderAppendAction::AddIfAbsent) => Edit::IfAbsent,
            (None, HeaderAppendAction::OverwriteIfExists) => Edit::IfPresent,
            _ => Edit::Set,
        },
    })
}

fn name(text: &str) -> Result<HeaderName, Undecided> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let name = name.filter(is_settable);
    name.ok_or(Undecided::Malformed("a field is none that it may change"))
}

#[cfg(test)]
mod tests;
