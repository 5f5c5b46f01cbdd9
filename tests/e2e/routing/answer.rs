//! Requests as a table has them, and what is expected of their answers.

use std::time::Duration;

use serde_json::Value;

use super::{Bench, ECHO};
use crate::support::text;

/// What curl has heard.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) took: Duration,
}

impl Bench {
    /// Asks as `METHOD :PORT /path | header: value | …` says, by curl. Words that may come first: `h2`, and `other` for
    /// the client of namespace `other`; an address instead of the port.
    pub(super) fn ask(&self, asked: &str) -> Answer {
        let mut parts = asked.split(" | ");
        let (mut to, mut method, mut from, mut version) =
            (ECHO.to_owned(), "GET", "web", "--http1.1");
        let mut path = "/".to_owned();
        for word in parts.next().unwrap().split_whitespace() {
            match word {
                "h2" => version = "--http2-prior-knowledge",
                "other" => from = "other",
                word if word.starts_with('/') => word.clone_into(&mut path),
                word if word.starts_with('?') => path = format!("/{word}"),
                word if word.starts_with(':') => to = format!("10.96.0.20{word}"),
                word if word.starts_with("10.") => word.clone_into(&mut to),
                word => method = word,
            }
        }
        let url = format!("http://{to}{path}");
        let mut command = vec!["curl", "-s", "-i", "--path-as-is", "-m", "8", version];
        command.extend(["-X", method, "-w", "\n%{time_total}"]);
        let mut headers: Vec<&str> = parts.collect();
        if !headers
            .iter()
            .any(|h| h.to_ascii_lowercase().starts_with("host:"))
        {
            headers.push("Host: echo");
        }
        for header in &headers {
            command.extend(["-H", header]);
        }
        command.push(&url);
        let output = self.turn.exec("client", Some(from), &command);
        Answer::read(&text(&output.stdout))
    }
}

impl Answer {
    fn read(said: &str) -> Self {
        let (said, took) = said.rsplit_once('\n').unwrap_or(("", said));
        let took = Duration::from_secs_f64(took.parse().unwrap_or_default());
        let mut rest = said;
        // Interim answers come before the one that counts.
        loop {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
            let mut lines = head.lines();
            let status = lines.next().unwrap_or_default();
            let status = status.split(' ').nth(1).and_then(|s| s.parse().ok());
            let status = status.unwrap_or_default();
            if (100..200).contains(&status) && !body.is_empty() {
                rest = body;
                continue;
            }
            let headers = lines.filter_map(|line| line.split_once(": "));
            return Self {
                status,
                headers: headers
                    .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
                    .collect(),
                body: body.to_owned(),
                took,
            };
        }
    }

    fn told(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The server that has answered.
    pub(super) fn name(&self) -> String {
        self.told()["name"].as_str().unwrap_or_default().to_owned()
    }

    /// Fields of the answer of a name, joined.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let fields = self.headers.iter().filter(|(n, _)| n == name);
        let fields: Vec<&str> = fields.map(|(_, v)| v.as_str()).collect();
        (!fields.is_empty()).then(|| fields.join(","))
    }

    /// What the server has seen: a field, or `:path`, `:host`, `:version`, `:method`, `:peer`, followed by a space.
    fn seen(&self, name: &str) -> Option<String> {
        let told = self.told();
        if let Some(name) = name.strip_prefix(':') {
            return told[name].as_str().map(str::to_owned);
        }
        let fields = told["headers"].as_array()?.iter();
        let fields = fields.filter(|field| field[0] == *name);
        let fields: Vec<&str> = fields.filter_map(|field| field[1].as_str()).collect();
        (!fields.is_empty()).then(|| fields.join(","))
    }

    /// Whether it is as told: `404`; `v1`, that this server has answered well; `echo`, one of those; `empty`; `text TEXT`;
    /// `> NAME: VALUE`, that the server has seen this; `< NAME: VALUE`, that the answer has this. Without a value it is
    /// enough that it is there; `!NAME`, that it is not. `over MILLISECONDS`, `under MILLISECONDS`.
    pub(super) fn is(&self, fact: &str) -> bool {
        let (kind, rest) = fact.split_once(' ').unwrap_or((fact, ""));
        let millis = || Duration::from_millis(rest.parse().unwrap());
        match kind {
            ">" => holds(rest, |name| self.seen(name)),
            "<" => holds(rest, |name| self.header(name)),
            "text" => self.body == rest,
            "empty" => self.body.is_empty(),
            "over" => self.took >= millis(),
            "under" => self.took < millis(),
            "echo" => self.status == 200 && self.name().starts_with("echo-"),
            status if status.parse::<u16>().is_ok() => self.status.to_string() == status,
            name => self.status == 200 && self.name() == name,
        }
    }
}

fn holds(rest: &str, field: impl Fn(&str) -> Option<String>) -> bool {
    if let Some(name) = rest.strip_prefix('!') {
        return field(name).is_none();
    }
    let seen = rest.starts_with(':').then(|| rest.split_once(' '));
    match seen.unwrap_or_else(|| rest.split_once(": ")) {
        Some((name, value)) => field(name).as_deref() == Some(value),
        None => field(rest).is_some(),
    }
}
