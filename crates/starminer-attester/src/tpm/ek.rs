//! The endorsement key: by its default template, where platforms' makers keep it, or made from its seed.

use starminer_hardware::tpm::{HashAlg, Public, Template};
use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{
    Tpm,
    error::TpmError,
    frame::{Authority, Call, Entity},
    keys::{alg, create_primary},
    link::{Link, RH_ENDORSEMENT},
    session::{Kind, Session},
    settings::Authorization,
    wire::Writer,
};

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

    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
        }
    }

    /// The NV index of the maker's certificate (EK Credential Profile, 2.2.1.4 and 2.2.1.5).
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::P256 => 0x01c0_000a,
            Self::P384 => 0x01c0_0016,
        }
    }

    /// Where the key lies if the platform's maker kept it (TCG TPM v2.0 Provisioning Guidance, 7.8; high range as
    /// `swtpm_setup` does).
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
        let aes = |writer: Writer, bits: u16| writer.u16(alg::AES).u16(bits).u16(alg::CFB).u16(alg::NULL);
        match self {
            Self::Rsa2048 => aes(area(alg::RSA, HashAlg::Sha256), 128).u16(2048).u32(0).sized(&[0; 256]),
            Self::P256 => {
                aes(area(alg::ECC, HashAlg::Sha256), 128).u16(alg::P256).u16(alg::NULL).sized(&[0; 32]).sized(&[0; 32])
            }
            Self::P384 => aes(area(alg::ECC, HashAlg::Sha384), 256).u16(alg::P384).u16(alg::NULL).sized(&[]).sized(&[]),
        }
        .finish()
    }

    fn is(self, public: &Public) -> bool {
        let algorithm = match public.public_key() {
            Ok(key) => key.name(),
            Err(_) => return false,
        };
        algorithm == self.name() && Template::of(public) == Some(self.template())
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

impl Tpm {
    /// Something with the endorsement key, and with a policy session that authorises its use once, where its template
    /// wants one.
    pub(super) fn with_ek<T>(
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
pub(super) fn ek_alone(session: Option<&Session>) -> Authority<'_> {
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
