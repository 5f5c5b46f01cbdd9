//! Connections on the loopback, both ends ours, or one of them anybody's.

mod bytes;
mod control;
mod datagrams;
mod floods;
mod interop;
mod leaving;
mod limits;
mod requests;
