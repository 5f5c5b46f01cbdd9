//! Providers that are asked over HTTP: by the request's own head, under another path.

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::answer::{self, Changes, Decision, Denied, Edit, Field, is_settable, named};
use super::{Request, Undecided};
use crate::hbone::Connector;
use crate::model::declaration::HttpCheck;
use crate::model::policy::Pattern;
use crate::waypoint::http::{Ask, HEAD, Told, Unanswered};

/// Says whether the body in a check is not all of it.
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// Fields of an answer that denies which go to the client whatever the mesh says: what is to be done
/// about it, and what its body is.
const ALWAYS: [HeaderName; 4] = [
    header::WWW_AUTHENTICATE,
    header::LOCATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
];

pub(super) async fn check<C: Connector + Clone>(
    ask: &Ask<'_, C>,
    request: Request<'_>,
    how: &HttpCheck,
) -> Result<Decision, Undecided> {
    let question = question(request, how).ok_or(Unanswered::Unaskable)?;
    let told = ask.send(question, ask.version()?).await?;
    decision(told, how)
}

/// What the provider is sent.
fn question(request: Request<'_>, how: &HttpCheck) -> Option<http::Request<Bytes>> {
    let parts = request.parts;
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(request.authority.clone())
        .path_and_query(format!("{}{target}", how.path_prefix))
        .build();
    let body = request.body.map_or_else(Bytes::new, |b| b.bytes.clone());
    let mut question = http::Request::new(body);
    *question.method_mut() = parts.method.clone();
    *question.uri_mut() = uri.ok()?;
    *question.headers_mut() = fields(request, how);
    Some(question)
}

fn fields(request: Request<'_>, how: &HttpCheck) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in &request.parts.headers {
        let wanted = *name == header::AUTHORIZATION || named(&how.request_headers, name);
        if wanted && is_settable(name) {
            fields.append(name, value.clone());
        }
    }
    if let Some(body) = request.body {
        let partial = HeaderValue::from_static(if body.whole { "false" } else { "true" });
        fields.insert(PARTIAL, partial);
    }
    for (name, value) in &how.additional_headers {
        fields.insert(name, value.clone());
    }
    let length = request.body.map_or(0, |body| body.bytes.len());
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    fields
}

/// What its answer means.
fn decision(told: Told, how: &HttpCheck) -> Result<Decision, Undecided> {
    let (status, headers) = (told.head.status, &told.head.headers);
    if answer::size(headers) > HEAD {
        return Err(Undecided::Malformed("its head is too long"));
    }
    match status {
        StatusCode::OK => Ok(Decision::Allow(Changes {
            fields: copied(headers, &how.upstream_on_allow),
            answer: copied(headers, &how.downstream_on_allow),
            ..Changes::default()
        })),
        _ if status.is_server_error() || status.is_informational() => {
            Err(Undecided::Status(status))
        }
        _ => {
            let mut denied = headers.clone();
            let names = headers.keys().filter(|name| !goes_on(name, how));
            for name in names {
                denied.remove(name);
            }
            Ok(Decision::Deny(Denied {
                status,
                headers: denied,
                body: told.body,
            }))
        }
    }
}

/// Whether a field of an answer that denies goes to the client.
fn goes_on(name: &HeaderName, how: &HttpCheck) -> bool {
    let wanted = match &how.downstream_on_deny {
        None => true,
        Some(patterns) => named(patterns, name) || ALWAYS.contains(name),
    };
    wanted && is_settable(name)
}

/// Those fields of an answer, each in place of all by its name.
fn copied(headers: &HeaderMap, patterns: &[Pattern]) -> Vec<Field> {
    let names = headers.keys().filter(|name| is_settable(name));
    let names = names.filter(|name| named(patterns, name));
    let fields = names.flat_map(|name| {
        let values = headers.get_all(name).iter().enumerate();
        values.map(|(at, value)| Field {
            name: name.clone(),
            value: value.clone(),
            edit: if at == 0 { Edit::Set } else { Edit::Append },
        })
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn told(status: u16, fields: &[(&str, &str)], body: &'static str) -> Told {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).unwrap().into_parts();
        Told {
            head,
            body: Bytes::from_static(body.as_bytes()),
            trailers: HeaderMap::new(),
        }
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|t| Pattern::parse(t).unwrap()).collect()
    }

    #[test]
    fn every_status_but_200_is_no_leave() {
        let how = HttpCheck::default();
        for (status, want) in [
            (200, "allow"),
            (201, "201"),
            (204, "204"),
            (302, "302"),
            (401, "401"),
            (429, "429"),
            (101, "undecided"),
            (500, "undecided"),
            (503, "undecided"),
            (599, "undecided"),
            (600, "600"),
        ] {
            let decided = match decision(told(status, &[], ""), &how) {
                Ok(Decision::Allow(_)) => "allow".to_owned(),
                Ok(Decision::Deny(denied)) => denied.status.as_str().to_owned(),
                Err(_) => "undecided".to_owned(),
            };
            assert_eq!(decided, want, "{status}");
        }
    }

    #[test]
    fn of_an_answer_goes_on_what_is_said_to() {
        let fields = [
            ("x-user", "a"),
            ("x-user", "b"),
            ("x-other", "c"),
            ("location", "/login"),
            ("content-length", "9"),
            ("connection", "close"),
            ("host", "evil"),
        ];
        let how = |deny: Option<&[&str]>| HttpCheck {
            upstream_on_allow: patterns(&["x-user", "content-*", "host"]),
            downstream_on_deny: deny.map(patterns),
            ..HttpCheck::default()
        };
        let Ok(Decision::Allow(changes)) = decision(told(200, &fields, ""), &how(None)) else {
            panic!("not allowed");
        };
        let come = changes.fields.iter();
        let come: Vec<_> = come.map(|f| (f.name.as_str(), &f.value, f.edit)).collect();
        assert_eq!(
            come,
            [
                ("x-user", &HeaderValue::from_static("a"), Edit::Set),
                ("x-user", &HeaderValue::from_static("b"), Edit::Append)
            ]
        );
        for (name, deny, want) in [
            ("all", None, &["location", "x-other", "x-user"][..]),
            ("none", Some(&[][..]), &["location"]),
            ("some", Some(&["x-o*"][..]), &["location", "x-other"]),
        ] {
            let decided = decision(told(401, &fields, "no"), &how(deny));
            let Ok(Decision::Deny(denied)) = decided else {
                panic!("{name}: not denied");
            };
            let mut names: Vec<_> = denied.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, want, "{name}");
            assert_eq!(denied.body, "no", "{name}");
        }
    }

    #[test]
    fn an_endless_head_decides_nothing() {
        let long = "a".repeat(HEAD);
        let fields = [("x-user", long.as_str())];
        let decided = decision(told(200, &fields, ""), &HttpCheck::default());
        assert!(matches!(decided, Err(Undecided::Malformed(_))));
    }
}
