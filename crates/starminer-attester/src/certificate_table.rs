//! The certificate table that a host hands to an SEV-SNP guest along with a report.
//!
//! A list of entries (GUID, offset, length), ended by one of zeroes, then the certificates. It comes from the host, so that
//! nothing in it is believed: it is taken apart within its bounds, and the certificates prove themselves or do not. Source:
//! AMD 56421 (GHCB) section 4.1.8.1; GUIDs stand in the byte order of RFC 4122.

use std::fmt;

use data_encoding::HEXLOWER;
use thiserror::Error;

/// Longest table, certificates included: what the kernel takes from a host (`SEV_FW_BLOB_MAX_SIZE`).
pub const MAX_TABLE_BYTES: usize = 16 * 1024;
/// Most entries of a table.
pub const MAX_TABLE_ENTRIES: usize = 16;

const ENTRY_BYTES: usize = 24;

/// What an entry of the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnpCertificateKind {
    /// Versioned chip endorsement key: names the chip.
    Vcek,
    /// Versioned loaded endorsement key: names a cloud.
    Vlek,
    /// The AMD SEV signing key, or the one of VLEKs.
    Ask,
    /// The AMD root key.
    Ark,
    /// A revocation list.
    Crl,
    /// Anything else.
    Other([u8; 16]),
}

const KNOWN: [(SnpCertificateKind, [u8; 16]); 5] = [
    // 63da758d-e664-4564-adc5-f4b93be8accd
    (SnpCertificateKind::Vcek, 0x63da758de6644564adc5f4b93be8accd_u128.to_be_bytes()),
    // a8074bc2-a25a-483e-aae6-39c045a0b8a1
    (SnpCertificateKind::Vlek, 0xa8074bc2a25a483eaae639c045a0b8a1_u128.to_be_bytes()),
    // 4ab7b379-bbac-4fe4-a02f-05aef327c782
    (SnpCertificateKind::Ask, 0x4ab7b379bbac4fe4a02f05aef327c782_u128.to_be_bytes()),
    // c0b406a4-a803-4952-9743-3fb6014cd0ae
    (SnpCertificateKind::Ark, 0xc0b406a4a803495297433fb6014cd0ae_u128.to_be_bytes()),
    // 92f81bc3-5811-4d3d-97ff-d19f88dc67ea
    (SnpCertificateKind::Crl, 0x92f81bc358114d3d97ffd19f88dc67ea_u128.to_be_bytes()),
];

impl SnpCertificateKind {
    /// The kind with this GUID.
    pub fn of_guid(guid: [u8; 16]) -> Self {
        KNOWN.iter().find(|(_, known)| *known == guid).map_or(Self::Other(guid), |(kind, _)| *kind)
    }
}

impl fmt::Display for SnpCertificateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek => f.pad("vcek"),
            Self::Vlek => f.pad("vlek"),
            Self::Ask => f.pad("ask"),
            Self::Ark => f.pad("ark"),
            Self::Crl => f.pad("crl"),
            Self::Other(guid) => f.pad(&HEXLOWER.encode(guid)),
        }
    }
}

/// One entry: what the host says that it is, and its bytes (mostly DER).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpCertificate {
    /// What the host says that it is.
    pub kind: SnpCertificateKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Bytes are no certificate table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateTableError {
    /// Longer than [`MAX_TABLE_BYTES`].
    #[error("a certificate table has at most {MAX_TABLE_BYTES} bytes")]
    TooLong,
    /// No entry of zeroes within the first [`MAX_TABLE_ENTRIES`] and one.
    #[error("the certificate table does not end, or has more than {MAX_TABLE_ENTRIES} entries")]
    Unended,
    /// An entry is empty, begins within the list of entries, or ends behind the table.
    #[error("entry {0} of the certificate table is empty or lies outside of it")]
    Range(usize),
    /// A kind stands there twice.
    #[error("entry {0} of the certificate table stands there already")]
    Twice(usize),
}

/// Takes a table apart. Nothing, or only zeroes, is a table without entries: hosts need not have certificates.
pub fn parse_certificate_table(bytes: &[u8]) -> Result<Vec<SnpCertificate>, CertificateTableError> {
    if bytes.len() > MAX_TABLE_BYTES {
        return Err(CertificateTableError::TooLong);
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    let mut list = bytes.chunks_exact(ENTRY_BYTES);
    loop {
        let Some(entry) = list.next() else { return Err(CertificateTableError::Unended) };
        if entry.iter().all(|byte| *byte == 0) {
            break;
        }
        if entries.len() == MAX_TABLE_ENTRIES {
            return Err(CertificateTableError::Unended);
        }
        entries.push(entry);
    }
    let list_bytes = (entries.len() + 1) * ENTRY_BYTES;
    let mut certificates: Vec<SnpCertificate> = Vec::with_capacity(entries.len());
    for (at, entry) in entries.into_iter().enumerate() {
        let mut guid = [0; 16];
        guid.copy_from_slice(&entry[..16]);
        let kind = SnpCertificateKind::of_guid(guid);
        if certificates.iter().any(|other| other.kind == kind) {
            return Err(CertificateTableError::Twice(at));
        }
        let (offset, length) = (word(&entry[16..20]), word(&entry[20..24]));
        if length == 0 || offset < list_bytes {
            return Err(CertificateTableError::Range(at));
        }
        let range = offset.checked_add(length).and_then(|end| bytes.get(offset..end));
        let bytes = range.ok_or(CertificateTableError::Range(at))?.to_vec();
        certificates.push(SnpCertificate { kind, bytes });
    }
    Ok(certificates)
}

fn word(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guid(kind: SnpCertificateKind) -> [u8; 16] {
        KNOWN.iter().find(|(known, _)| *known == kind).map(|(_, guid)| *guid).unwrap()
    }

    fn entry(guid: [u8; 16], offset: u32, length: u32) -> Vec<u8> {
        [&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    #[test]
    fn kinds_offsets_and_lengths() {
        let (vcek, other) = (guid(SnpCertificateKind::Vcek), [7; 16]);
        let table = [entry(vcek, 72, 3), entry(other, 75, 2), vec![0; 24], b"abcde".to_vec(), vec![0; 9]].concat();
        let read = parse_certificate_table(&table).unwrap();
        let expected = [(SnpCertificateKind::Vcek, "abc"), (SnpCertificateKind::Other(other), "de")];
        assert_eq!(read.len(), 2);
        for (found, (kind, text)) in read.iter().zip(expected) {
            assert_eq!((found.kind, found.bytes.as_slice()), (kind, text.as_bytes()));
        }
        for nothing in [vec![], vec![0; 5], vec![0; MAX_TABLE_BYTES]] {
            assert_eq!(parse_certificate_table(&nothing).unwrap(), []);
        }
    }

    #[test]
    fn hostile_tables() {
        use CertificateTableError::{Range, TooLong, Twice, Unended};
        let ask = guid(SnpCertificateKind::Ask);
        let with = |offset, length| [entry(ask, offset, length), vec![0; 24], vec![1; 10]].concat();
        let many: Vec<u8> = (0..17u8).flat_map(|at| entry([at + 1; 16], 1000, 1)).chain(vec![0; 2000]).collect();
        for (table, expected) in [
            (vec![1; MAX_TABLE_BYTES + 1], TooLong),
            (vec![1], Unended),
            (entry(ask, 24, 1), Unended),
            (many, Unended),
            (with(47, 1), Range(0)),
            (with(48, 0), Range(0)),
            (with(48, 11), Range(0)),
            (with(u32::MAX, 1), Range(0)),
            (with(48, u32::MAX), Range(0)),
            (with(u32::MAX, u32::MAX), Range(0)),
            ([entry(ask, 72, 1), entry(ask, 73, 1), vec![0; 24], vec![1; 10]].concat(), Twice(1)),
        ] {
            assert_eq!(parse_certificate_table(&table).unwrap_err(), expected);
        }
        assert_eq!(parse_certificate_table(&with(48, 10)).unwrap()[0].bytes, [1; 10]);
    }
}
