use http::Response;
use proto::{
    CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpStatus, OkHttpResponse, Status,
};

use super::*;

fn told(response: &CheckResponse) -> Told {
    let question = response.encode_to_vec();
    let mut body = vec![0; PREFIX];
    body[1..].copy_from_slice(&u32::try_from(question.len()).unwrap().to_be_bytes());
    body.extend(question);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Told {
        head: Response::new(()).into_parts().0,
        body: body.into(),
        trailers,
    }
}

fn coded(code: i32, response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(Status {
            code,
            message: String::new(),
        }),
        http_response: response,
    }
}

fn option(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(proto::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append: None,
        append_action: 0,
    }
}

fn allows(headers: Vec<HeaderValueOption>) -> CheckResponse {
    let ok = OkHttpResponse {
        headers,
        ..OkHttpResponse::default()
    };
    coded(0, Some(HttpResponse::OkResponse(ok)))
}

fn denies(code: i32) -> Option<HttpResponse> {
    Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        ..DeniedHttpResponse::default()
    }))
}

fn decided(told: &Told) -> String {
    match read(told).and_then(decision) {
        Ok(Decision::Allow(_)) => "allow".to_owned(),
        Ok(Decision::Deny(denied)) => denied.status.as_str().to_owned(),
        Err(_) => "undecided".to_owned(),
    }
}

#[test]
fn only_a_clear_yes_is_leave() {
    let none = OkHttpResponse::default();
    for (name, response, want) in [
        ("yes", coded(0, None), "allow"),
        ("yes, with nothing", allows(Vec::new()), "allow"),
        ("no", coded(7, None), "403"),
        ("no, so", coded(16, denies(401)), "401"),
        ("no, without a status", coded(7, denies(0)), "403"),
        (
            "no, in the form of a yes",
            coded(7, Some(HttpResponse::OkResponse(none))),
            "403",
        ),
        ("nothing at all", CheckResponse::default(), "undecided"),
        (
            "a yes in the form of a no",
            coded(0, denies(403)),
            "undecided",
        ),
        ("no status of HTTP", coded(7, denies(99)), "undecided"),
        ("switching protocols", coded(7, denies(101)), "undecided"),
        ("an enormous status", coded(7, denies(70_000)), "undecided"),
        ("a negative status", coded(7, denies(-1)), "undecided"),
    ] {
        assert_eq!(decided(&told(&response)), want, "{name}");
    }
}

#[test]
fn a_field_that_may_not_be_said_makes_it_a_lie() {
    for (name, key, value, want) in [
        ("one that may", "x-user", "a", "allow"),
        ("in upper case", "X-User", "a", "allow"),
        ("a name that is none", "x user", "a", "undecided"),
        ("no name", "", "a", "undecided"),
        ("HTTP/2's own", ":path", "/admin", "undecided"),
        ("the host", "Host", "admin", "undecided"),
        ("a length", "content-length", "0", "undecided"),
        (
            "a connection's own",
            "Transfer-Encoding",
            "chunked",
            "undecided",
        ),
        ("a line break", "x-user", "a\r\nx-admin: yes", "undecided"),
    ] {
        let response = allows(vec![option(key, value)]);
        assert_eq!(decided(&told(&response)), want, "{name}");
        let ok = OkHttpResponse {
            headers_to_remove: vec![key.to_owned()],
            ..OkHttpResponse::default()
        };
        let removing = coded(0, Some(HttpResponse::OkResponse(ok)));
        let want = if name == "a line break" {
            "allow"
        } else {
            want
        };
        assert_eq!(decided(&told(&removing)), want, "{name}, taken out");
    }
    let many = allows(vec![option("x-user", "a"); FIELDS + 1]);
    assert_eq!(decided(&told(&many)), "undecided", "too many");
    let long = allows(vec![option("x-user", &"a".repeat(HEAD + 1))]);
    assert_eq!(decided(&told(&long)), "undecided", "too long");
    let empty = allows(vec![HeaderValueOption::default()]);
    assert_eq!(decided(&told(&empty)), "undecided", "an empty one");
}

#[test]
fn an_answer_is_one_message_that_went_well() {
    let good = || told(&coded(0, None));
    let cut = |mut told: Told| {
        told.body.truncate(told.body.len() - 1);
        told
    };
    let status = |mut told: Told, status: &'static str| {
        let status = HeaderValue::from_static(status);
        told.trailers.insert("grpc-status", status);
        told
    };
    let compressed = |mut told: Told| {
        let mut body = told.body.to_vec();
        body[0] = 1;
        told.body = body.into();
        told
    };
    let twice = |mut told: Told| {
        told.body = [&told.body[..], &told.body[..]].concat().into();
        told
    };
    let unfinished = |mut told: Told| {
        told.trailers.clear();
        told
    };
    let at_once = |mut told: Told| {
        let trailers = std::mem::take(&mut told.trailers);
        told.head.headers.extend(trailers);
        told
    };
    let other = |mut told: Told| {
        told.head.status = StatusCode::BAD_GATEWAY;
        told
    };
    for (name, told, want) in [
        ("good", good(), "allow"),
        ("its status in its head", at_once(good()), "allow"),
        ("cut off", cut(good()), "undecided"),
        ("compressed", compressed(good()), "undecided"),
        ("twice", twice(good()), "undecided"),
        ("without a status", unfinished(good()), "undecided"),
        ("unavailable", status(good(), "14"), "undecided"),
        ("of another status", other(good()), "undecided"),
    ] {
        assert_eq!(decided(&told), want, "{name}");
    }
}

#[test]
fn fields_are_appended_only_where_it_says_so() {
    for (name, append, action, want) in [
        ("unset", None, 0, Edit::Set),
        ("yes", Some(true), 2, Edit::Append),
        ("no", Some(false), 1, Edit::Set),
        ("if absent", None, 1, Edit::IfAbsent),
        ("overwrite", None, 2, Edit::Set),
        ("if present", None, 3, Edit::IfPresent),
        ("unknown", None, 9, Edit::Set),
    ] {
        let option = HeaderValueOption {
            append,
            append_action: action,
            ..option("x-user", "a")
        };
        assert_eq!(field(option).unwrap().edit, want, "{name}");
    }
}
