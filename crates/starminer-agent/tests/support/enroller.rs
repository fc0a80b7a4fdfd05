//! Whoever takes TPMs into a network, in memory: makes real credentials, and spoils them where a test orders that.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use starminer_hardware::cert::Certificate;
use starminer_hardware::tpm::Public;
use starminer_hardware::tpm::credential::{Credential, Randomness, make_credential};
use starminer_hardware::tpm::ek::{self, EkCertificate};
use starminer_hardware::tpm::enrolment::{SECRET_BYTES, challenge, confirm};
use starminer_receipt::{Base64Bytes, EnrolmentStatement, Envelope, Signer as _};
use starminer_verify::{
    AkName, Digest, Enrolment, Enrolments, NodeId, Provenance, PublicKey, SimulatedRootId, UnixTime, Verified,
};
use starminer_wire::{AdmissionRequest, EnrolmentChallenge, EnrolmentRequest};

use super::{World, random};

/// The status that stands for the refusal `enrolment.unknown`.
pub const UNKNOWN_ENROLMENT: u16 = 461;
/// The status of any other refusal.
const REFUSED: u16 = 422;

/// How an enrolment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Refuses,
    /// The credential is made for another attestation key.
    OtherKey,
    /// The secret is taken for wrong.
    TakesNoAnswer,
    /// There is no enrolment in the answer.
    GivesNone,
    /// The enrolment is another node's.
    OtherNode,
    /// The enrolment is of another certificate.
    OtherCertificate,
    /// The enrolment is not signed by whom it names.
    Forged,
}

#[derive(Default)]
struct State {
    moods: VecDeque<Mood>,
    /// Of the conversation under way.
    mood: Option<Mood>,
    asked: Option<(AkName, Digest, [u8; SECRET_BYTES])>,
    offers: u32,
    known: Vec<Enrolment>,
}

pub struct Enroller {
    /// Authorities, the root last.
    authorities: Vec<Certificate>,
    state: Mutex<State>,
}

impl Enroller {
    pub fn new(authorities: Vec<Certificate>, moods: impl IntoIterator<Item = Mood>) -> Self {
        let state = State { moods: moods.into_iter().collect(), ..State::default() };
        Self { authorities, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn root(&self) -> SimulatedRootId {
        SimulatedRootId::Tpm(Digest(self.authorities.last().unwrap().fingerprint()))
    }

    /// While the certificates are valid.
    pub fn now(&self) -> UnixTime {
        let from_s = self.authorities.iter().map(Certificate::not_before_s).max().unwrap();
        UnixTime((u64::try_from(from_s).unwrap() + 3600) * 1000)
    }

    pub fn records(&self) -> Enrolments {
        Enrolments { keys: self.lock().known.clone(), facilities: Vec::new() }
    }

    /// Conversations that were begun.
    pub fn offers(&self) -> u32 {
        self.lock().offers
    }

    /// Forgets whom it enrolled.
    pub fn forget(&self) {
        self.lock().known.clear();
    }

    pub fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentChallenge, u16> {
        let mut state = self.lock();
        state.offers += 1;
        state.mood = state.moods.pop_front();
        if state.mood == Some(Mood::Refuses) {
            return Err(REFUSED);
        }
        let certificate = EkCertificate::parse(&request.certificates[0].0).unwrap();
        let now_s = self.now().as_seconds();
        let context = ek::Context { authorities: &self.authorities, crls: &[], now_s };
        let verified = ek::verify(&certificate, &context).verified.expect("the emulator's certificate");
        let [ek, ak] = [&request.ek_public, &request.ak_public].map(|public| Public::parse(&public.0).unwrap());
        let secret: [u8; SECRET_BYTES] = random();
        let randomness = || Randomness { seed: random().into(), ephemeral: random().into() };
        let made: Credential = match state.mood {
            Some(Mood::OtherKey) => {
                let other = [&ak.name()[..2], &[0x5a; 32]].concat();
                make_credential(&ek, &other, &secret, randomness()).unwrap()
            }
            _ => challenge(&verified, &ek, &ak, &secret, randomness()).unwrap().credential.expect("a good offer"),
        };
        let name = AkName::from_bytes(&ak.name()).unwrap();
        state.asked = Some((name, Digest::of(&request.certificates[0].0), secret));
        Ok(EnrolmentChallenge {
            credential_blob: Base64Bytes(made.credential_blob),
            encrypted_secret: Base64Bytes(made.encrypted_secret),
            expires_at: UnixTime(u64::MAX),
        })
    }

    /// The enrolment that comes of an admission.
    pub fn admit(
        &self,
        world: &World,
        verified: &Verified,
        request: &AdmissionRequest,
    ) -> Result<Option<Envelope>, u16> {
        let mut state = self.lock();
        let name = verified.binding().ak_name.clone().expect("a TPM takes part");
        let Some(activation) = &request.activation else {
            let known = |envelope: &Envelope| {
                // What facilities state comes along too.
                let Ok(statement) = envelope.clone().open::<EnrolmentStatement>() else { return false };
                statement.ak_name.0 == name.as_bytes() && state.known.iter().any(|known| known.ak_name == name)
            };
            return if request.enrolments.iter().any(known) { Ok(None) } else { Err(UNKNOWN_ENROLMENT) };
        };
        let enrolled = |envelope: &Envelope| envelope.clone().open::<EnrolmentStatement>().is_ok();
        assert!(!request.enrolments.iter().any(enrolled), "an answer, and an enrolment");
        let (asked, certificate, secret) = state.asked.take().ok_or(REFUSED)?;
        let holds = confirm(&secret, &activation.0).hold() && asked == name;
        assert!(holds, "the TPM's answer is wrong");
        let mood = state.mood.take();
        let other = |byte: u8| Digest([byte; 32]);
        let statement = EnrolmentStatement {
            network: world.network,
            node: if mood == Some(Mood::OtherNode) { NodeId(PublicKey([1; 32])) } else { world.node },
            ak_name: Base64Bytes(name.as_bytes().to_vec()),
            ek_certificate: if mood == Some(Mood::OtherCertificate) { other(9) } else { certificate },
            simulated_root: Some(self.root()),
            chip: verified.device().chip(),
            enrolled_at: self.now(),
            enroller: world.coordinator.public_key(),
        };
        let envelope = Envelope::sign(statement, &world.coordinator).unwrap().into_envelope();
        match mood {
            Some(Mood::TakesNoAnswer) => Err(REFUSED),
            Some(Mood::GivesNone) => Ok(None),
            Some(Mood::Forged) => {
                let mut json = serde_json::to_value(&envelope).unwrap();
                let payload = json["payload"].as_str().unwrap().to_owned();
                let text = String::from_utf8(data_encoding::BASE64.decode(payload.as_bytes()).unwrap()).unwrap();
                let altered = text.replacen("\"enrolled_at\":1", "\"enrolled_at\":2", 1);
                assert_ne!(text, altered);
                json["payload"] = data_encoding::BASE64.encode(altered.as_bytes()).into();
                Ok(Some(serde_json::from_value(json).unwrap()))
            }
            _ => {
                state.known.push(Enrolment {
                    network: world.network,
                    node: world.node,
                    ak_name: name,
                    ek_certificate: certificate,
                    provenance: Provenance::Simulated { root: self.root() },
                    chip: verified.device().chip(),
                    enrolled_at: self.now(),
                });
                Ok(Some(envelope))
            }
        }
    }
}
