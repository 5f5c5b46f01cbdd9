//! Targets that mean what is protected, or might.

use super::{Row, Want};

/// A path as a lenient server goes by it: decoded once, either slash, several as one, without dot
/// segments, these with parameters or not.
pub(super) fn as_a_server_has_it(path: &str) -> String {
    let undotted = path
        .split('/')
        .map(|segment| match segment.split_once(';') {
            Some((dots, _)) if matches!(&*decoded(dots), "." | "..") => dots.to_owned(),
            _ => segment.to_owned(),
        });
    let path = undotted.collect::<Vec<_>>().join("/");
    let path = decoded(&path).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    format!("/{}", segments.join("/"))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let octet = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match octet.filter(|_| *first == b'%') {
            Some(octet) => {
                bytes.push(octet);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ways to write `/admin`.
const PATHS: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin;x=y",
    "//admin",
    "///admin",
    "//admin//x",
    "/./admin",
    "/././/admin",
    "/x/../admin",
    "/x/y/../../admin",
    "/../admin",
    "/../../../admin",
    "/x/./../admin",
    "/x//../../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%61%64%6D%69%6E",
    "/adm%69n",
    "/%2e/admin",
    "/%2E/admin",
    "/x/%2e%2e/admin",
    "/x/%2E%2E/admin",
    "/x/.%2e/admin",
    "/x/%2e./admin",
    "/x%2f..%2fadmin",
    "/x%2F..%2Fadmin",
    "/x%2F%2e%2e%2Fadmin",
    "/%2Fadmin",
    "/%2f%2fadmin",
    "/.%2fadmin",
    "/%2e%2fadmin",
    "/\\admin",
    "/x\\..\\admin",
    "/x/..\\admin",
    "/.\\admin",
    "/x%5c..%5cadmin",
    "/%5Cadmin",
    "/%5c%5cadmin",
    "/public/../admin",
    "/public/..%2fadmin",
    "/public/%2e%2e/admin",
    "/public/%2e%2e%2fadmin",
    "/public/..\\admin",
    "/public%2f..%5cadmin",
    "/public/x/../../admin",
    "/public/../public/../admin",
];

/// Dot segments with parameters, which some servers take for dot segments, and decoding that fails.
const REFUSED: &[&str] = &[
    "/public/..;/admin",
    "/public/..;x=y/admin",
    "/a;x/..;/admin",
    "/.;/admin",
    "/%2e%2e;/admin",
    "/public/%2e%2e;a/admin",
    "/public%2f..;%2fadmin",
    "/public\\..;\\admin",
    "/admin%00",
    "/public%00/../admin",
    "/%00/admin",
    "/%u002fadmin",
    "/%u0061dmin",
    "/%%32%65%%32%65/admin",
    "/public/%",
    "/public/%2",
    "/public/%zz/../admin",
    "admin",
    "\\admin",
    "?x",
    "../admin",
    "*",
    "admin.example:80",
];

/// What would have to be decoded twice, or leniently: another thing, if it is let through.
const OTHERS: &[&str] = &[
    "/x/%252e%252e/admin",
    "/public/%252e%252e/admin",
    "/%252Fadmin",
    "/%2561dmin",
    "/public/..%252fadmin",
    "/%c0%ae%c0%ae/admin",
    "/public/%c0%ae%c0%ae/admin",
    "/%c0%afadmin",
    "/%e0%80%afadmin",
    "/public/..%c0%af../admin",
    "/%ef%bc%8fadmin",
    "/ADMIN",
    "/Admin",
    "/public/..%3b/admin",
    "/admi%6E%20",
    "/admin%20",
    "/%20admin",
    "/public/.../admin",
    "/public/..%20/admin",
    "/public/%09../admin",
];

/// Targets that say whom they are for, in a request for another.
const ABSOLUTE: &[&str] = &[
    "http://v1.example/admin",
    "http://v1.example/x/../admin",
    "HTTP://V1.EXAMPLE:80/%61dmin",
    "http://v1.example//admin",
    "https://v1.example/admin",
    "http://admin.example/public",
    "http://ADMIN.EXAMPLE/public",
    "http://admin.example:80/public",
    "http://admin.example./public",
    "http://admin.example.:80/public",
    "//admin.example/public",
];

const ABSOLUTE_REFUSED: &[&str] = &[
    "http://user@admin.example/public",
    "http://v1.example@admin.example/public",
    "http://user:v1.example@admin.example:80/public",
    "http://admin.example\\@v1.example/public",
    "http://admin.example%2f@v1.example/public",
    "http:///admin",
    "http:/admin",
    "http://[::1/admin",
    "://admin.example/public",
    "http://admin.example:99999/public",
];

pub(super) fn rows() -> Vec<Row> {
    let asked = |path: &&str| Row::get(&format!("{path}?r=ROWN"));
    let all = PATHS.iter().chain(OTHERS).chain(ABSOLUTE).map(asked);
    let mut rows: Vec<Row> = all.collect();
    let refused = REFUSED.iter().chain(ABSOLUTE_REFUSED);
    rows.extend(refused.map(|path| asked(path).want(Want::Refused)));
    for target in [
        "/admin?r=ROWN#x",
        "/public?r=ROWN#/../admin",
        "/public#/admin?r=ROWN",
    ] {
        rows.push(Row::get(target).want(Want::Refused));
    }
    for target in [
        "/public/?x=/../admin&r=ROWN",
        "/public/?/../../admin&r=ROWN",
        "/public/a;x=y?r=ROWN",
        "/public/%41%2dB?r=ROWN",
        "http://v1.example/public?r=ROWN",
    ] {
        rows.push(Row::get(target).want(Want::Served));
    }
    rows.push(Row::get(&format!("/{}admin?r=ROWN", "a/../".repeat(3000))));
    rows.push(Row::get(&format!(
        "/public/{}admin?r=ROWN",
        "%2e%2e/".repeat(2000)
    )));
    let long = format!("/public/{}?r=ROWN", "a".repeat(17 << 10));
    rows.push(Row::get(&long).want(Want::Refused));
    rows
}
