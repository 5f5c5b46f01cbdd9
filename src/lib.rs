//! Lateen: a service mesh for machines that run no Kubernetes.
//!
//! Data moves one way: [`config`] → [`model`] → [`control`] → [`wire`] → [`agent`] → [`node`] and
//! [`waypoint`] → [`hbone`]. `ARCHITECTURE.md` has the picture.

pub mod admin;
pub mod agent;
pub mod capture;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod dial;
pub mod dns;
pub mod doctor;
pub mod explain;
pub mod files;
pub mod h3;
pub mod hbone;
pub mod hex;
pub mod identity;
pub mod keeper;
pub mod model;
pub mod node;
pub mod resolve;
pub mod rig;
pub mod sample;
pub mod service;
pub mod status;
pub mod sys;
pub mod table;
pub mod telemetry;
pub mod tls;
pub mod waypoint;
pub mod wire;
