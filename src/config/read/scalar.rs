//! Texts and numbers that mean something: names, addresses, ranges, durations.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Value;
use crate::config::diagnose::Code;
use crate::config::source::At;
use crate::config::suggest;

/// Longest name of one part (RFC 1123 §2.1), and of all parts with their dots (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;
pub(in crate::config) const LONGEST_NAME: usize = 253;

/// A name without dots: of a namespace, a service, a port.
pub(in crate::config) fn label(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let fault = match text.value {
        "" => Some("is empty"),
        name if name.contains('.') => Some("has a dot in it"),
        name => label_fault(name),
    };
    named(value, text, fault)
}

/// A name that may have dots: of a node, a workload, a service account.
pub(in crate::config) fn name(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let fault = name_fault(text.value);
    named(value, text, fault)
}

/// The suffix of host names. Its last part has a letter, or every host name would read as an
/// address.
pub(in crate::config) fn domain(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let last = text.value.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    let fault = name_fault(text.value);
    named(
        value,
        text,
        fault.or_else(|| numeric.then_some("ends in a number, as an address does")),
    )
}

/// What keeps a text from being a name with dots.
pub(in crate::config) fn name_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > LONGEST_NAME {
        return Some("is longer than 253 characters");
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some("is an address, not a name");
    }
    text.split('.').find_map(label_fault)
}

fn label_fault(text: &str) -> Option<&'static str> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() {
        return Some("has an empty part");
    }
    if text.len() > LONGEST_LABEL {
        return Some("has a part longer than 63 characters");
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("has an upper-case letter");
    }
    if !text.bytes().all(inner) {
        return Some("has a character that names do not have");
    }
    let edge = text.starts_with('-') || text.ends_with('-');
    edge.then_some("has a hyphen at an end")
}

fn named(value: &Value<'_>, text: At<&str>, fault: Option<&'static str>) -> Option<At<Arc<str>>> {
    let Some(fault) = fault else {
        return Some(At::new(Arc::from(text.value), text.place));
    };
    let rule = "use a-z, 0-9 and hyphens, beginning and ending with a letter or digit";
    let mended = suggest::kebab(text.value);
    let mends = mended != text.value && name_fault(&mended).is_none();
    let help = match mends {
        true => format!("write `\"{mended}\"`; {rule}"),
        false => rule.to_owned(),
    };
    value.reject(
        Code::BadName,
        &format!("{fault}: {:?}", text.value),
        "not a name",
        help,
    );
    None
}

/// An address of one host.
pub(in crate::config) fn address(value: &Value<'_>) -> Option<At<IpAddr>> {
    let text = value.text_at()?;
    let Ok(address) = text.value.parse::<IpAddr>() else {
        let help = match text.value.split_once(['/', ':']) {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => {
                format!("write the address alone: `\"{bare}\"`")
            }
            _ => "write an IPv4 or IPv6 address, as in `\"10.1.0.11\"`; names are not looked up"
                .to_owned(),
        };
        value.bad(
            &format!("is not an address: {:?}", text.value),
            "not an address",
            help,
        );
        return None;
    };
    if let Some(fault) = host_fault(address) {
        let help = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map(|v4| format!("write `\"{v4}\"`")),
            IpAddr::V4(_) => None,
        };
        let help = help.unwrap_or_else(|| "write the address that other hosts reach it at".into());
        value.bad(
            &format!("{fault}: `{address}`"),
            "not a host's address",
            help,
        );
        return None;
    }
    Some(At::new(address, text.place))
}

fn host_fault(address: IpAddr) -> Option<&'static str> {
    let link_local = |v6: Ipv6Addr| v6.segments()[0] & 0xffc0 == 0xfe80;
    match address {
        a if a.is_unspecified() => Some("is the unspecified address"),
        a if a.is_loopback() => Some("is a loopback address, which every host has"),
        a if a.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address in IPv6 form"),
        IpAddr::V6(v6) if link_local(v6) => {
            Some("is a link-local address, which means nothing on another link")
        }
        _ => None,
    }
}

/// A range of addresses, written with its first one.
pub(in crate::config) fn range(value: &Value<'_>) -> Option<At<IpNet>> {
    let text = value.text_at()?;
    let Ok(net) = text.value.parse::<IpNet>() else {
        let help = match text.value.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("give its length, as in `\"{}/16\"`", text.value),
            Ok(IpAddr::V6(_)) => format!("give its length, as in `\"{}/48\"`", text.value),
            Err(_) => "write a range as in `\"240.240.0.0/16\"`".to_owned(),
        };
        value.bad(
            &format!("is not a range of addresses: {:?}", text.value),
            "not a range",
            help,
        );
        return None;
    };
    if net.addr() != net.network() {
        let message = format!("has bits set beyond its length: `{net}`");
        value.bad(
            &message,
            "not the first address",
            format!("write `\"{}\"`", net.trunc()),
        );
        return None;
    }
    if net.prefix_len() == 0 {
        value.bad(
            "is every address there is",
            "too wide",
            "write a range set aside for services",
        );
        return None;
    }
    Some(At::new(net, text.place))
}

/// A port.
pub(in crate::config) fn port(value: &Value<'_>) -> Option<u16> {
    u16::try_from(value.integer(1..=65535)?).ok()
}

/// A duration within bounds, such as `"2s"`, `"1h30m"` or `"8d"`.
pub(in crate::config) fn duration(
    value: &Value<'_>,
    bounds: RangeInclusive<Duration>,
) -> Option<Duration> {
    if let Some(number) = value.bare_number() {
        value.wrong_type(
            "a duration in quotes",
            format!("give its unit: `\"{number}s\"`"),
        );
        return None;
    }
    let text = value.text()?;
    let Some(duration) = parse_duration(text) else {
        let help = match text.trim().parse::<u64>() {
            Ok(number) => format!("give its unit: `\"{number}s\"`"),
            Err(_) => {
                "write whole numbers with units d, h, m, s or ms, as in `\"2s\"` or `\"1h30m\"`"
                    .to_owned()
            }
        };
        value.bad(
            &format!("is not a duration: {text:?}"),
            "not a duration",
            help,
        );
        return None;
    };
    if !bounds.contains(&duration) {
        let (low, high) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
        let message = format!("is not between {low} and {high}: {text:?}");
        value.bad(
            &message,
            "out of range",
            format!("write a duration from `\"{low}\"` to `\"{high}\"`"),
        );
        return None;
    }
    Some(duration)
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Numbers with units, the greatest unit first and each at most once; `"0"` needs none.
pub(in crate::config) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut next_unit, mut total) = (text, 0, 0_u64);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let index = UNITS
            .iter()
            .position(|(unit, _)| *unit == &rest[..letters])?;
        if index < next_unit {
            return None;
        }
        next_unit = index + 1;
        total = total.checked_add(number.checked_mul(UNITS[index].1)?)?;
        rest = rest.get(letters..)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// A duration the way it is written: the greatest units first, those that are 0 left out.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS {
        if left >= size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    match text.is_empty() {
        true => "0s".to_owned(),
        false => text,
    }
}

/// One of a few words.
pub(in crate::config) fn choice<T: Copy>(value: &Value<'_>, choices: &[(&str, T)]) -> Option<T> {
    let text = value.text()?;
    if let Some((_, meaning)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*meaning);
    }
    let words = || choices.iter().map(|(word, _)| *word);
    let help = match suggest::closest(text, words()) {
        Some(word) => format!("write `\"{word}\"`"),
        None => format!("write one of {}", suggest::listed(words())),
    };
    value.bad(
        &format!("is {text:?}, expected one of {}", suggest::listed(words())),
        "no such value",
        help,
    );
    None
}

/// The words that Go's `strconv.ParseBool` takes, which Istio reads labels with.
const TRUE: [&str; 6] = ["1", "t", "T", "true", "True", "TRUE"];
const FALSE: [&str; 6] = ["0", "f", "F", "false", "False", "FALSE"];

/// True or false in one of those words.
pub(in crate::config) fn go_bool(text: &str) -> Option<bool> {
    let says = |words: [&str; 6]| words.contains(&text);
    match (says(TRUE), says(FALSE)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A text that another type reads; `expected` and `example` say what it is.
pub(in crate::config) fn parsed<T: FromStr>(
    value: &Value<'_>,
    expected: &str,
    example: &str,
) -> Option<T> {
    let text = value.text()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        value.bad(
            &format!("is not {expected}: {text:?}"),
            &format!("not {expected}"),
            format!("write {expected}, as in `\"{example}\"`"),
        );
    }
    parsed
}

/// A text that is not empty and has no control characters.
pub(in crate::config) fn plain<'a>(value: &Value<'a>) -> Option<&'a str> {
    let text = value.text()?;
    if text.is_empty() || text.contains(char::is_control) {
        let fault = match text.is_empty() {
            true => "is empty",
            false => "has control characters in it",
        };
        value.bad(
            fault,
            "nothing usable",
            "write something printable, or leave the key out",
        );
        return None;
    }
    Some(text)
}

impl Value<'_> {
    /// The number as written, where a text with a unit belongs.
    fn bare_number(&self) -> Option<&str> {
        match self.inner {
            toml::de::DeValue::Integer(_) | toml::de::DeValue::Float(_) => Some(self.place.text()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, want) in [
            ("2s", Some(2_000)),
            ("250ms", Some(250)),
            ("1h30m", Some(5_400_000)),
            ("8d", Some(691_200_000)),
            ("1m5s10ms", Some(65_010)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("2", None),
            ("s", None),
            ("2 s", None),
            ("-2s", None),
            ("1.5s", None),
            ("5m1h", None),
            ("1s1s", None),
            ("2w", None),
            ("99999999999999999999d", None),
            ("9999999999999999d", None),
        ] {
            let want = want.map(Duration::from_millis);
            assert_eq!(parse_duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn names_are_judged() {
        let long = "a".repeat(64);
        for (text, good) in [
            ("edge-1", true),
            ("edge-1.rack-2", true),
            ("7", true),
            ("", false),
            ("Edge", false),
            ("edge_1", false),
            ("-edge", false),
            ("edge-", false),
            ("a..b", false),
            (".a", false),
            ("10.1.0.11", false),
            ("::1", false),
            ("ed/ge", false),
            ("käse", false),
            (long.as_str(), false),
        ] {
            assert_eq!(name_fault(text).is_none(), good, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis in 0_u64..1_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,40}") {
            let _fault = name_fault(&text);
            let _duration = parse_duration(&text);
        }
    }
}
