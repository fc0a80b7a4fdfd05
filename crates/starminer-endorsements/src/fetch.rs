//! Endorsements from their makers' services, as they come: nothing of it is believed here.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64;
use hyper::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use starminer_hardware::{
    cert::{Certificate, MAX_BUNDLE_BYTES as MAX_CHAIN_BYTES, MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES},
    endorsements::{Candidate, Key, MAX_OCSP_BYTES, ocsp_request},
    nvidia::MAX_RIM_LEN,
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::{
    clock::{Clock, Jitter},
    gate::{Gates, Politeness},
    http::{Answer, Client, HttpError, Limits, Question, ServerRoots, SetupError},
    sources::Sources,
};

/// Longest answer with TCB info or an identity.
const MAX_JSON_BYTES: usize = 512 * 1024;
/// Headers that Intel's chains come in, percent-encoded.
const TCB_CHAIN: [&str; 2] = ["tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"];
const QE_CHAIN: [&str; 1] = ["sgx-enclave-identity-issuer-chain"];
const PCK_CHAIN: [&str; 1] = ["sgx-pck-crl-issuer-chain"];

/// Why an endorsement was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody publishes it, or at a host that is not configured.
    #[error("{0} is published at no host that is configured")]
    NoPlace(Key),
    /// The host is left alone for a while.
    #[error("{host} is left alone for {} s more", left.as_secs())]
    Postponed {
        /// Which.
        host: String,
        /// How long.
        left: Duration,
    },
    /// The host did not serve.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered with another status than 200.
    #[error("{host} answered {status}")]
    Status {
        /// Which.
        host: String,
        /// With what.
        status: u16,
    },
    /// Its answer is not as it should be.
    #[error("the answer of {host}: {problem}")]
    Answer {
        /// Which.
        host: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// OCSP needs the certificate of the issuer.
    #[error("the certificate of the issuer was not given")]
    NoIssuer,
}

impl FetchError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoPlace(_) => "fetch.no-place",
            Self::Postponed { .. } => "fetch.postponed",
            Self::Http(HttpError::Connect { .. }) => "fetch.connect",
            Self::Http(HttpError::Timeout { .. }) => "fetch.timeout",
            Self::Http(HttpError::TooLarge { .. }) => "fetch.too-large",
            Self::Http(_) => "fetch.http",
            Self::Status { .. } => "fetch.status",
            Self::Answer { .. } => "fetch.answer",
            Self::NoIssuer => "fetch.no-issuer",
        }
    }
}

/// Fetches endorsements, politely.
#[derive(Clone)]
pub struct Fetcher {
    sources: Arc<Sources>,
    politeness: Politeness,
    client: Arc<Client>,
    gates: Arc<Gates>,
    clock: Arc<dyn Clock>,
    jitter: Jitter,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher of these sources.
    ///
    /// # Errors
    /// A pinned certificate cannot be used.
    pub fn new(
        sources: Sources,
        roots: &ServerRoots,
        politeness: Politeness,
        limits: Limits,
        clock: Arc<dyn Clock>,
        jitter: Jitter,
    ) -> Result<Self, SetupError> {
        let client = Arc::new(Client::new(roots, limits, clock.clone())?);
        Ok(Self { sources: Arc::new(sources), politeness, client, gates: Arc::default(), clock, jitter })
    }

    /// The host that an endorsement is asked of.
    #[must_use]
    pub fn host(&self, key: &Key) -> Option<String> {
        self.sources.place(key).map(|(base, _)| base.authority())
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The wait after so many failures in a row.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        self.politeness.backoff(failures, &self.jitter)
    }

    /// Fetches one endorsement. `issuers` are certificates in DER one after the other, the issuer's first: OCSP needs them.
    ///
    /// Waits while the host is asked by others and for the pause between two requests.
    ///
    /// # Errors
    /// Why it was not had. After a failure of the host, the next ones are postponed without asking it.
    pub async fn fetch(&self, key: &Key, issuers: Option<&[u8]>) -> Result<Candidate, FetchError> {
        let (base, path) = self.sources.place(key).ok_or_else(|| FetchError::NoPlace(key.clone()))?;
        let host = base.authority();
        let post = match key {
            Key::NvidiaOcsp { serial, .. } => {
                let issuer = issuers.and_then(|issuers| Certificate::from_der_prefix(issuers).ok());
                let (issuer, _) = issuer.ok_or(FetchError::NoIssuer)?;
                let request = ocsp_request(&issuer, serial).ok_or(FetchError::NoIssuer)?;
                Some(("application/ocsp-request", request))
            }
            _ => None,
        };
        let pass = match self.gates.enter(&host, &*self.clock).await {
            Ok(pass) => pass,
            Err(left) => return Err(FetchError::Postponed { host, left }),
        };
        let answer = self.client.ask(Question { base, path, post, most_bytes: most_bytes(key) }).await;
        match &answer {
            Ok(answer) if host_is_fine(answer.status) => pass.served(&self.politeness, &*self.clock),
            Err(HttpError::TooLarge { .. } | HttpError::Encoded { .. } | HttpError::Address) => {
                pass.served(&self.politeness, &*self.clock);
            }
            answer => {
                let asked = answer.as_ref().ok().and_then(|answer| retry_after(&answer.headers, self.clock.now_s()));
                let left = pass.failed(asked, &self.politeness, &self.jitter, &*self.clock);
                tracing::debug!(host, wait_s = left.as_secs(), "left alone after a failure");
            }
        }
        let answer = answer?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status { host, status: answer.status.as_u16() });
        }
        let (content, chain) = take(key, &answer, issuers).map_err(|problem| FetchError::Answer { host, problem })?;
        let (fetched_s, source) = (self.clock.now_s(), base.as_str().to_owned());
        Ok(Candidate { key: key.clone(), content, chain, fetched_s, source })
    }
}

/// Whether an answer is about what was asked, and not about the host.
fn host_is_fine(status: StatusCode) -> bool {
    status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::REQUEST_TIMEOUT && !status.is_server_error()
}

const fn most_bytes(key: &Key) -> usize {
    match key {
        Key::AmdChain { .. } => MAX_CHAIN_BYTES,
        // In hexadecimal, as caches of Intel's service give lists.
        Key::AmdCrl { .. } | Key::IntelPckCrl { .. } | Key::IntelRootCrl | Key::TpmCrl { .. } => 2 * MAX_CRL_BYTES,
        Key::IntelTcbInfo { .. } | Key::IntelQeIdentity { .. } => MAX_JSON_BYTES,
        // In base64 within JSON.
        Key::NvidiaRim { .. } => MAX_RIM_LEN / 3 * 4 + 16 * 1024,
        Key::NvidiaOcsp { .. } => MAX_OCSP_BYTES,
        // PEM is a third longer than DER.
        _ => 2 * MAX_CERTIFICATE_BYTES,
    }
}

/// What NVIDIA's service answers. What else it says is not used.
#[derive(Deserialize)]
struct RimAnswer {
    id: String,
    rim: String,
}

type Taken = (Vec<u8>, Option<Vec<u8>>);

/// Takes an endorsement out of an answer.
fn take(key: &Key, answer: &Answer, issuers: Option<&[u8]>) -> Result<Taken, &'static str> {
    let body = answer.body.to_vec();
    Ok(match key {
        Key::IntelTcbInfo { .. } => (body, Some(chain(&answer.headers, &TCB_CHAIN)?)),
        Key::IntelQeIdentity { .. } => (body, Some(chain(&answer.headers, &QE_CHAIN)?)),
        Key::IntelPckCrl { .. } => (body, Some(chain(&answer.headers, &PCK_CHAIN)?)),
        Key::NvidiaRim { id } => {
            let found: RimAnswer =
                serde_json::from_slice(&body).map_err(|_| "it is not the JSON of the RIM service")?;
            if found.id != id.as_str() {
                return Err("it has the manifest of another id");
            }
            (BASE64.decode(found.rim.as_bytes()).map_err(|_| "the manifest is no base64")?, None)
        }
        Key::NvidiaOcsp { .. } => (body, issuers.map(<[u8]>::to_vec)),
        _ => (body, None),
    })
}

/// The chain in the first of these headers that is there.
fn chain(headers: &HeaderMap, names: &[&str]) -> Result<Vec<u8>, &'static str> {
    let value =
        names.iter().find_map(|name| headers.get(*name)).ok_or("the header with its issuer's chain is missing")?;
    let decoded = percent_decoded(value.as_bytes()).ok_or("its issuer's chain is not percent-encoded")?;
    if decoded.len() > MAX_CHAIN_BYTES { Err("its issuer's chain is longer than any") } else { Ok(decoded) }
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            out.push(first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        out.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?);
        rest = after;
    }
    Some(out)
}

/// The patience that a host asks for, in seconds or until a date.
fn retry_after(headers: &HeaderMap, now_s: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?.unix_timestamp();
    Some(Duration::from_secs(u64::try_from(at).ok()?.saturating_sub(now_s)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patience() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, 784_111_700)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(77)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for text in ["", "-1", "soon", "1.5"] {
            assert_eq!(asked(text), None, "{text}");
        }
    }

    #[test]
    fn percent() {
        assert_eq!(percent_decoded(b"-----BEGIN%20A%0a+b").unwrap(), b"-----BEGIN A\n+b");
        for text in [&b"%"[..], b"%2", b"%zz", b"a%0"] {
            assert_eq!(percent_decoded(text), None);
        }
    }
}
