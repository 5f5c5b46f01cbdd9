//! What the demo has shown so far, for people, and whether it is what it should be.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::metrics::{Flow, Volume};
use crate::rig::tap::Seen;
use crate::table::table;

/// Answers of each endpoint that a run needs to have shown that they take turns.
const ENOUGH: u64 = 5;

/// What has been seen.
#[derive(Debug, Default)]
pub struct Summary {
    /// Answers by server.
    pub answers: BTreeMap<String, u64>,
    /// Client addresses that servers saw.
    pub clients: BTreeMap<String, u64>,
    /// Echo sessions that were good.
    pub echoes: u64,
    /// Failures, the first few.
    pub failures: Vec<String>,
    /// Flows by the nodes' metrics.
    pub flows: BTreeMap<Flow, Volume>,
    /// What crossed the link between the hosts.
    pub wire: Seen,
}

#[derive(Deserialize)]
struct Answer {
    server: Option<String>,
    client: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Echo {
    good: u64,
    bad: u64,
    first_error: Option<String>,
}

impl Summary {
    /// Takes a line of the HTTP client.
    pub fn http(&mut self, line: &str) {
        match serde_json::from_str::<Answer>(line) {
            Ok(answer) => {
                if let Some(server) = answer.server {
                    *self.answers.entry(server).or_default() += 1;
                }
                if let Some(client) = answer.client {
                    *self.clients.entry(client).or_default() += 1;
                }
                self.failures.extend(answer.error);
            }
            Err(_other) => self.failures.push(line.to_owned()),
        }
    }

    /// Takes a line of the echo client.
    pub fn echo(&mut self, line: &str) {
        if let Ok(echo) = serde_json::from_str::<Echo>(line) {
            self.echoes += echo.good;
            if echo.bad > 0 {
                self.failures.push(echo.first_error.unwrap_or_default());
            }
        }
    }

    /// Whether enough has been seen to judge.
    pub fn enough(&self) -> bool {
        let answered = |n: &str| self.answers.get(n).copied().unwrap_or(0) >= ENOUGH;
        answered("cart-1") && answered("cart-2") && self.echoes >= 2 && self.wire.frames > 0
    }

    /// What is not as it should be; empty when all is.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.failures.iter().take(3).cloned().collect();
        let counts: Vec<u64> = self.answers.values().copied().collect();
        let apart = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
        if counts.len() != 2 || apart > 1 {
            faults.push(format!(
                "the endpoints did not answer in turn: {:?}",
                self.answers
            ));
        }
        if self.clients.keys().any(|c| c != "10.77.1.11") {
            faults.push(format!(
                "a server saw another client than web: {:?}",
                self.clients
            ));
        }
        if self.wire.marked > 0 {
            faults.push(format!(
                "{} frames carried the answers in clear",
                self.wire.marked
            ));
        }
        let tunnels = self.wire.kinds.get("tcp/15008").copied().unwrap_or(0);
        if tunnels == 0 {
            faults.push("no tunnel crossed the link".to_owned());
        }
        let plain = |kind: &&String| {
            let carried = kind.starts_with("tcp/") || kind.starts_with("udp/");
            carried && !["tcp/15008", "tcp/15012"].contains(&kind.as_str())
        };
        let plain: Vec<&String> = self.wire.kinds.keys().filter(plain).collect();
        if !plain.is_empty() {
            faults.push(format!("something else crossed the link: {plain:?}"));
        }
        if self.flows.keys().any(|f| f.security != "mutual_tls") || self.flows.is_empty() {
            faults.push("a flow of the mesh was not mutually authenticated".to_owned());
        }
        faults
    }

    /// For people.
    pub fn render(&self) -> String {
        let short = |id: &str| match id.split_once("/ns/") {
            Some((_td, path)) => path.replace("/sa/", "/"),
            None => id.to_owned(),
        };
        let rows: Vec<Vec<String>> = self
            .flows
            .iter()
            .map(|(flow, volume)| {
                vec![
                    flow.source.clone(),
                    flow.service.clone(),
                    flow.destination.clone(),
                    short(&flow.source_principal),
                    short(&flow.destination_principal),
                    volume.connections.to_string(),
                    size(volume.bytes),
                    if flow.security == "mutual_tls" {
                        "mutual TLS"
                    } else {
                        "PLAIN TEXT"
                    }
                    .to_owned(),
                ]
            })
            .collect();
        let heading = [
            "WHO",
            "ASKED FOR",
            "AND GOT",
            "AS",
            "FROM",
            "CONNECTIONS",
            "BYTES",
            "HOW",
        ];
        let mut text = table(&heading, &rows);
        let answers: Vec<String> = self
            .answers
            .iter()
            .map(|(s, n)| format!("{s} {n}"))
            .collect();
        let clients: Vec<&str> = self.clients.keys().map(String::as_str).collect();
        text.push_str(&format!(
            "\nThe service cart answered in turn: {}. Its programs saw the client as {}.\n",
            answers.join(", "),
            clients.join(", "),
        ));
        let kinds: Vec<String> = self
            .wire
            .kinds
            .iter()
            .map(|(k, n)| format!("{k} {n}"))
            .collect();
        text.push_str(&format!(
            "On the link between the hosts: {} frames, {} ({}).\n",
            self.wire.frames,
            size(self.wire.bytes),
            kinds.join(", "),
        ));
        text.push_str(&match self.wire.marked {
            0 => "Not one of them shows a byte of the answers: what crossed was ciphertext.\n"
                .to_owned(),
            n => format!("{n} OF THEM SHOW THE ANSWERS IN CLEAR.\n"),
        });
        text
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        let mut summary = Summary::default();
        for n in 0..10 {
            summary.http(&format!(
                r#"{{"server":"cart-{}","client":"10.77.1.11"}}"#,
                n % 2 + 1
            ));
        }
        summary.echo(r#"{"good":2,"bad":0,"first_error":null}"#);
        summary.wire.frames = 9;
        summary.wire.kinds.insert("tcp/15008".into(), 9);
        let flow = Flow {
            security: "mutual_tls".into(),
            ..Flow::default()
        };
        summary.flows.insert(
            flow,
            Volume {
                connections: 1,
                bytes: 2,
            },
        );
        summary
    }

    #[test]
    fn faults_are_found() {
        assert!(good().enough());
        assert_eq!(good().faults(), Vec::<String>::new());
        type Spoil = fn(&mut Summary);
        let cases: [(&str, Spoil); 6] = [
            ("a failed request", |s| s.http(r#"{"error":"refused"}"#)),
            ("one endpoint only", |s| {
                s.answers.remove("cart-2");
            }),
            ("another client", |s| {
                s.http(r#"{"server":"cart-1","client":"10.77.0.11"}"#)
            }),
            ("clear text", |s| s.wire.marked = 1),
            ("another port", |s| {
                s.wire.kinds.insert("tcp/8080".into(), 1);
            }),
            ("no identity", |s| {
                s.flows.insert(Flow::default(), Volume::default());
            }),
        ];
        for (name, spoil) in cases {
            let mut summary = good();
            spoil(&mut summary);
            assert_eq!(summary.faults().len(), 1, "{name}: {:?}", summary.faults());
        }
    }
}
