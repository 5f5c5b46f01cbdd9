//! Programs that cases run in rigs. The test binary is each of them, when it is started with a
//! description of one: an ordinary server that tells what it has received, and clients.

mod authorizer;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod echo;
mod grpc;
pub(crate) mod http3;
pub(crate) mod name_server;
mod websocket;

use std::env;
use std::io::{BufRead as _, Write as _};

use serde::{Deserialize, Serialize};

use crate::support::Session;

/// Holds the description, where there is one.
const DESCRIPTION: &str = "LATEEN_E2E_PROGRAM";

/// What the binary is to be.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Program {
    Echo(echo::Echo),
    Collector(collector::Collector),
    NameServer(name_server::NameServer),
    Http3(http3::Http3),
    Client,
}

impl Program {
    /// How it is started.
    pub(crate) fn command(&self) -> Vec<String> {
        let description = serde_json::to_string(self).unwrap();
        let own = env::current_exe().unwrap();
        let words = [
            "env",
            &format!("{DESCRIPTION}={description}"),
            own.to_str().unwrap(),
            "--exact",
            "programs::program",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ];
        words.map(str::to_owned).into()
    }
}

/// Reads what libtest says first.
pub(crate) fn until_ready(session: &mut Session) {
    for _ in 0..8 {
        if session.line() == "ready" {
            return;
        }
    }
    panic!("the program did not start");
}

#[test]
#[ignore = "a program that cases run"]
fn program() {
    let Some(description) = env::var_os(DESCRIPTION) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match serde_json::from_str(description.to_str().unwrap()).unwrap() {
        Program::Echo(echo) => runtime.block_on(echo.serve()),
        Program::Collector(collector) => runtime.block_on(collector.serve()),
        Program::Http3(server) => runtime.block_on(server.serve()),
        Program::NameServer(server) => runtime.block_on(server.serve()),
        Program::Client => {
            say("\nready");
            for line in std::io::stdin().lock().lines() {
                let order = serde_json::from_str(&line.unwrap()).unwrap();
                say(&runtime.block_on(client::carry_out(order)).to_string());
            }
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
