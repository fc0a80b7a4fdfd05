//! Keys: the endorsement key by its default template, attestation keys, and the credential that ties one to the other.

use starminer_hardware::tpm::{Attributes, HashAlg, Hierarchy, Parent, Public, Template, credential::Credential};
use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{
    Tpm,
    error::TpmError,
    link::{Authority, Authorization, Call, Entity, Link, RH_ENDORSEMENT, RH_OWNER},
    session::{Kind, Session},
    wire::{Reader, Writer},
};

const ALG_RSA: u16 = 0x0001;
const ALG_ECC: u16 = 0x0023;
const ALG_AES: u16 = 0x0006;
const ALG_CFB: u16 = 0x0043;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAPSS: u16 = 0x0016;
const ALG_ECDSA: u16 = 0x0018;
const ECC_P256: u16 = 0x0003;
const ECC_P384: u16 = 0x0004;

/// *noDA*: failed authorisations of others, which lock a TPM, do not lock the key.
const NO_DA: u32 = 1 << 10;

/// Which endorsement key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EkKind {
    /// RSA 2048, template L-1.
    Rsa2048,
    /// P-256, template L-2.
    P256,
    /// P-384, template H-3.
    P384,
}

impl EkKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::P256, Self::P384];

    /// The NV index of the maker's certificate (EK Credential Profile, 2.2.1.4 and 2.2.1.5).
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::P256 => 0x01c0_000a,
            Self::P384 => 0x01c0_0016,
        }
    }

    /// Where the key lies if the platform's maker kept it (TCG TPM v2.0 Provisioning Guidance, 7.8; high range as `swtpm_setup` does).
    const fn persistent_handle(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x8101_0001,
            Self::P256 => 0x8101_0002,
            Self::P384 => 0x8101_0016,
        }
    }

    const fn template(self) -> Template {
        match self {
            Self::Rsa2048 | Self::P256 => Template::Low,
            Self::P384 => Template::High,
        }
    }

    /// `TPMT_PUBLIC` of the template.
    fn public(self) -> Zeroizing<Vec<u8>> {
        let template = self.template();
        let area = |kind: u16, name: HashAlg| {
            // Each of these templates has a policy under its own hash.
            let policy = template.auth_policy(name).unwrap_or_default();
            Writer::new().u16(kind).u16(name.id()).u32(template.attributes().bits()).sized(policy)
        };
        let aes = |writer: Writer, bits: u16| writer.u16(ALG_AES).u16(bits).u16(ALG_CFB).u16(ALG_NULL);
        match self {
            Self::Rsa2048 => aes(area(ALG_RSA, HashAlg::Sha256), 128)
                .u16(2048)
                .u32(0)
                .sized(&[0; 256]),
            Self::P256 => aes(area(ALG_ECC, HashAlg::Sha256), 128)
                .u16(ECC_P256)
                .u16(ALG_NULL)
                .sized(&[0; 32])
                .sized(&[0; 32]),
            Self::P384 => aes(area(ALG_ECC, HashAlg::Sha384), 256)
                .u16(ECC_P384)
                .u16(ALG_NULL)
                .sized(&[])
                .sized(&[]),
        }
        .finish()
    }

    fn is(self, public: &Public) -> bool {
        let algorithm = match public.public_key() {
            Ok(key) => key.name(),
            Err(_) => return false,
        };
        let wanted = match self {
            Self::Rsa2048 => "rsa-2048",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
        };
        algorithm == wanted && Template::of(public) == Some(self.template())
    }
}

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
    /// A primary key of the endorsement hierarchy: the TPM makes the same again from its seed, after every boot, and nothing has to be kept. Clock
    /// and firmware version are told plainly.
    Endorsement,
    /// A primary key of the owner hierarchy: the same until the owner clears the TPM. Counters and firmware version are obfuscated.
    Owner,
    /// A child of the endorsement key, as `tpm2_createak` makes it: a new one each time, kept by whoever made it ([`Ak::private`]).
    EndorsementKey,
}

/// Which attestation key to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkSpec {
    /// How it signs.
    pub kind: AkKind,
    /// Where it hangs.
    pub place: AkPlace,
    /// Tells primary keys of one TPM apart: a hash over what the key is for. A child of the endorsement key is a new one anyway.
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
        let area = |kind: u16| {
            Writer::new().u16(kind).u16(HashAlg::Sha256.id()).u32(ATTRIBUTES).sized(&[]).u16(ALG_NULL)
        };
        let rsa = |scheme: u16| area(ALG_RSA).u16(scheme).u16(HashAlg::Sha256.id()).u16(2048).u32(0).sized(label);
        match self.kind {
            AkKind::EcdsaP256 => area(ALG_ECC)
                .u16(ALG_ECDSA)
                .u16(HashAlg::Sha256.id())
                .u16(ECC_P256)
                .u16(ALG_NULL)
                .sized(label)
                .sized(&[]),
            AkKind::Rsassa2048 => rsa(ALG_RSASSA),
            AkKind::Rsapss2048 => rsa(ALG_RSAPSS),
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

    /// Of a child of the endorsement key: the content of `TPM2B_PRIVATE`, encrypted so that this TPM alone can load it again.
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

/// The endorsement key in the TPM.
pub(super) struct LoadedEk {
    pub(super) entity: Entity,
    /// Whether it has to be flushed.
    transient: bool,
    pub(super) public: Public,
    pub(super) area: Vec<u8>,
}

/// Finds the endorsement key where platforms' makers keep it, or makes it, which on a discrete TPM takes a while.
pub(super) fn load_ek(link: &mut Link) -> Result<LoadedEk, TpmError> {
    let kind = link.settings.ek;
    let handle = kind.persistent_handle();
    let read = Call::new(TpmCc::ReadPublic).on(Entity::by_handle(handle)).bare();
    match link.run(read) {
        Ok(reply) => {
            let area = reply.read(TpmCc::ReadPublic, |reader| reader.sized().map(<[u8]>::to_vec))?;
            // Another key may lie there, of another template or by another user.
            if let Ok(public) = Public::parse(&area)
                && kind.is(&public)
            {
                let entity = Entity { handle, name: public.name() };
                return Ok(LoadedEk { entity, transient: false, public, area });
            }
        }
        Err(error) if error.refusal().is_some() => {}
        Err(error) => return Err(error),
    }
    let authorization = link.settings.endorsement.clone();
    let (handle, area) = create_primary(link, RH_ENDORSEMENT, &authorization, &kind.public())?;
    let public = Public::parse(&area)?;
    if !kind.is(&public) {
        link.flush(handle)?;
        return Err(TpmError::KeyForm);
    }
    Ok(LoadedEk { entity: Entity { handle, name: public.name() }, transient: true, public, area })
}

impl LoadedEk {
    pub(super) fn unload(&self, link: &mut Link) -> Result<(), TpmError> {
        if self.transient { link.flush(self.entity.handle) } else { Ok(()) }
    }
}

fn create_primary(
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

    /// Opens a credential: gives the secret that shows that this TPM holds the endorsement key it was made for, and the attestation key. On its way from the TPM the
    /// secret is encrypted.
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

    /// Something with the endorsement key, and with a policy session that authorises its use once, where its template wants one.
    fn with_ek<T>(
        &mut self,
        run: impl FnOnce(&mut Link, &LoadedEk, Option<&Session>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let ek = load_ek(&mut self.link)?;
        let result = if ek.entity.name == self.ek_name() {
            self.authorize_ek(&ek, run)
        } else {
            Err(TpmError::OtherEndorsementKey)
        };
        ek.unload(&mut self.link).and(result)
    }

    fn authorize_ek<T>(
        &mut self,
        ek: &LoadedEk,
        run: impl FnOnce(&mut Link, &LoadedEk, Option<&Session>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let link = &mut self.link;
        if link.settings.ek.template() == Template::High {
            return run(link, ek, None);
        }
        let session = link.start_unsalted(Kind::Policy)?;
        let result = policy_a(link, &session).and_then(|()| run(link, ek, Some(&session)));
        match result {
            // It was for one use, and the TPM has ended it.
            Ok(value) => {
                link.forget(session.handle);
                Ok(value)
            }
            Err(error) => {
                // Of both errors, the first says why.
                let _ = link.flush(session.handle);
                Err(error)
            }
        }
    }
}

/// What authorises the endorsement key where nothing else is authorised.
fn ek_alone(session: Option<&Session>) -> Authority<'_> {
    static EMPTY: std::sync::LazyLock<Authorization> = std::sync::LazyLock::new(Authorization::default);
    session.map_or(Authority::Value(&EMPTY), Authority::Policy)
}

/// `PolicySecret(TPM_RH_ENDORSEMENT)`: the policy of low-range endorsement keys.
fn policy_a(link: &mut Link, session: &Session) -> Result<(), TpmError> {
    let authorization = link.settings.endorsement.clone();
    let call = Call::new(TpmCc::PolicySecret)
        .authorized(Entity::by_handle(RH_ENDORSEMENT), Authority::Value(&authorization))
        .on(Entity::by_handle(session.handle))
        // No nonce, no bound command, no reference, no end.
        .with(|writer| writer.sized(&[]).sized(&[]).sized(&[]).u32(0));
    link.run(call).map(|_| ())
}
