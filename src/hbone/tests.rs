//! Both ends against each other over loopback, with real TLS.

mod abuse;
mod accept;
mod auto;
mod dial;
mod pool;
mod relay;
mod serve;
