//! Quotes over batches of bindings, by one attestation key that was enrolled.

use std::sync::{Mutex, PoisonError};

use starminer_hardware::{
    Verdict, Weight,
    tpm::{
        AttestationKey, Clock, Context, Parent, PcrSelection, PcrValues, Public, Quote, Verified,
        credential::Credential, verify,
    },
};
use zeroize::Zeroizing;

use super::{Ak, AkSpec, EkCertificates, KnownEk, RawQuote, Tpm, TpmError, TpmSettings};

/// How often a quote is made anew because PCRs changed between reading and quoting them. IMA changes its PCR with every
/// new file.
const ATTEMPTS_MAX: u32 = 8;

/// What an attester quotes, and with what.
#[derive(Debug, Clone)]
pub struct TpmAttesterSettings {
    /// The TPM.
    pub tpm: TpmSettings,
    /// The attestation key: a primary one ([`super::AkPlace::Endorsement`], [`super::AkPlace::Owner`]), which the TPM
    /// makes again after every boot.
    pub ak: AkSpec,
    /// The PCRs.
    pub pcrs: Vec<PcrSelection>,
}

/// What a node sends to be enrolled. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmOffer {
    /// Certificates out of the TPM.
    pub certificates: EkCertificates,
    /// The endorsement key: `TPM2B_PUBLIC`.
    pub ek_public: Vec<u8>,
    /// The attestation key: `TPM2B_PUBLIC`.
    pub ak_public: Vec<u8>,
}

/// The TPM's part of evidence. Every piece is as the TPM gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmEvidence {
    /// `TPMS_ATTEST`.
    pub quote: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// `TPM2B_PUBLIC` of the key that signed.
    pub ak_public: Vec<u8>,
    /// The values that were quoted.
    pub pcrs: PcrValues,
    /// The TPM's clock and counters, as they stand in the quote.
    pub clock: Clock,
    /// The same of its firmware's version.
    pub firmware_version: u64,
}

/// A TPM with an attestation key in it.
struct Live {
    tpm: Tpm,
    ak: Ak,
    key: AttestationKey,
}

impl Live {
    fn open(settings: &TpmAttesterSettings, known: KnownEk) -> Result<Self, TpmError> {
        let mut tpm = Tpm::open(TpmSettings { known_ek: known, ..settings.tpm.clone() })?;
        let ak = tpm.create_ak(&settings.ak)?;
        let key = AttestationKey::parse(&ak.to_tpm2b())?;
        Ok(Self { tpm, ak, key })
    }

    /// A quote that verifies with the values read before it.
    fn quote(&mut self, root: &[u8; 32], pcrs: &[PcrSelection]) -> Result<TpmEvidence, TpmError> {
        for _ in 0..ATTEMPTS_MAX {
            let values = self.tpm.read_pcrs(pcrs)?;
            let quote = self.tpm.quote(&self.ak, root, pcrs)?;
            if let Some(verified) = self.check(&quote, root, &values)? {
                return Ok(TpmEvidence {
                    clock: verified.clock(),
                    firmware_version: verified.firmware_version(),
                    quote: quote.attest,
                    signature: quote.signature,
                    ak_public: self.ak.to_tpm2b(),
                    pcrs: values,
                });
            }
        }
        Err(TpmError::Restless(ATTEMPTS_MAX))
    }

    /// What a verifier will do. `None` where nothing but the values is wrong: some changed in between.
    fn check(&self, quote: &RawQuote, root: &[u8; 32], values: &PcrValues) -> Result<Option<Verified>, TpmError> {
        let parsed = Quote::parse(&quote.attest, &quote.signature)?;
        let parent = self.ak.parent(self.tpm.ek());
        let context = Context { nonce: root, ak: &self.key, parent, pcrs: Some(values), maker: None };
        let verification = verify(&parsed, &context);
        if verification.verified.is_some() {
            return Ok(verification.verified);
        }
        let failed: Vec<_> = verification
            .checks
            .as_slice()
            .iter()
            .filter(|check| check.weight == Weight::Required && check.verdict == Verdict::Fail)
            .map(|check| check.name.as_ref())
            .collect();
        if failed == ["tpm.pcr-digest"] { Ok(None) } else { Err(TpmError::Quote { failed: failed.join(", ") }) }
    }
}

/// Makes the TPM's part of evidence. Calls block, one after the other: a TPM does one thing at a time, so that callers
/// batch.
pub struct TpmAttester {
    settings: TpmAttesterSettings,
    ek_name: Vec<u8>,
    ak: Public,
    ak_name: Vec<u8>,
    /// `None` after a fault, until the next call opens it anew.
    live: Mutex<Option<Live>>,
}

impl std::fmt::Debug for TpmAttester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TpmAttester").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TpmAttester {
    /// Opens the TPM and makes its attestation key. From here on, another endorsement or attestation key is refused.
    ///
    /// # Errors
    /// As [`Tpm::open`] and [`Tpm::create_ak`].
    pub fn open(settings: TpmAttesterSettings) -> Result<Self, TpmError> {
        if settings.ak.place == super::AkPlace::EndorsementKey {
            return Err(TpmError::Argument("an attester's key is a primary one, which needs no keeping"));
        }
        let live = Live::open(&settings, settings.tpm.known_ek.clone())?;
        Ok(Self {
            ek_name: live.tpm.ek_name().to_vec(),
            ak: live.ak.public().clone(),
            ak_name: live.ak.name().to_vec(),
            live: Mutex::new(Some(live)),
            settings,
        })
    }

    /// The attestation key.
    #[must_use]
    pub const fn ak(&self) -> &Public {
        &self.ak
    }

    /// Its name.
    #[must_use]
    pub fn ak_name(&self) -> &[u8] {
        &self.ak_name
    }

    /// The endorsement key's name: to be kept once it is enrolled ([`KnownEk::Name`]).
    #[must_use]
    pub fn ek_name(&self) -> &[u8] {
        &self.ek_name
    }

    /// Where the attestation key hangs, for whoever verifies.
    #[must_use]
    pub const fn parent(&self) -> Parent<'static> {
        use starminer_hardware::tpm::Hierarchy;
        Parent::Hierarchy(match self.settings.ak.place {
            super::AkPlace::Owner => Hierarchy::Owner,
            super::AkPlace::Endorsement | super::AkPlace::EndorsementKey => Hierarchy::Endorsement,
        })
    }

    /// Quotes the PCRs over the root of a batch of bindings (`starminer_verify::Batch::report_data`): one quote for all
    /// of them. The quote was verified here, with the values that go with it.
    ///
    /// # Errors
    /// Where the TPM does not quote; the next call opens it anew.
    pub fn quote(&self, root: &[u8; 32]) -> Result<TpmEvidence, TpmError> {
        self.with(|live| live.quote(root, &self.settings.pcrs))
    }

    /// What to send to be enrolled.
    ///
    /// # Errors
    /// Where the TPM does not answer.
    pub fn offer(&self) -> Result<TpmOffer, TpmError> {
        self.with(|live| {
            Ok(TpmOffer {
                certificates: live.tpm.ek_certificates()?,
                ek_public: live.tpm.ek_tpm2b(),
                ak_public: live.ak.to_tpm2b(),
            })
        })
    }

    /// Answers an enrolment (`starminer_hardware::tpm::enrolment`): gives the secret in the credential.
    ///
    /// # Errors
    /// Where it was made for other keys.
    pub fn activate(&self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.with(|live| live.tpm.activate(&live.ak, credential))
    }

    /// Something else with the TPM: its properties, its clock, a counter. Done once: after an error it may have
    /// happened or not.
    ///
    /// # Errors
    /// Those of what is done.
    pub fn with_tpm<T>(&self, run: impl FnOnce(&mut Tpm) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let mut place = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.once(&mut place, |live| run(&mut live.tpm))
    }

    /// Something that may be done twice. Where a reset, a new process behind the socket or a forged error took keys and
    /// sessions away, the TPM is opened once more.
    fn with<T>(&self, run: impl Fn(&mut Live) -> Result<T, TpmError>) -> Result<T, TpmError> {
        // A panic in a call leaves the place empty.
        let mut place = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = place.is_some();
        let result = self.once(&mut place, &run);
        if was_open && result.as_ref().is_err_and(TpmError::asks_for_a_new_start) {
            return self.once(&mut place, &run);
        }
        result
    }

    fn once<T>(
        &self,
        place: &mut Option<Live>,
        run: impl FnOnce(&mut Live) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut live = self.take(place.take())?;
        let result = run(&mut live);
        if live.tpm.is_open() && !result.as_ref().is_err_and(TpmError::asks_for_a_new_start) {
            *place = Some(live);
        }
        result
    }

    fn take(&self, live: Option<Live>) -> Result<Live, TpmError> {
        if let Some(live) = live {
            return Ok(live);
        }
        let live = Live::open(&self.settings, KnownEk::Name(self.ek_name.clone()))?;
        if live.ak.name() == self.ak_name { Ok(live) } else { Err(TpmError::OtherAttestationKey) }
    }
}
