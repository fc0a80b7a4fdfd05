//! Targets of `starminer-tls`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use starminer_tls::*;

use super::{taken, with_file};
use crate::Outcome;

pub fn key_file(data: &[u8]) -> Outcome {
    let loaded = with_file(data, IdentityKey::load);
    if let Ok(key) = &loaded {
        let digits = data_encoding::HEXLOWER.encode(key.seed());
        let line = data.strip_suffix(b"\n").unwrap_or(data);
        assert_eq!(line, format!("{KEY_FILE_MAGIC}{digits}").as_bytes(), "one form");
    }
    Outcome::of(&loaded, KeyFileError::code)
}

pub fn texts(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("utf-8") };
    let identity: Result<PeerIdentity, _> = text.parse();
    if let Ok(identity) = &identity {
        assert_eq!(identity.to_string(), text);
    }
    let proof: Result<ChannelBindingProof, _> = text.parse();
    if let Ok(proof) = &proof {
        assert_eq!(proof.to_string(), text);
        let (statement, known) = known_proof();
        assert_eq!(proof.verify(&statement).is_ok(), *proof == known, "a signature that nobody made");
    }
    taken(&[identity.is_ok(), proof.is_ok()])
}

/// A proof and the statement that it is of.
pub(crate) fn known_proof() -> (Statement, ChannelBindingProof) {
    let client = server_key();
    let statement = Statement {
        prover: Side::Client,
        client: client.identity(),
        server: client.identity(),
        binding: ChannelBinding([3; 32]),
    };
    let proof = ChannelBindingProof::prove(&statement, &client).expect("its own key");
    (statement, proof)
}

/// The server's identity certificate, a function of its key.
pub(crate) fn server_identity_certificate() -> Vec<u8> {
    identity_certificate(&server_key()).to_vec()
}

fn server_key() -> IdentityKey {
    IdentityKey::from_seed(&[51; 32]).expect("every seed")
}

/// The client's config, and the server's with the chain that it presents when honest.
struct Ends {
    client: Arc<ClientConfig>,
    server: ServerConfig,
    honest: Arc<CertifiedKey>,
}

/// A clock that stands still.
#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn unix_seconds(&self) -> u64 {
        crate::world::NOW.0 / 1000
    }
}

/// A resolver that presents certificates of a stranger's choice with a key that it does have.
#[derive(Debug)]
struct Presented(Arc<CertifiedKey>);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn ends() -> &'static Ends {
    static ENDS: OnceLock<Ends> = OnceLock::new();
    ENDS.get_or_init(|| {
        let clock: Arc<dyn Clock> = Arc::new(Standing);
        let key = server_key();
        let client_key = IdentityKey::from_seed(&[52; 32]).expect("every seed");
        let hour = Duration::from_secs(3600);
        let honest = Leaf::issue(&key, Side::Server, Standing.unix_seconds(), hour).expect("a leaf").certified_key();
        let rotating = |key: IdentityKey, side| {
            let made = RotatingCertificate::new(Arc::new(key), side, Rotation::default(), Standing.unix_seconds());
            Arc::new(made.expect("a certificate"))
        };
        let client =
            client_config(rotating(client_key, Side::Client), key.identity(), clock.clone()).expect("a configuration");
        let server = server_config(rotating(server_key(), Side::Server), AllowedPeers::Any, clock.clone())
            .expect("a configuration");
        Ends { client: Arc::new(client), server, honest }
    })
}

/// Certificates, each after its length in two bytes; an empty one stands for the honest one in its place, since that
/// is made anew by each process. The first byte says how the honest leaf's bytes are changed: not at all (0), or the byte
/// at a place is exchanged.
pub fn chain(data: &[u8]) -> Outcome {
    let Some((change, mut rest)) = data.split_first_chunk::<4>() else { return Outcome::refused("short") };
    let ends = ends();
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (certificate, after) = after.split_at(length);
        let place = certificates.len();
        certificates.push(match (certificate.is_empty(), ends.honest.cert.get(place)) {
            (true, Some(honest)) => honest.clone(),
            _ => certificate.to_vec().into(),
        });
        rest = after;
        if certificates.len() == 8 {
            break;
        }
    }
    let [flag, high, low, byte] = *change;
    if flag != 0
        && let Some(leaf) = certificates.first_mut()
    {
        let mut bytes = leaf.to_vec();
        let place = (usize::from(high) << 8 | usize::from(low)) % bytes.len().max(1);
        if let Some(found) = bytes.get_mut(place) {
            *found = byte;
        }
        *leaf = bytes.into();
    }
    let is_honest = certificates == ends.honest.cert;
    let mut server = ends.server.clone();
    server.cert_resolver = Arc::new(Presented(Arc::new(CertifiedKey::new(certificates, ends.honest.key.clone()))));
    let result = handshake(ends.client.clone(), server);
    assert_eq!(result.is_ok(), is_honest, "{result:?}");
    Outcome::of(&result, |refusal| *refusal)
}

/// A handshake in memory: why the client refused, by the stable code.
fn handshake(client: Arc<ClientConfig>, server: ServerConfig) -> Result<(), &'static str> {
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let mut client = ClientConnection::new(client, name).map_err(|_| "client")?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(|_| "server")?;
    for _ in 0..8 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).map_err(|_| "memory")?;
        }
        let mut input = flight.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).map_err(|_| "memory")?;
            // The server's refusal follows from the client's alert; the client's own is what counts.
            let _ = server.process_new_packets();
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).map_err(|_| "memory")?;
        }
        let mut input = flight.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).map_err(|_| "memory")?;
            client.process_new_packets().map_err(|error| HandshakeError::from(error).code())?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err("unfinished")
}
