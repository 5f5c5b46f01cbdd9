//! `lateen sample`: small ordinary programs.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Failure;
use super::output::{NO, print};
use crate::dns::{Kind, Transport};
use crate::sample::{dns, http_client, http_server, tcp};

/// Small ordinary programs for rigs and demos.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  lateen sample http-server --listen [::]:8080 --name cart-1")]
pub enum SampleCommand {
    /// Serve HTTP, telling who asked
    HttpServer {
        /// Where
        #[arg(long)]
        listen: SocketAddr,
        /// What to call itself
        #[arg(long)]
        name: String,
        /// What to say
        #[arg(long, default_value = "hello")]
        text: String,
    },
    /// Ask an HTTP server again and again
    HttpClient {
        /// ADDRESS:PORT
        host: String,
        /// What to ask for
        #[arg(long, default_value = "/")]
        path: String,
        /// Milliseconds between questions
        #[arg(long, default_value_t = 500)]
        every: u64,
        /// How often; without end unless given
        #[arg(long)]
        count: Option<u64>,
    },
    /// Ask a name server for one name, and print all that it says
    Dns {
        /// The name
        name: String,
        /// What of it
        #[arg(long = "type", default_value = "A")]
        kind: Kind,
        /// Whom and how to ask
        #[command(flatten)]
        server: Server,
    },
    /// Ask a name server for many names
    DnsMany {
        /// Names n0, n1 and so on below this one
        domain: String,
        /// How many a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// For how long
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// How many different ones
        #[arg(long, default_value_t = 1000)]
        different: u32,
        /// Whom and how to ask
        #[command(flatten)]
        server: Server,
    },
    /// Send back what is heard
    TcpEcho {
        /// Where
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Open many connections to an echo at once
    TcpMany {
        /// The echo
        to: SocketAddr,
        /// How many
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Seconds between rounds; one round unless given
        #[arg(long)]
        every: Option<u64>,
    },
}

/// Whom and how to ask.
#[derive(Debug, Args)]
pub struct Server {
    /// ADDRESS:PORT [default: the first of /etc/resolv.conf]
    #[arg(long)]
    server: Option<SocketAddr>,
    /// On a connection
    #[arg(long)]
    tcp: bool,
    /// Say that 1,232 octets may come
    #[arg(long)]
    edns: bool,
}

impl Server {
    fn how(&self) -> dns::How {
        dns::How {
            server: self.server.unwrap_or_else(dns::first_server),
            transport: if self.tcp {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            edns: self.edns,
        }
    }
}

/// Runs a program.
///
/// # Errors
/// [`Failure`].
pub fn run(command: SampleCommand) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    runtime.block_on(serve(command))
}

/// A program's answer; whether anybody reads.
fn say(answer: &dyn std::fmt::Display) -> bool {
    print(format_args!("{answer}\n"))
}

async fn serve(command: SampleCommand) -> Result<ExitCode, Failure> {
    let failed = |e: std::io::Error| Failure::no("sample", &e);
    let mut bad = false;
    match command {
        SampleCommand::HttpServer { listen, name, text } => {
            http_server::serve(listen, name, text)
                .await
                .map_err(failed)?;
        }
        SampleCommand::HttpClient {
            host,
            path,
            every,
            count,
        } => {
            let every = Duration::from_millis(every);
            http_client::ask(&host, &path, every, count, |answer| match answer {
                Ok(body) => say(&body.trim_end()),
                Err(e) => {
                    bad = true;
                    say(&serde_json::json!({ "error": e.to_string() }))
                }
            })
            .await;
        }
        SampleCommand::Dns { name, kind, server } => {
            match dns::once(server.how(), &name, kind).await {
                Ok(said) => outln!("{}", serde_json::json!(said)),
                Err(e) => {
                    bad = true;
                    outln!("{}", serde_json::json!({ "error": e.to_string() }));
                }
            }
        }
        SampleCommand::DnsMany {
            domain,
            rate,
            seconds,
            different,
            server,
        } => {
            let tally = dns::many(server.how(), &domain, rate, seconds, different).await;
            outln!("{}", serde_json::json!(tally));
        }
        SampleCommand::TcpEcho { listen } => tcp::echo(listen).await.map_err(failed)?,
        SampleCommand::TcpMany {
            to,
            connections,
            every,
        } => loop {
            let tally = tcp::many(to, connections).await;
            bad |= tally.bad > 0;
            let read = say(&serde_json::json!(tally));
            match every.filter(|_| read) {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => break,
            }
        },
    }
    Ok(if bad {
        ExitCode::from(NO)
    } else {
        ExitCode::SUCCESS
    })
}
