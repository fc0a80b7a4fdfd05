//! How the several things that a device gives stand in one part.
//!
//! Fields one after the other, each its length as `u32` big-endian and its bytes, none empty, nothing behind the last: one encoding of
//! any content. What a field holds is parsed elsewhere. Source: `specs/evidence.md`, section "Parts".

use thiserror::Error;

/// Most certificates in an SEV-SNP part: the key's, its authority's, the root.
pub const MAX_SEV_SNP_CERTIFICATES: usize = 3;
/// Most certificates in a TPM part, the endorsement key's included.
pub const MAX_TPM_CERTIFICATES: usize = 5;
/// Most certificates in a GPU's part.
pub const MAX_GPU_CERTIFICATES: usize = 8;

/// The bytes of a part are not its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PartError {
    /// A length does not fit what follows it, or a field is empty.
    #[error("the fields of the part do not fill it")]
    Fields,
    /// There are fewer or more fields than the kind has.
    #[error("the part has another number of fields than its kind")]
    Count,
    /// A GPU of an architecture that has no name here.
    #[error("the GPU's architecture is neither hopper nor blackwell")]
    Architecture,
}

/// An SEV-SNP guest's report with the certificates that vouch for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SevSnpPart {
    /// The report as the firmware made it: 1,184 bytes.
    pub report: Vec<u8>,
    /// In DER: of the VCEK or VLEK, of its authority, of the root; up to three, none where the verifier's endorsements have them.
    pub certificates: Vec<Vec<u8>>,
}

impl SevSnpPart {
    /// The bytes of the part.
    pub fn encode(&self) -> Vec<u8> {
        write([&self.report].into_iter().chain(&self.certificates))
    }

    /// Takes the part apart; nothing in it is believed.
    pub fn parse(bytes: &[u8]) -> Result<Self, PartError> {
        let mut fields = read(bytes)?;
        let report = fields.next()?;
        Ok(Self { report, certificates: fields.rest(0, MAX_SEV_SNP_CERTIFICATES)? })
    }
}

/// A TPM's quote with what it takes to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmPart {
    /// `TPMS_ATTEST`, as it was signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// `TPMT_PUBLIC` of the attestation key.
    pub ak_public: Vec<u8>,
    /// The values of the quoted PCRs, one after the other in the order of the quote.
    pub pcr_values: Vec<u8>,
    /// In DER: of the endorsement key, and of authorities above it; one to five.
    pub ek_certificates: Vec<Vec<u8>>,
}

impl TpmPart {
    /// The bytes of the part.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [&self.attest, &self.signature, &self.ak_public, &self.pcr_values];
        write(fields.into_iter().chain(&self.ek_certificates))
    }

    /// Takes the part apart; nothing in it is believed.
    pub fn parse(bytes: &[u8]) -> Result<Self, PartError> {
        let mut fields = read(bytes)?;
        Ok(Self {
            attest: fields.next()?,
            signature: fields.next()?,
            ak_public: fields.next()?,
            pcr_values: fields.next()?,
            ek_certificates: fields.rest(1, MAX_TPM_CERTIFICATES)?,
        })
    }
}

/// A family of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GpuArchitecture {
    /// GH100.
    Hopper,
    /// GB100 and its like.
    Blackwell,
}

impl GpuArchitecture {
    const ALL: [Self; 2] = [Self::Hopper, Self::Blackwell];

    /// The name in the part.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hopper => "hopper",
            Self::Blackwell => "blackwell",
        }
    }
}

/// One GPU's report with its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuPart {
    /// The family.
    pub architecture: GpuArchitecture,
    /// SPDM request and response, as the driver gives them.
    pub report: Vec<u8>,
    /// In DER: of the attestation key, and each one's issuer after it; one to eight.
    pub certificates: Vec<Vec<u8>>,
}

impl GpuPart {
    /// The bytes of the part.
    pub fn encode(&self) -> Vec<u8> {
        let architecture = self.architecture.name().as_bytes().to_vec();
        write([&architecture, &self.report].into_iter().chain(&self.certificates))
    }

    /// Takes the part apart; nothing in it is believed.
    pub fn parse(bytes: &[u8]) -> Result<Self, PartError> {
        let mut fields = read(bytes)?;
        let name = fields.next()?;
        let named = |architecture: &GpuArchitecture| architecture.name().as_bytes() == name;
        Ok(Self {
            architecture: GpuArchitecture::ALL.into_iter().find(named).ok_or(PartError::Architecture)?,
            report: fields.next()?,
            certificates: fields.rest(1, MAX_GPU_CERTIFICATES)?,
        })
    }
}

fn write<'a>(fields: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        // A part is far shorter than this; one that is not is refused for its size.
        bytes.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(field);
    }
    bytes
}

struct Fields(std::vec::IntoIter<Vec<u8>>);

fn read(mut bytes: &[u8]) -> Result<Fields, PartError> {
    /// More than any kind has.
    const MAX_FIELDS: usize = 16;
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or(PartError::Fields)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| PartError::Fields)?;
        let (field, rest) = rest.split_at_checked(len).ok_or(PartError::Fields)?;
        if field.is_empty() {
            return Err(PartError::Fields);
        }
        if fields.len() == MAX_FIELDS {
            return Err(PartError::Count);
        }
        fields.push(field.to_vec());
        bytes = rest;
    }
    Ok(Fields(fields.into_iter()))
}

impl Fields {
    fn next(&mut self) -> Result<Vec<u8>, PartError> {
        self.0.next().ok_or(PartError::Count)
    }

    fn rest(self, least: usize, most: usize) -> Result<Vec<Vec<u8>>, PartError> {
        if (least..=most).contains(&self.0.len()) { Ok(self.0.collect()) } else { Err(PartError::Count) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_encoding_and_no_other_length() {
        let tpm = TpmPart {
            attest: vec![1; 3],
            signature: vec![2],
            ak_public: vec![3; 300],
            pcr_values: vec![4; 32],
            ek_certificates: vec![vec![5; 7], vec![6]],
        };
        let bytes = tpm.encode();
        assert_eq!(TpmPart::parse(&bytes).unwrap(), tpm);
        for len in 0..bytes.len() {
            // Without its last field it is another part, which reads as what it is.
            if let Ok(shorter) = TpmPart::parse(&bytes[..len]) {
                assert_eq!((len, shorter.encode().len()), (bytes.len() - 5, len));
            }
        }
        assert_eq!(TpmPart::parse(&[&bytes[..], &[0]].concat()), Err(PartError::Fields));
        assert_eq!(TpmPart::parse(&[&bytes[..], &[0; 4]].concat()), Err(PartError::Fields));
        assert_eq!(TpmPart::parse(&u32::MAX.to_be_bytes()), Err(PartError::Fields));
        let many = |count| SevSnpPart { report: vec![1], certificates: vec![vec![2]; count] };
        assert_eq!(SevSnpPart::parse(&many(3).encode()).unwrap(), many(3));
        assert_eq!(SevSnpPart::parse(&many(4).encode()), Err(PartError::Count));
        assert_eq!(SevSnpPart::parse(&many(400).encode()), Err(PartError::Count));
        assert_eq!(SevSnpPart::parse(&[]), Err(PartError::Count));
        let gpu = GpuPart { architecture: GpuArchitecture::Blackwell, report: vec![1], certificates: vec![vec![2]] };
        assert_eq!(GpuPart::parse(&gpu.encode()).unwrap(), gpu);
        let other = write([&b"HOPPER".to_vec(), &vec![1], &vec![2]]);
        assert_eq!(GpuPart::parse(&other), Err(PartError::Architecture));
    }
}
