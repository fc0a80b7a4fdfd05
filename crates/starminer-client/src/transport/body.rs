//! Bodies both ways, streamed with back-pressure: what goes out, and what comes in under a watch.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Sleep};

use super::error::TransportError;
use super::pool::Flight;

/// What a request carries.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// Nothing.
    #[default]
    Empty,
    /// JSON text.
    Json(Bytes),
    /// Bytes in memory.
    Bytes(Bytes),
    /// Pieces as they come; the channel's capacity bounds what waits. An error aborts the request. Such a body is sent
    /// once: when the connection breaks, the caller starts over.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl RequestBody {
    /// The same body again, if it can be had.
    pub(super) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Json(bytes) => Some(Self::Json(bytes.clone())),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
        }
    }
}

/// Why a request body failed, kept for the caller: hyper resets the stream and forgets the reason.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyFault(Arc<Mutex<Option<io::Error>>>);

impl BodyFault {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the error and gives a likeness of it to hyper.
    fn note(&self, error: io::Error) -> io::Error {
        let likeness = error.kind().into();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        likeness
    }
}

/// A request body as hyper takes it.
#[derive(Debug)]
pub(super) struct SendBody {
    body: RequestBody,
    fault: BodyFault,
}

impl SendBody {
    pub(super) fn new(body: RequestBody, fault: BodyFault) -> Self {
        let body = match body {
            RequestBody::Json(bytes) | RequestBody::Bytes(bytes) if bytes.is_empty() => RequestBody::Empty,
            body => body,
        };
        Self { body, fault }
    }

    pub(super) fn content_type(&self) -> Option<HeaderValue> {
        match &self.body {
            RequestBody::Empty => None,
            RequestBody::Json(_) => Some(HeaderValue::from_static("application/json")),
            RequestBody::Bytes(_) | RequestBody::Stream(_) => {
                Some(HeaderValue::from_static("application/octet-stream"))
            }
        }
    }

    /// The body back, of a request that was not sent.
    pub(super) fn into_inner(self) -> RequestBody {
        self.body
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.body {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Json(bytes) | RequestBody::Bytes(bytes) => {
                let whole = std::mem::take(bytes);
                self.body = RequestBody::Empty;
                Poll::Ready(Some(Ok(Frame::data(whole))))
            }
            RequestBody::Stream(pieces) => {
                let piece = ready!(pieces.poll_recv(cx));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data).map_err(|error| self.fault.note(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.body, RequestBody::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Json(bytes) | RequestBody::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestBody::Stream(_) => SizeHint::default(),
        }
    }
}

/// What a response carries. It holds its place on the connection until it ends or is dropped; dropping it early resets
/// the stream, so that the server stops sending.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    place: Option<(Flight, OwnedSemaphorePermit)>,
    address: Arc<str>,
    idle: Duration,
    stalls_at: Pin<Box<Sleep>>,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        flight: Flight,
        permit: OwnedSemaphorePermit,
        address: Arc<str>,
        idle: Duration,
    ) -> Self {
        let place = (!incoming.is_end_stream()).then_some((flight, permit));
        Self { incoming, place, address, idle, stalls_at: Box::pin(tokio::time::sleep(idle)) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let next = Instant::now() + self.idle;
                self.stalls_at.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.place = None;
                Poll::Ready(Some(Err(TransportError::broken(&self.address, &error))))
            }
            Poll::Ready(None) => {
                self.place = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.stalls_at.as_mut().poll(cx));
                let error = TransportError::Stalled { address: self.address.clone(), after: self.idle };
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
