//! One request and its answer, over a connection of its own: HTTP/1.1, everything bounded, nothing followed.

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap,
        USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{address::Base, clock::Clock};

/// The largest head of an answer: issuer chains come in it, percent-encoded.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most header lines of an answer.
const MAX_HEADERS: usize = 100;

/// Bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For the whole: connection, request, head and body.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), whole: Duration::from_secs(60) }
    }
}

/// By whom servers are known.
#[derive(Debug, Clone, Default)]
pub enum ServerRoots {
    /// The authorities of the web.
    #[default]
    Web,
    /// These certificates in DER alone, as of a cache of one's own.
    Pinned(Vec<Vec<u8>>),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A pinned certificate cannot be an authority.
    #[error("a pinned certificate of a server's authority cannot be used")]
    Root(#[source] rustls::Error),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection.
    #[error("no connection to {host}")]
    Connect {
        /// Which.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came over it is no HTTP.
    #[error("the connection to {host} broke")]
    Broken {
        /// Which.
        host: String,
        /// Why.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{host} did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// Which.
        host: String,
        /// How long was waited.
        after: Duration,
    },
    /// The body is longer than such endorsements are.
    #[error("the answer of {host} is longer than {most_bytes} bytes")]
    TooLarge {
        /// Which.
        host: String,
        /// The bound.
        most_bytes: usize,
    },
    /// The body is encoded, which was not asked for.
    #[error("the answer of {host} is encoded, which was not asked for")]
    Encoded {
        /// Which.
        host: String,
    },
    /// The address is none.
    #[error("not an address that can be asked for")]
    Address,
}

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) base: &'a Base,
    pub(crate) path: String,
    /// A body to post, with its type.
    pub(crate) post: Option<(&'static str, Vec<u8>)>,
    pub(crate) most_bytes: usize,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Empty unless the status is 200.
    pub(crate) body: Bytes,
}

/// Hands the clock to rustls.
#[derive(Debug)]
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now_s())))
    }
}

/// Asks servers.
pub(crate) struct Client {
    tls: TlsConnector,
    limits: Limits,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The task that drives a connection; it ends with the request, whatever comes of that.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub(crate) fn new(roots: &ServerRoots, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let mut store = RootCertStore::empty();
        match roots {
            ServerRoots::Web => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            ServerRoots::Pinned(certificates) => {
                for certificate in certificates {
                    store.add(CertificateDer::from(certificate.clone())).map_err(SetupError::Root)?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(SetupError::Tls)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), limits })
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Result<Answer, HttpError> {
        let host = question.base.authority();
        let after = self.limits.whole;
        timeout(after, self.exchange(question)).await.unwrap_or(Err(HttpError::Timeout { host, after }))
    }

    async fn exchange(&self, question: Question<'_>) -> Result<Answer, HttpError> {
        let host = question.base.authority();
        let request = request(&question)?;
        let after = self.limits.connect;
        let stream = timeout(after, self.connect(question.base))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| HttpError::Connect { host: host.clone(), source })?;
        let broken = |source| HttpError::Broken { host: host.clone(), source };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let _driver = Driver(tokio::spawn(async move {
            // What breaks the connection is told by the request on it.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let headers = response.headers().clone();
        if status != StatusCode::OK {
            return Ok(Answer { status, headers, body: Bytes::new() });
        }
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(HttpError::Encoded { host });
        }
        let body = read(response, question.most_bytes, &host).await?;
        Ok(Answer { status, headers, body })
    }

    async fn connect(&self, base: &Base) -> io::Result<Box<dyn Stream>> {
        let tcp = match base.host().parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect((ip, base.port())).await?,
            Err(_) => TcpStream::connect((base.host(), base.port())).await?,
        };
        tcp.set_nodelay(true)?;
        if !base.is_tls() {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(base.host().to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.tls.connect(name, tcp).await?))
    }
}

fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
    let uri: Uri = question.path.parse().map_err(|_| HttpError::Address)?;
    let (method, kind, body) = match &question.post {
        None => (Method::GET, None, Bytes::new()),
        Some((kind, body)) => (Method::POST, Some(*kind), Bytes::copy_from_slice(body)),
    };
    let mut builder = Request::builder()
        .method(method)
        .uri(uri)
        .header(HOST, question.base.authority())
        .header(USER_AGENT, "starminer")
        .header(ACCEPT, "*/*")
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close");
    if let Some(kind) = kind {
        builder = builder.header(CONTENT_TYPE, kind);
    }
    builder.body(Full::new(body)).map_err(|_| HttpError::Address)
}

async fn read(response: Response<Incoming>, most_bytes: usize, host: &str) -> Result<Bytes, HttpError> {
    let too_large = || HttpError::TooLarge { host: host.to_owned(), most_bytes };
    let declared = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most_bytes as u64) {
        return Err(too_large());
    }
    let mut body = response.into_body();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| HttpError::Broken { host: host.to_owned(), source })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > most_bytes - whole.len() {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
