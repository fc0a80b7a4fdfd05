//! The HTTP/2 server: connections, sessions, bounds.
//!
//! Every connection is mutually authenticated TLS 1.3; the peer's key is its identity. The first request's channel-binding proof binds
//! the session to the connection. What a stranger can make grow is bounded here: connections (all and of one identity), streams, headers, bodies, the time
//! between two pieces of a body. Panics become problems.

mod accept;
mod body;
mod edge;

pub use accept::ServeError;
pub(crate) use accept::{Serving, serve};
pub(crate) use body::{Json, JsonWithEvidence, Params, Query, Whole, body_timeout, read_body};
pub(crate) use edge::Identity;
