//! The TPM's storage: makers' certificates, and counters that never go back.

use aws_lc_rs::digest;
use starminer_hardware::tpm::HashAlg;
use tpm2_protocol::data::{TpmCc, TpmRcBase};

use super::{
    EkKind, Tpm,
    error::TpmError,
    frame::{Authority, Call, Entity},
    link::{Link, RH_OWNER},
    settings::Authorization,
    wire::Writer,
};

/// Longest certificate, and longest chain: no TPM has room for more.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Where certificates between the key's and the root lie (EK Credential Profile, 2.2.1.5.2).
const CHAIN_FIRST: u32 = 0x01c0_0100;
const CHAIN_LAST: u32 = 0x01c0_01ff;
const CHAIN_INDICES_MAX: usize = 16;
/// What every TPM reads at once.
const CHUNK_BYTES: u16 = 512;
/// Indices that an owner may define (Registry of Reserved TPM 2.0 Handles and Localities, 2.2.2).
const OWNER_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;

/// `TPMA_NV`.
mod attributes {
    pub const AUTHWRITE: u32 = 1 << 2;
    /// `TPM_NT_COUNTER`.
    pub const COUNTER: u32 = 1 << 4;
    pub const TYPE: u32 = 0xf << 4;
    pub const OWNERREAD: u32 = 1 << 17;
    pub const AUTHREAD: u32 = 1 << 18;
    pub const NO_DA: u32 = 1 << 25;
    pub const WRITTEN: u32 = 1 << 29;
}

/// Certificates as they lie in the TPM: DER, often with padding behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EkCertificates {
    /// Of endorsement keys, those that are there.
    pub keys: Vec<(EkKind, Vec<u8>)>,
    /// Certificates of authorities between, one after the other as the TPM keeps them.
    pub chain: Vec<u8>,
}

/// Who may read a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterReaders {
    /// Whoever knows its authorisation.
    Knowing,
    /// The owner, whose authorisation is empty on most machines: for counters in policies that are followed before anything secret is known.
    Owner,
}

/// An index's public area.
struct NvPublic {
    entity: Entity,
    attributes: u32,
    size: u16,
}

impl Tpm {
    /// Reads what certificates the TPM's maker put into it. Some makers put none, and give them out at an address.
    ///
    /// # Errors
    /// Where an index is there and cannot be read.
    pub fn ek_certificates(&mut self) -> Result<EkCertificates, TpmError> {
        let mut found = EkCertificates::default();
        for kind in EkKind::ALL {
            if let Some(certificate) = self.nv_read(kind.certificate_index(), CERTIFICATE_BYTES_MAX)? {
                found.keys.push((kind, certificate));
            }
        }
        let mut indices = self.link.handles(CHAIN_FIRST)?;
        indices.retain(|index| (CHAIN_FIRST..=CHAIN_LAST).contains(index));
        indices.truncate(CHAIN_INDICES_MAX);
        for index in indices {
            let room = CERTIFICATE_BYTES_MAX - found.chain.len();
            found.chain.extend(self.nv_read(index, room)?.unwrap_or_default());
        }
        Ok(found)
    }

    /// The content of an index; `None` where there is no such index.
    fn nv_read(&mut self, index: u32, most: usize) -> Result<Option<Vec<u8>>, TpmError> {
        let Some(public) = self.link.nv_public(index)? else { return Ok(None) };
        if usize::from(public.size) > most {
            return Err(TpmError::Argument("an index with more than any certificate"));
        }
        if public.attributes & attributes::WRITTEN == 0 {
            return Ok(None);
        }
        self.nv_read_all(&public, &Authorization::default()).map(Some)
    }

    fn nv_read_all(&mut self, public: &NvPublic, authorization: &Authorization) -> Result<Vec<u8>, TpmError> {
        let owner = self.link.settings.owner.clone();
        let mut content = Vec::with_capacity(public.size.into());
        for offset in (0..public.size).step_by(CHUNK_BYTES.into()) {
            let size = CHUNK_BYTES.min(public.size - offset);
            let (entity, value) = if public.attributes & attributes::AUTHREAD != 0 {
                (public.entity.clone(), authorization)
            } else {
                (Entity::by_handle(RH_OWNER), &owner)
            };
            let call = Call::new(TpmCc::NvRead)
                .authorized(entity, Authority::Value(value))
                .on(public.entity.clone())
                .with(|writer| writer.u16(size).u16(offset))
                .opened();
            let reply = self.link.run(call)?;
            let read =
                reply.read(TpmCc::NvRead, |reader| reader.sized().filter(|read| read.len() == usize::from(size)))?;
            content.extend_from_slice(read);
        }
        Ok(content)
    }

    /// Defines a counter, which whoever knows the authorisation can count up, and the owner can take away. It
    /// has no value before it was counted up once; then it begins above every counter that the TPM ever had (Part 1,
    /// 37.2.3), so that taking it away and defining it anew never turns it back.
    ///
    /// # Errors
    /// Where the index is no owner's or is taken, the owner's authorisation is wrong, or there is no room.
    pub fn define_counter(
        &mut self,
        index: u32,
        authorization: &Authorization,
        readers: CounterReaders,
    ) -> Result<(), TpmError> {
        let read = match readers {
            CounterReaders::Knowing => attributes::AUTHREAD,
            CounterReaders::Owner => attributes::OWNERREAD,
        };
        let attributes = attributes::COUNTER | attributes::AUTHWRITE | read | attributes::NO_DA;
        owner_index(index)?;
        let owner = self.link.settings.owner.clone();
        let area = Writer::new().u32(index).u16(HashAlg::Sha256.id()).u32(attributes).sized(&[]).u16(8).finish();
        let call = Call::new(TpmCc::NvDefineSpace)
            .authorized(Entity::by_handle(RH_OWNER), Authority::Value(&owner))
            .with(|writer| writer.sized(authorization.value()).sized(&area))
            .sealed();
        self.link.run(call).map(|_| ())
    }

    /// Counts up, and gives the new value.
    ///
    /// # Errors
    /// Where there is no such counter, or the authorisation is wrong.
    pub fn increment_counter(&mut self, index: u32, authorization: &Authorization) -> Result<u64, TpmError> {
        let public = self.link.counter_public(index)?;
        let call = Call::new(TpmCc::NvIncrement)
            .authorized(public.entity.clone(), Authority::Value(authorization))
            .on(public.entity);
        self.link.run(call)?;
        self.read_counter(index, authorization)
    }

    /// The value.
    ///
    /// # Errors
    /// Where there is no such counter, it was never counted up (`TPM_RC_NV_UNINITIALIZED`), or the authorisation is
    /// wrong.
    pub fn read_counter(&mut self, index: u32, authorization: &Authorization) -> Result<u64, TpmError> {
        let public = self.link.counter_public(index)?;
        let value = self.nv_read_all(&public, authorization)?;
        value.try_into().map(u64::from_be_bytes).map_err(|_| TpmError::Argument("no counter"))
    }

    /// Takes a counter away.
    ///
    /// # Errors
    /// Where there is none, or the owner's authorisation is wrong.
    pub fn undefine_counter(&mut self, index: u32) -> Result<(), TpmError> {
        let public = self.link.counter_public(index)?;
        let owner = self.link.settings.owner.clone();
        let call = Call::new(TpmCc::NvUndefineSpace)
            .authorized(Entity::by_handle(RH_OWNER), Authority::Value(&owner))
            .on(public.entity);
        self.link.run(call).map(|_| ())
    }
}

impl Link {
    /// Without a session, since that needs the index's name: whoever alters this makes a name with which no later
    /// command on the index succeeds.
    fn nv_public(&mut self, index: u32) -> Result<Option<NvPublic>, TpmError> {
        let reply = match self.run(Call::new(TpmCc::NvReadPublic).on(Entity::by_handle(index)).bare()) {
            Ok(reply) => reply,
            Err(error) if error.refusal() == Some(TpmRcBase::Handle) => return Ok(None),
            Err(error) => return Err(error),
        };
        let public = reply.read(TpmCc::NvReadPublic, |reader| {
            let area = reader.sized()?;
            let mut fields = super::wire::Reader::new(area);
            let (said, hash, attributes) = (fields.u32()?, HashAlg::from_id(fields.u16()?)?, fields.u32()?);
            let (_, size) = (fields.sized()?, fields.u16()?);
            fields.end()?;
            (said == index).then_some(())?;
            let algorithm = match hash {
                HashAlg::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                HashAlg::Sha256 => &digest::SHA256,
                HashAlg::Sha384 => &digest::SHA384,
                HashAlg::Sha512 => &digest::SHA512,
            };
            let name = [&hash.id().to_be_bytes()[..], digest::digest(algorithm, area).as_ref()].concat();
            Some(NvPublic { entity: Entity { handle: index, name }, attributes, size })
        })?;
        Ok(Some(public))
    }

    fn counter_public(&mut self, index: u32) -> Result<NvPublic, TpmError> {
        owner_index(index)?;
        let public = self.nv_public(index)?.ok_or(TpmError::NoCounter(index))?;
        let is = public.attributes & attributes::TYPE == attributes::COUNTER && public.size == 8;
        if is { Ok(public) } else { Err(TpmError::Argument("the index is no counter")) }
    }

    /// A counter, to be named in a command.
    pub(super) fn counter(&mut self, index: u32) -> Result<Entity, TpmError> {
        self.counter_public(index).map(|public| public.entity)
    }
}

fn owner_index(index: u32) -> Result<(), TpmError> {
    if OWNER_INDICES.contains(&index) { Ok(()) } else { Err(TpmError::Argument("an index that no owner defines")) }
}
