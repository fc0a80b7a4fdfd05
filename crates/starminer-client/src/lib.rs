//! Outbound HTTP/2: every egress of the system.
//!
//! [`Transport`] is the authenticated way to a coordinator, [`CoordinatorClient`] the coordinator's API on top of it. Requesters,
//! nodes and brokers all go out through here; nothing else in the system dials.

mod api;
mod error;
mod transport;

pub use api::{CoordinatorClient, UploadSource};
pub use error::ClientError;
pub use transport::{
    CHANNEL_BINDING_HEADER, RequestBody, ResponseBody, Transport, TransportError, TransportLimits, TransportSetupError,
    error_chain,
};
