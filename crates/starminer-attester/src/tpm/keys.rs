//! Attestation keys, and the credential that ties one to the endorsement key.

use starminer_hardware::tpm::{Attributes, HashAlg, Hierarchy, Parent, Public, credential::Credential};
use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{
    Tpm,
    ek::ek_alone,
    error::TpmError,
    frame::{Authority, Call, Entity},
    link::{Link, RH_ENDORSEMENT, RH_OWNER},
    settings::Authorization,
    wire::{Reader, Writer},
};

/// `TPM_ALG_ID` and `TPM_ECC_CURVE`.
pub(super) mod alg {
    pub const RSA: u16 = 0x0001;
    pub const ECC: u16 = 0x0023;
    pub const AES: u16 = 0x0006;
    pub const CFB: u16 = 0x0043;
    pub const NULL: u16 = 0x0010;
    pub const RSASSA: u16 = 0x0014;
    pub const RSAPSS: u16 = 0x0016;
    pub const ECDSA: u16 = 0x0018;
    pub const P256: u16 = 0x0003;
    pub const P384: u16 = 0x0004;
}

/// *noDA*: failed authorisations of others, which lock a TPM, do not lock the key.
const NO_DA: u32 = 1 << 10;

/// How an attestation key signs, always over SHA-256: which every TPM can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AkKind {
    /// ECDSA on P-256: quick on every TPM.
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5, 2048 bits, for TPMs without elliptic curves.
    Rsassa2048,
    /// RSASSA-PSS, 2048 bits.
    Rsapss2048,
}

/// Where an attestation key hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AkPlace {
    /// A primary key of the endorsement hierarchy: the TPM makes the same again from its seed, after every boot, and
    /// nothing has to be kept. Clock and firmware version are told plainly.
    Endorsement,
    /// A primary key of the owner hierarchy: the same until the owner clears the TPM. Counters and firmware version are
    /// obfuscated.
    Owner,
    /// A child of the endorsement key, as `tpm2_createak` makes it: a new one each time, kept by whoever made it
    /// ([`Ak::private`]).
    EndorsementKey,
}

/// Which attestation key to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkSpec {
    /// How it signs.
    pub kind: AkKind,
    /// Where it hangs.
    pub place: AkPlace,
    /// Tells primary keys of one TPM apart: a hash over what the key is for. A child of the endorsement key is a new
    /// one anyway.
    pub label: [u8; 32],
}

impl AkSpec {
    /// `TPMT_PUBLIC` of the key wanted.
    fn public(&self) -> Zeroizing<Vec<u8>> {
        const ATTRIBUTES: u32 = Attributes::FIXED_TPM
            .and(Attributes::FIXED_PARENT)
            .and(Attributes::SENSITIVE_DATA_ORIGIN)
            .and(Attributes::USER_WITH_AUTH)
            .and(Attributes::RESTRICTED)
            .and(Attributes::SIGN)
            .bits()
            | NO_DA;
        let label = if self.place == AkPlace::EndorsementKey { &[][..] } else { &self.label };
        let area =
            |kind: u16| Writer::new().u16(kind).u16(HashAlg::Sha256.id()).u32(ATTRIBUTES).sized(&[]).u16(alg::NULL);
        let rsa = |scheme: u16| area(alg::RSA).u16(scheme).u16(HashAlg::Sha256.id()).u16(2048).u32(0).sized(label);
        match self.kind {
            AkKind::EcdsaP256 => area(alg::ECC)
                .u16(alg::ECDSA)
                .u16(HashAlg::Sha256.id())
                .u16(alg::P256)
                .u16(alg::NULL)
                .sized(label)
                .sized(&[]),
            AkKind::Rsassa2048 => rsa(alg::RSASSA),
            AkKind::Rsapss2048 => rsa(alg::RSAPSS),
        }
        .finish()
    }
}

/// An attestation key in the TPM. Its handle is flushed with [`Tpm::flush_ak`], or when the TPM is dropped.
#[derive(Debug, Clone)]
pub struct Ak {
    pub(super) entity: Entity,
    public: Public,
    area: Vec<u8>,
    place: AkPlace,
    private: Option<Vec<u8>>,
}

impl Ak {
    /// The public area, read.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// The `TPM2B_PUBLIC`, as the TPM gave it.
    #[must_use]
    pub fn to_tpm2b(&self) -> Vec<u8> {
        Writer::new().sized(&self.area).finish().to_vec()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.entity.name
    }

    /// Where it hangs.
    #[must_use]
    pub const fn place(&self) -> AkPlace {
        self.place
    }

    /// Of a child of the endorsement key: the content of `TPM2B_PRIVATE`, encrypted so that this TPM alone can load it
    /// again.
    #[must_use]
    pub fn private(&self) -> Option<&[u8]> {
        self.private.as_deref()
    }

    /// What a verifier is told about its place.
    #[must_use]
    pub const fn parent<'a>(&self, ek: &'a Public) -> Parent<'a> {
        match self.place {
            AkPlace::Endorsement => Parent::Hierarchy(Hierarchy::Endorsement),
            AkPlace::Owner => Parent::Hierarchy(Hierarchy::Owner),
            AkPlace::EndorsementKey => Parent::Key(ek, Hierarchy::Endorsement),
        }
    }
}

pub(super) fn create_primary(
    link: &mut Link,
    hierarchy: u32,
    authorization: &Authorization,
    template: &[u8],
) -> Result<(u32, Vec<u8>), TpmError> {
    let call = Call::new(TpmCc::CreatePrimary)
        .authorized(Entity::by_handle(hierarchy), Authority::Value(authorization))
        .with(|writer| creation(writer, template))
        .giving_handle();
    let reply = link.run(call)?;
    let area = reply.read(TpmCc::CreatePrimary, |reader| reader.sized().map(<[u8]>::to_vec))?;
    Ok((reply.handle, area))
}

/// `TPM2B_SENSITIVE_CREATE` without authorisation and data, the template, no outside information, no PCRs.
fn creation(writer: Writer, template: &[u8]) -> Writer {
    writer.sized(&[0; 4]).sized(template).sized(&[]).u32(0)
}

impl Tpm {
    /// Makes an attestation key.
    ///
    /// # Errors
    /// Where the TPM does not make such keys, or an authorisation is wrong.
    pub fn create_ak(&mut self, spec: &AkSpec) -> Result<Ak, TpmError> {
        let (hierarchy, authorization) = match spec.place {
            AkPlace::Endorsement => (RH_ENDORSEMENT, self.link.settings.endorsement.clone()),
            AkPlace::Owner => (RH_OWNER, self.link.settings.owner.clone()),
            AkPlace::EndorsementKey => return self.create_child_ak(spec),
        };
        let (handle, area) = create_primary(&mut self.link, hierarchy, &authorization, &spec.public())?;
        self.ak(handle, area, spec.place, None)
    }

    fn create_child_ak(&mut self, spec: &AkSpec) -> Result<Ak, TpmError> {
        let template = spec.public();
        let (private, area) = self.with_ek(|link, ek, session| {
            let call = Call::new(TpmCc::Create)
                .authorized(ek.entity.clone(), ek_alone(session))
                .with(|writer| creation(writer, &template))
                .sealed();
            let reply = link.run(call)?;
            reply.read(TpmCc::Create, |reader| Some((reader.sized()?.to_vec(), reader.sized()?.to_vec())))
        })?;
        self.load_ak(&area, &private)
    }

    /// Loads a child of the endorsement key again: the content of its `TPM2B_PUBLIC` and `TPM2B_PRIVATE`.
    ///
    /// # Errors
    /// Where it is no child of this key.
    pub fn load_ak(&mut self, area: &[u8], private: &[u8]) -> Result<Ak, TpmError> {
        let handle = self.with_ek(|link, ek, session| {
            let call = Call::new(TpmCc::Load)
                .authorized(ek.entity.clone(), ek_alone(session))
                .with(|writer| writer.sized(private).sized(area))
                .giving_handle();
            link.run(call).map(|reply| reply.handle)
        })?;
        self.ak(handle, area.to_vec(), AkPlace::EndorsementKey, Some(private.to_vec()))
    }

    fn ak(&mut self, handle: u32, area: Vec<u8>, place: AkPlace, private: Option<Vec<u8>>) -> Result<Ak, TpmError> {
        match Public::parse(&area) {
            Ok(public) => Ok(Ak { entity: Entity { handle, name: public.name() }, public, area, place, private }),
            Err(error) => {
                self.link.flush(handle)?;
                Err(error.into())
            }
        }
    }

    /// Flushes an attestation key before the TPM is dropped.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn flush_ak(&mut self, ak: Ak) -> Result<(), TpmError> {
        self.link.flush(ak.entity.handle)
    }

    /// Opens a credential: gives the secret that shows that this TPM holds the endorsement key it was made for, and the
    /// attestation key. On its way from the TPM the secret is encrypted.
    ///
    /// # Errors
    /// [`TpmError::Refused`] with `TPM_RC_INTEGRITY` or `TPM_RC_VALUE` where it was made for other keys.
    pub fn activate(&mut self, ak: &Ak, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let empty = Authorization::default();
        self.with_ek(|link, ek, session| {
            let authority = session.map_or(Authority::Empty, Authority::Policy);
            let call = Call::new(TpmCc::ActivateCredential)
                .authorized(ak.entity.clone(), Authority::Value(&empty))
                .authorized(ek.entity.clone(), authority)
                .with(|writer| writer.sized(&credential.credential_blob).sized(&credential.encrypted_secret))
                .opened();
            link.run(call)?.read(TpmCc::ActivateCredential, |reader| {
                let secret = Zeroizing::new(reader.sized()?.to_vec());
                Reader::end(*reader).map(|()| secret)
            })
        })
    }
}
