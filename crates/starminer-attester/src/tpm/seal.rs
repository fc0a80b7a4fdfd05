//! Secrets that a TPM gives back to the machine that sealed them, and to that machine alone while it is what it was: sealed objects under a policy
//! (Part 1, 19.7; Part 3, 12 and 23).
//!
//! A secret is a child of a storage key that the TPM makes from the owner's seed, so that another TPM, or this one after its owner was cleared, cannot load it.
//! Nothing but the policy authorises its use. On its way it is encrypted by the salted session, in both directions.

use starminer_hardware::tpm::{Attributes, HashAlg, PcrSelection, approval::ApprovalKey};
use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{
    Tpm,
    error::TpmError,
    frame::{Authority, Call, Entity},
    keys::{alg, create_primary},
    link::{Link, RH_NULL, RH_OWNER},
    quote::{check_selections, select, selected},
    session::{Kind, SESSION_HASH, Session},
    settings::Authorization,
    wire::{Reader, Writer},
};

/// Longest secret (Part 2, `MAX_SYM_DATA`).
pub const SECRET_BYTES_MAX: usize = 128;
/// *noDA*: failed authorisations of others, which lock a TPM, do not lock it.
const NO_DA: u32 = 1 << 10;
const ALG_KEYEDHASH: u16 = 0x0008;
/// `TPM_EO_UNSIGNED_LE`: the index holds at most the operand.
const AT_MOST: u16 = 0x0009;
/// `TPMI_RH_HIERARCHY`: the key's approvals are tickets of this hierarchy.
const APPROVALS_IN: u32 = RH_OWNER;

/// One condition of a policy. They are asked for in their order.
#[derive(Debug, Clone)]
pub enum PolicyStep<'a> {
    /// Registers hold what they held when it was sealed.
    Registers(PcrSelection),
    /// All conditions so far were approved, under this reference, with this key: in their place, the key and the reference count.
    Approved {
        /// Whose approval.
        key: &'a ApprovalKey,
        /// What it is for.
        reference: [u8; 32],
        /// The approval: r and s.
        signature: [u8; 64],
    },
    /// A counter stands at most at this value.
    CounterAtMost {
        /// Its index, which the owner may read.
        index: u32,
        /// The value.
        value: u64,
    },
}

/// A secret as it lies outside of the TPM: of no use elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The content of `TPM2B_PRIVATE`.
    pub private: Vec<u8>,
    /// `TPMS_CREATION_DATA`.
    pub creation: Vec<u8>,
    /// `TPMT_TK_CREATION`: this TPM's word that the creation data are of this object.
    pub ticket: Vec<u8>,
}

/// What registers held when a secret was sealed. A policy says when it is given back; this says who sealed it: anybody who may use the TPM can make a secret
/// of his own under any policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeUnder {
    /// Which registers.
    pub registers: PcrSelection,
    /// SHA-256 over their values, in the order of their numbers.
    pub digest: [u8; 32],
}

impl Tpm {
    /// Seals a secret to this TPM and this policy: registers as they are, counters as they stand in it. What `made_under` names is written down with it, for
    /// [`Self::made_under`].
    ///
    /// # Errors
    /// Where the secret is too long, an approval does not verify, or the TPM refuses.
    pub fn seal(
        &mut self,
        secret: &[u8],
        policy: &[PolicyStep<'_>],
        made_under: PcrSelection,
    ) -> Result<Sealed, TpmError> {
        check_secret(secret)?;
        let trial = self.link.start_unsalted(Kind::Trial)?;
        let digest = follow(&mut self.link, &trial, policy).and_then(|()| policy_digest(&mut self.link, &trial));
        self.link.flush(trial.handle)?;
        self.seal_under(secret, &digest?, made_under)
    }

    /// The same under a policy of which the digest alone is known: whoever has that can make an object under it, and nobody but who satisfies it opens it.
    ///
    /// # Errors
    /// Where the secret is too long, or the TPM refuses.
    pub fn seal_under(
        &mut self,
        secret: &[u8],
        policy: &[u8; 32],
        made_under: PcrSelection,
    ) -> Result<Sealed, TpmError> {
        check_secret(secret)?;
        check_selections(&[made_under])?;
        let template = sealed_object(policy);
        // `TPMS_SENSITIVE_CREATE`: without an authorisation, which the policy stands for.
        let sensitive = Writer::new().sized(&[]).sized(secret).finish();
        let empty = Authorization::default();
        self.with_storage_key(|link, storage| {
            let call = Call::new(TpmCc::Create)
                .authorized(storage.clone(), Authority::Value(&empty))
                // No outside information.
                .with(|writer| select(writer.sized(&sensitive).sized(&template).sized(&[]), &[made_under]))
                .sealed();
            link.run(call)?.read(TpmCc::Create, |reader| {
                let (private, public) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
                let (creation, _hash) = (reader.sized()?.to_vec(), reader.sized()?);
                let (tag, hierarchy, digest) = (reader.u16()?, reader.u32()?, reader.sized()?);
                reader.end()?;
                let ticket = Writer::new().u16(tag).u32(hierarchy).sized(digest).finish().to_vec();
                Some(Sealed { public, private, creation, ticket })
            })
        })
    }

    /// What the registers held when this was sealed, by this TPM's own word (`TPM2_CertifyCreation`; Part 3, 18.3).
    ///
    /// # Errors
    /// [`TpmError::Refused`]: as [`Self::unseal`] by `TPM2_Load`; with `TPM_RC_TICKET` where the creation data are not of this object.
    pub fn made_under(&mut self, sealed: &Sealed) -> Result<MadeUnder, TpmError> {
        let (handle, name) = self.load(sealed)?;
        let empty = Authorization::default();
        let call = Call::new(TpmCc::CertifyCreation)
            // Nobody signs: the TPM checks its ticket before it would.
            .authorized(Entity::by_handle(RH_NULL), Authority::Value(&empty))
            .on(Entity { handle, name })
            .with(|writer| {
                let hash = super::session::hash(&[&sealed.creation]);
                writer.sized(&[]).sized(hash.as_ref()).u16(alg::NULL).bytes(&sealed.ticket)
            });
        let checked = self.link.run(call).map(|_| ());
        self.link.flush(handle).and(checked)?;
        let mut reader = Reader::new(&sealed.creation);
        let parsed = selected(&mut reader, false).zip(reader.sized().and_then(|digest| digest.try_into().ok()));
        match parsed {
            Some((registers, digest)) if registers.len() == 1 => Ok(MadeUnder { registers: registers[0], digest }),
            _ => Err(TpmError::KeyForm),
        }
    }

    /// Loads it. Who has the handle flushes it.
    fn load(&mut self, sealed: &Sealed) -> Result<(u32, Vec<u8>), TpmError> {
        let empty = Authorization::default();
        let handle = self.with_storage_key(|link, storage| {
            let call = Call::new(TpmCc::Load)
                .authorized(storage.clone(), Authority::Value(&empty))
                .with(|writer| writer.sized(&sealed.private).sized(&sealed.public))
                .giving_handle();
            link.run(call).map(|reply| reply.handle)
        })?;
        Ok((handle, name_of(&sealed.public)))
    }

    /// Gives a secret back.
    ///
    /// # Errors
    /// [`TpmError::Refused`]: with `TPM_RC_INTEGRITY` by `TPM2_Load` where another TPM sealed it, or its owner was cleared since; with `TPM_RC_SIGNATURE` where an
    /// approval is not for what the registers hold; with `TPM_RC_POLICY` where a counter stands higher; with `TPM_RC_POLICY_FAIL` where registers differ, or
    /// the policy was another one.
    pub fn unseal(&mut self, sealed: &Sealed, policy: &[PolicyStep<'_>]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let (handle, name) = self.load(sealed)?;
        let result = self.unseal_loaded(Entity { handle, name }, policy);
        self.link.flush(handle).and(result)
    }

    fn unseal_loaded(&mut self, object: Entity, policy: &[PolicyStep<'_>]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let link = &mut self.link;
        let session = link.start_unsalted(Kind::Policy)?;
        let result = follow(link, &session, policy).and_then(|()| {
            let call = Call::new(TpmCc::Unseal).authorized(object, Authority::Policy(&session)).opened();
            link.run(call)?.read(TpmCc::Unseal, |reader| {
                let secret = Zeroizing::new(reader.sized()?.to_vec());
                Reader::end(*reader).map(|()| secret)
            })
        });
        match result {
            // It was for one use, and the TPM has ended it.
            Ok(secret) => {
                link.forget(session.handle);
                Ok(secret)
            }
            Err(error) => {
                // Of both errors, the first says why.
                let _ = link.flush(session.handle);
                Err(error)
            }
        }
    }

    /// Something with the storage key: the same one each time, until the owner is cleared.
    fn with_storage_key<T>(
        &mut self,
        run: impl FnOnce(&mut Link, &Entity) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let owner = self.link.settings.owner.clone();
        let (handle, area) = create_primary(&mut self.link, RH_OWNER, &owner, &storage_key())?;
        let result = run(&mut self.link, &Entity { handle, name: name_of(&area) });
        self.link.flush(handle).and(result)
    }
}

fn check_secret(secret: &[u8]) -> Result<(), TpmError> {
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
        return Err(TpmError::Argument("a secret of 1 to 128 bytes can be sealed"));
    }
    Ok(())
}

/// Takes a session through the conditions.
fn follow(link: &mut Link, session: &Session, policy: &[PolicyStep<'_>]) -> Result<(), TpmError> {
    let this = || Entity::by_handle(session.handle);
    for step in policy {
        match step {
            PolicyStep::Registers(selection) => {
                check_selections(&[*selection])?;
                // Without a digest, the registers' values are taken as they are.
                let call = Call::new(TpmCc::PolicyPcr).on(this());
                link.run(call.with(|writer| select(writer.sized(&[]), &[*selection])))?;
            }
            PolicyStep::Approved { key, reference, signature } => {
                let policy = policy_digest(link, session)?;
                approve(link, session, &policy, key, reference, signature)?;
            }
            PolicyStep::CounterAtMost { index, value } => {
                let counter = link.counter(*index)?;
                let owner = link.settings.owner.clone();
                let call = Call::new(TpmCc::PolicyNv)
                    .authorized(Entity::by_handle(RH_OWNER), Authority::Value(&owner))
                    .on(counter)
                    .on(this())
                    .with(|writer| writer.sized(&value.to_be_bytes()).u16(0).u16(AT_MOST));
                link.run(call)?;
            }
        }
    }
    Ok(())
}

fn policy_digest(link: &mut Link, session: &Session) -> Result<[u8; 32], TpmError> {
    let reply = link.run(Call::new(TpmCc::PolicyGetDigest).on(Entity::by_handle(session.handle)))?;
    reply.read(TpmCc::PolicyGetDigest, |reader| reader.sized()?.try_into().ok())
}

fn approve(
    link: &mut Link,
    session: &Session,
    policy: &[u8; 32],
    key: &ApprovalKey,
    reference: &[u8; 32],
    signature: &[u8; 64],
) -> Result<(), TpmError> {
    let area = verification_key(key);
    let name = name_of(&area);
    let call =
        Call::new(TpmCc::LoadExternal).with(|writer| writer.sized(&[]).sized(&area).u32(APPROVALS_IN)).giving_handle();
    let handle = link.run(call)?.handle;
    let signed = super::session::hash(&[policy, reference]);
    let (r, s) = signature.split_at(32);
    let call = Call::new(TpmCc::VerifySignature)
        .on(Entity { handle, name: name.clone() })
        .with(|writer| writer.sized(signed.as_ref()).u16(alg::ECDSA).u16(HashAlg::Sha256.id()).sized(r).sized(s));
    let ticket = link.run(call).and_then(|reply| {
        // `TPMT_TK_VERIFIED`, handed on as it is.
        let whole = reply.parameters.to_vec();
        reply.read(TpmCc::VerifySignature, |reader| {
            let _ = (reader.u16()?, reader.u32()?, reader.sized()?);
            reader.end()
        })?;
        Ok(whole)
    });
    link.flush(handle)?;
    let ticket = ticket?;
    let call = Call::new(TpmCc::PolicyAuthorize)
        .on(Entity::by_handle(session.handle))
        .with(|writer| writer.sized(policy).sized(reference).sized(&name).bytes(&ticket));
    link.run(call).map(|_| ())
}

/// The name (Part 1, 16) of what a template of this file made.
fn name_of(area: &[u8]) -> Vec<u8> {
    [&SESSION_HASH.id().to_be_bytes()[..], super::session::hash(&[area]).as_ref()].concat()
}

/// `TPMT_PUBLIC` of a storage key on P-256 (TCG TPM v2.0 Provisioning Guidance, 7.5.1).
fn storage_key() -> Zeroizing<Vec<u8>> {
    const ATTRIBUTES: u32 = Attributes::FIXED_TPM
        .and(Attributes::FIXED_PARENT)
        .and(Attributes::SENSITIVE_DATA_ORIGIN)
        .and(Attributes::USER_WITH_AUTH)
        .and(Attributes::RESTRICTED)
        .and(Attributes::DECRYPT)
        .bits()
        | NO_DA;
    Writer::new()
        .u16(alg::ECC)
        .u16(HashAlg::Sha256.id())
        .u32(ATTRIBUTES)
        .sized(&[])
        .u16(alg::AES)
        .u16(128)
        .u16(alg::CFB)
        .u16(alg::NULL)
        .u16(alg::P256)
        .u16(alg::NULL)
        .sized(&[0; 32])
        .sized(&[0; 32])
        .finish()
}

/// `TPMT_PUBLIC` of a secret whose use this policy alone authorises.
fn sealed_object(policy: &[u8]) -> Zeroizing<Vec<u8>> {
    const ATTRIBUTES: u32 =
        Attributes::FIXED_TPM.and(Attributes::FIXED_PARENT).and(Attributes::ADMIN_WITH_POLICY).bits() | NO_DA;
    Writer::new()
        .u16(ALG_KEYEDHASH)
        .u16(SESSION_HASH.id())
        .u32(ATTRIBUTES)
        .sized(policy)
        .u16(alg::NULL)
        .sized(&[])
        .finish()
}

/// `TPMT_PUBLIC` of a key that verifies approvals. Its name is what a policy depends on, so that none of it may ever change.
fn verification_key(key: &ApprovalKey) -> Zeroizing<Vec<u8>> {
    const ATTRIBUTES: u32 = Attributes::SIGN.and(Attributes::USER_WITH_AUTH).bits();
    let (x, y) = key.coordinates();
    Writer::new()
        .u16(alg::ECC)
        .u16(HashAlg::Sha256.id())
        .u32(ATTRIBUTES)
        .sized(&[])
        .u16(alg::NULL)
        .u16(alg::ECDSA)
        .u16(HashAlg::Sha256.id())
        .u16(alg::P256)
        .u16(alg::NULL)
        .sized(x)
        .sized(y)
        .finish()
}
