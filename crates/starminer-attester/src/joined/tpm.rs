//! The TPM of a node: its key, its certificates, its quotes as parts of evidence, and its half of an enrolment.

use std::collections::BTreeSet;

use starminer_hardware::cert::Certificate;
use starminer_hardware::tpm::credential::Credential;
use starminer_hardware::tpm::{HashAlg, PcrIndex, PcrSelection, PcrValues, Public, Quote};
use starminer_verify::parts::TpmPart;
use starminer_verify::{AkName, Digest};
use zeroize::Zeroizing;

use super::DeviceError;
use crate::tpm::{
    AkKind, AkPlace, AkSpec, EkKind, KnownEk, Tpm, TpmAddress, TpmAttester, TpmAttesterSettings, TpmError, TpmOffer,
    TpmSettings,
};

/// Most certificates that evidence and an enrolment carry, the endorsement key's included.
const MAX_CERTIFICATES: usize = 5;
/// Of several endorsement keys that have certificates, the first of these: curves are quicker.
const PREFERRED: [EkKind; 3] = [EkKind::P256, EkKind::P384, EkKind::Rsa2048];
/// Templates by which a session is opened to look for certificates. Every TPM has one of these keys.
const EVERYWHERE: [EkKind; 2] = [EkKind::P256, EkKind::Rsa2048];

/// A log that belongs to a TPM's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TpmLog {
    /// The firmware's event log.
    Uefi,
    /// The kernel's measurement list; PCR 10 vouches for it.
    Ima,
}

/// How a node uses its TPM.
#[derive(Debug, Clone)]
pub struct NodeTpmSettings {
    /// Where it is.
    pub address: TpmAddress,
    /// Which endorsement key; `None` for one that the TPM has a certificate of.
    pub ek: Option<EkKind>,
    /// Which it has to be.
    pub known_ek: KnownEk,
    /// How the attestation key signs.
    pub ak: AkKind,
    /// Tells attestation keys of one TPM apart: a hash over what this one is for.
    pub label: [u8; 32],
    /// The bank that is quoted.
    pub bank: HashAlg,
    /// The registers of it that are.
    pub pcrs: BTreeSet<PcrIndex>,
    /// Certificates that the TPM does not hold: of authorities above its endorsement key, of a simulated root, or of the key itself.
    pub certificates: Vec<Certificate>,
    /// The logs that go along.
    pub logs: BTreeSet<TpmLog>,
}

impl NodeTpmSettings {
    /// Registers of firmware and boot loader (0 to 9, which the firmware's log is about and IMA's first entry sums up) and of the image (11).
    /// The kernel's (10) comes with an IMA list.
    pub fn default_pcrs() -> BTreeSet<PcrIndex> {
        (0..10).chain([11]).filter_map(PcrIndex::new).collect()
    }

    /// The register of IMA.
    pub fn ima_pcr() -> PcrIndex {
        PcrIndex::new(10).expect("10 is below 32")
    }

    fn open(&self, ek: EkKind, known_ek: KnownEk) -> TpmSettings {
        TpmSettings { ek, known_ek, ..TpmSettings::new(self.address.clone()) }
    }
}

/// A TPM with an attestation key for this node. Calls block, one after the other.
#[derive(Debug)]
pub struct NodeTpm {
    attester: TpmAttester,
    offer: TpmOffer,
    ak_name: AkName,
    /// DER, the endorsement key's first, each one's issuer after it.
    certificates: Vec<Vec<u8>>,
    logs: BTreeSet<TpmLog>,
}

impl NodeTpm {
    /// Opens the TPM, makes the key, and finds the certificates.
    ///
    /// # Errors
    /// Where there is no TPM, it is another one than it has to be, or nothing certifies it.
    pub fn open(settings: &NodeTpmSettings) -> Result<Self, DeviceError> {
        let ek = match settings.ek {
            Some(ek) => ek,
            None => certified_kind(settings).map_err(DeviceError::Tpm)?,
        };
        let bits = settings.pcrs.iter().fold(0, |bits, pcr| bits | 1 << pcr.get());
        let attester = TpmAttester::open(TpmAttesterSettings {
            tpm: settings.open(ek, settings.known_ek.clone()),
            ak: AkSpec { kind: settings.ak, place: AkPlace::Endorsement, label: settings.label },
            pcrs: vec![PcrSelection { bank: settings.bank, bits }],
        });
        let attester = attester.map_err(DeviceError::Tpm)?;
        let offer = attester.offer().map_err(DeviceError::Tpm)?;
        let certificates = certificates(&offer, &settings.certificates).map_err(DeviceError::Tpm)?;
        if certificates.is_empty() {
            return Err(DeviceError::Uncertified { kind: ek.name() });
        }
        let ak_name = AkName::from_bytes(attester.ak_name()).ok_or(DeviceError::Tpm(TpmError::KeyForm))?;
        Ok(Self { attester, offer, ak_name, certificates, logs: settings.logs.clone() })
    }

    /// The name of the key that quotes, for bindings.
    pub const fn ak_name(&self) -> &AkName {
        &self.ak_name
    }

    /// The name of the endorsement key: to be kept once it is enrolled ([`KnownEk::Name`]).
    pub fn ek_name(&self) -> &[u8] {
        self.attester.ek_name()
    }

    /// In DER: of the endorsement key, then each one's issuer as far as they are at hand; one to five.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The endorsement key: `TPM2B_PUBLIC`.
    pub fn ek_public(&self) -> &[u8] {
        &self.offer.ek_public
    }

    /// The attestation key: `TPM2B_PUBLIC`.
    pub fn ak_public(&self) -> &[u8] {
        &self.offer.ak_public
    }

    /// Opens a credential: the secret in it shows that both keys are in this TPM. `credential_blob` and `encrypted_secret` are the contents of
    /// `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`.
    ///
    /// # Errors
    /// Where it was made for other keys.
    pub fn activate(&self, credential_blob: &[u8], encrypted_secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.attester.activate(&Credential {
            credential_blob: credential_blob.to_vec(),
            encrypted_secret: encrypted_secret.to_vec(),
        })
    }

    pub(super) const fn logs(&self) -> &BTreeSet<TpmLog> {
        &self.logs
    }

    /// Its part over `report_data`, and the values that were quoted.
    pub(super) fn part(&self, report_data: &Digest) -> Result<(Vec<u8>, PcrValues), TpmError> {
        let evidence = self.attester.quote(report_data.as_bytes())?;
        let quote = Quote::parse(&evidence.quote, &evidence.signature)?;
        let mut pcr_values = Vec::new();
        for selection in quote.selections() {
            for index in selection.indices() {
                // The quote was verified over these very values.
                pcr_values.extend_from_slice(evidence.pcrs.value(selection.bank, index).unwrap_or_default());
            }
        }
        let part = TpmPart {
            attest: evidence.quote,
            signature: evidence.signature,
            // A `TPM2B_PUBLIC` is its size and the `TPMT_PUBLIC` that evidence carries.
            ak_public: evidence.ak_public.get(2..).unwrap_or_default().to_vec(),
            pcr_values,
            ek_certificates: self.certificates.clone(),
        };
        Ok((part.encode(), evidence.pcrs))
    }
}

/// The endorsement key that the TPM has a certificate of, or P-256 where it has none: its certificate may be in a file.
fn certified_kind(settings: &NodeTpmSettings) -> Result<EkKind, TpmError> {
    let mut refused = None;
    for kind in EVERYWHERE {
        // Only public certificates are read over it.
        match Tpm::open(settings.open(kind, KnownEk::FirstUse)) {
            Ok(mut tpm) => {
                let found = tpm.ek_certificates()?;
                let certified = |kind: &EkKind| found.keys.iter().any(|(of, _)| of == kind);
                return Ok(PREFERRED.into_iter().find(certified).unwrap_or(kind));
            }
            // A TPM without elliptic curves.
            Err(error) if error.refusal().is_some() => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or(TpmError::KeyForm))
}

/// The certificate of the key that was offered and those above it, as far as they are at hand. Others are nobody's business.
fn certificates(offer: &TpmOffer, given: &[Certificate]) -> Result<Vec<Vec<u8>>, TpmError> {
    let key = Public::parse(&offer.ek_public)?.public_key().map_err(|_| TpmError::KeyForm)?;
    let mut at_hand: Vec<Certificate> = Vec::new();
    for (_, certificate) in &offer.certificates.keys {
        at_hand.extend(Certificate::from_der_prefix(certificate).ok().map(|(certificate, _padding)| certificate));
    }
    let mut rest = offer.certificates.chain.as_slice();
    while let Ok((certificate, behind)) = Certificate::from_der_prefix(rest) {
        at_hand.push(certificate);
        rest = behind;
    }
    at_hand.extend(given.iter().cloned());
    let Some(first) = at_hand.iter().find(|one| one.public_key().is_ok_and(|certified| certified == key)) else {
        return Ok(Vec::new());
    };
    let mut chain = vec![first.der().to_vec()];
    let mut last = first;
    while chain.len() < MAX_CERTIFICATES && last.subject() != last.issuer() {
        let issued = |issuer: &&Certificate| {
            issuer.subject() == last.issuer()
                && issuer.public_key().is_ok_and(|key| last.verify_signature(&key).is_ok())
        };
        let Some(issuer) = at_hand.iter().find(issued) else { break };
        chain.push(issuer.der().to_vec());
        last = issuer;
    }
    Ok(chain)
}
