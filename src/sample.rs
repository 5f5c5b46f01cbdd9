//! Small ordinary programs for rigs and demos. They know nothing of the mesh, which is the point:
//! what they say and hear is what any program would.

pub mod dns;
pub mod http_client;
pub mod http_server;
pub mod tcp;
