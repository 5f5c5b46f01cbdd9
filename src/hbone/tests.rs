//! Both ends against each other over loopback, with real TLS.

mod abuse;
mod accept;
mod auto;
mod dial;
mod flow;
mod links;
mod pool;
mod relay;
mod roaming;
mod serve;
mod silence;
