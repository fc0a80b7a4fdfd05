//! `EFI_SIGNATURE_LIST`: what the key databases of Secure Boot hold (UEFI 2.10, section 32.4.1).

use super::bank::{Bank, hex};
use super::variable::Guid;

/// The most entries of one database that are read.
pub const MAX_DATABASE_ENTRIES: usize = 8192;

const X509: Guid = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
const SHA1: Guid = Guid::new(0x826c_a512, 0xcf10, 0x4ac9, [0xb1, 0x87, 0xbe, 0x01, 0x49, 0x66, 0x31, 0xbd]);
const SHA256: Guid = Guid::new(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
const SHA384: Guid = Guid::new(0xff3e_5307, 0x9fd0, 0x48c9, [0x85, 0xf1, 0x8a, 0xd5, 0x6c, 0x70, 0x1e, 0x01]);
const SHA512: Guid = Guid::new(0x093e_0fae, 0xa6c4, 0x4f50, [0x9f, 0x1b, 0xd4, 0x1e, 0x2b, 0x89, 0xc1, 0x9a]);
const X509_SHA256: Guid = Guid::new(0x3bd2_a492, 0x96c0, 0x4079, [0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed]);
const X509_SHA384: Guid = Guid::new(0x7076_876e, 0x80c2, 0x4ee6, [0xaa, 0xd2, 0x28, 0xb3, 0x49, 0xa6, 0x86, 0x5b]);
const X509_SHA512: Guid = Guid::new(0x446d_bf63, 0x2502, 0x4cda, [0xbc, 0xfa, 0x24, 0x65, 0xd2, 0xb0, 0xfe, 0x9d]);

/// What an entry of a database names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A certificate, as it lies there.
    Certificate {
        /// DER.
        der: Vec<u8>,
    },
    /// The Authenticode digest of one image.
    Image {
        /// Lowercase name of the hash.
        hash: &'static str,
        /// The digest.
        digest: Vec<u8>,
    },
    /// A certificate that is revoked by the digest of its to-be-signed part, from a time on.
    RevokedCertificate {
        /// Lowercase name of the hash.
        hash: &'static str,
        /// The digest.
        digest: Vec<u8>,
        /// `EFI_TIME`; all zeroes for always.
        time: [u8; 16],
    },
    /// A type that is not known here.
    Other {
        /// The type.
        kind: Guid,
        /// SHA-256 of what it holds.
        sha256: Vec<u8>,
    },
}

/// An entry and who put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The owner, as the one who wrote the entry says.
    pub owner: Guid,
    /// What it names.
    pub entry: Entry,
}

impl Signature {
    /// What identifies the entry: SHA-256 of a certificate, the digest of an image or of a revoked certificate; in lowercase hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        match &self.entry {
            Entry::Certificate { der } => Bank::Sha256.hash(&[der]).to_hex(),
            Entry::Image { digest, .. } | Entry::RevokedCertificate { digest, .. } => hex(digest),
            Entry::Other { sha256, .. } => hex(sha256),
        }
    }
}

/// Reads one list after the other; `None` where they are not well formed.
#[must_use]
pub fn parse_signature_lists(mut bytes: &[u8]) -> Option<Vec<Signature>> {
    let mut signatures = Vec::new();
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<28>()?;
        let kind = Guid(*header.first_chunk::<16>()?);
        let number = |at: usize| {
            usize::try_from(u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])).ok()
        };
        let (list_bytes, header_bytes, signature_bytes) = (number(16)?, number(20)?, number(24)?);
        let list = bytes.get(28..list_bytes)?.get(header_bytes..)?;
        // An owner, and something that it owns.
        if signature_bytes <= 16 || !list.len().is_multiple_of(signature_bytes) {
            return None;
        }
        if signatures.len() + list.len() / signature_bytes > MAX_DATABASE_ENTRIES {
            return None;
        }
        for signature in list.chunks_exact(signature_bytes) {
            let (owner, rest) = signature.split_first_chunk::<16>()?;
            signatures.push(Signature { owner: Guid(*owner), entry: entry(kind, rest)? });
        }
        bytes = &bytes[list_bytes..];
    }
    Some(signatures)
}

fn entry(kind: Guid, bytes: &[u8]) -> Option<Entry> {
    let image = |hash, size: usize| (bytes.len() == size).then(|| Entry::Image { hash, digest: bytes.to_vec() });
    let revoked = |hash, size: usize| {
        let time = bytes.get(size..)?.try_into().ok()?;
        Some(Entry::RevokedCertificate { hash, digest: bytes[..size].to_vec(), time })
    };
    match kind {
        X509 => Some(Entry::Certificate { der: bytes.to_vec() }),
        SHA1 => image("sha1", 20),
        SHA256 => image("sha256", 32),
        SHA384 => image("sha384", 48),
        SHA512 => image("sha512", 64),
        X509_SHA256 => revoked("sha256", 32),
        X509_SHA384 => revoked("sha384", 48),
        X509_SHA512 => revoked("sha512", 64),
        _ => Some(Entry::Other { kind, sha256: Bank::Sha256.hash(&[bytes]).as_bytes().to_vec() }),
    }
}
