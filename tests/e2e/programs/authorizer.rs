//! Answers Envoy's `ext_authz` checks over gRPC, as the request that it is asked about says in `x-check`:
//! `allow`, `lie`, `late` or `fail`; any other is to log in. Connections are for `web` alone.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use lateen::wire::proto::ext_authz::check_response::HttpResponse;
use lateen::wire::proto::ext_authz::{
    self as proto, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpStatus,
    OkHttpResponse, Status,
};
use prost::Message as _;

use super::echo::Body;
use super::grpc;

pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

pub(super) async fn answer(body: Incoming) -> Response<Body> {
    let body = body.collect().await.unwrap().to_bytes();
    let asked = CheckRequest::decode(body.get(5..).unwrap_or_default()).unwrap();
    let asked = asked.attributes.unwrap();
    let principal = asked.source.unwrap().principal;
    let Some(http) = asked.request.and_then(|request| request.http) else {
        let web = principal.ends_with("/sa/web");
        return said(&decided(if web { 0 } else { 7 }, None));
    };
    match http.headers.get("x-check").map_or("", String::as_str) {
        "allow" => said(&allowed("x-ext", &principal)),
        "lie" => said(&allowed("x-ext", "a\r\nx-admin: yes")),
        "late" => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            said(&decided(0, None))
        }
        "fail" => grpc::failed("14"),
        _ => said(&denied()),
    }
}

fn option(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(proto::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        ..HeaderValueOption::default()
    }
}

fn allowed(key: &str, value: &str) -> CheckResponse {
    let ok = OkHttpResponse {
        headers: vec![option(key, value)],
        headers_to_remove: vec!["authorization".to_owned()],
        response_headers_to_add: vec![option("x-checked", "yes")],
        ..OkHttpResponse::default()
    };
    decided(0, Some(HttpResponse::OkResponse(ok)))
}

fn denied() -> CheckResponse {
    let no = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![option("location", "/login")],
        body: "who are you?".to_owned(),
    };
    decided(16, Some(HttpResponse::DeniedResponse(no)))
}

fn decided(code: i32, http_response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(Status {
            code,
            message: String::new(),
        }),
        http_response,
    }
}

fn said(response: &CheckResponse) -> Response<Body> {
    let encoded = response.encode_to_vec();
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(encoded.len()).unwrap());
    message.put_slice(&encoded);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(message.freeze()), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok))).boxed();
    let response = Response::builder().header(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    response.body(body).unwrap()
}
