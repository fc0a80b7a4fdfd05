//! The firmware's variables as they lie in its store (OVMF_VARS), and the key in them that lets an image start.
//!
//! Source: `MdeModulePkg/Include/Guid/VariableFormat.h` of edk2 (authenticated variables); UEFI 2.10, section 32.4.1.

use starminer_hardware::event_log::{Entry, Guid, parse_signature_lists};
use starminer_hardware::predict::PeImage;
use starminer_hardware::predict::pcr::SecureBootVariables;

use super::{index, number};

/// Largest store that is read, in bytes.
pub const MAX_STORE_BYTES: usize = 16 << 20;
/// Most variables, those that were replaced included.
const MAX_VARIABLES: usize = 4096;
const STORE_HEADER_BYTES: usize = 28;
const HEADER_BYTES: usize = 60;
/// What stands before each variable.
const START: u64 = 0x55aa;
/// States: in force; in force while another is written.
const ADDED: u8 = 0x3f;
const BEING_REPLACED: u8 = 0x3e;
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;

const AUTHENTICATED: Guid = Guid::new(0xaaf3_2c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);
const SECURE_BOOT_ENABLE: Guid =
    Guid::new(0xf0a3_0bc7, 0xaf08, 0x4556, [0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44]);

/// Why a store says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    /// No store as OVMF has it.
    #[error("not a store of OVMF's variables: {0}")]
    Malformed(&'static str),
    /// The keys are not in force.
    #[error("Secure Boot is off in these variables")]
    Off,
    /// The key database is malformed.
    #[error("the database db is malformed")]
    Database,
    /// The image is not signed, or by a key of which the database has no certificate.
    #[error("no certificate in db is in the image's signature")]
    NoAuthority,
    /// More than one could be what the firmware goes by.
    #[error("several certificates in db are in the image's signature")]
    Authorities,
}

impl VariablesError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "vars.malformed",
            Self::Off => "vars.secure-boot-off",
            Self::Database => "vars.database",
            Self::NoAuthority => "vars.no-authority",
            Self::Authorities => "vars.authorities",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Database => "give the store that the machine starts with (a copy of OVMF_VARS)",
            Self::Off => "put your keys into the store and switch Secure Boot on (virt-fw-vars --set-pk … --sb)",
            Self::NoAuthority => "sign the image with a key whose own certificate is in db",
            Self::Authorities => "keep one certificate in db for each key that signs images",
        }
    }
}

/// Variables that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(Guid, String, Vec<u8>)>);

impl Variables {
    /// Reads a store.
    ///
    /// # Errors
    /// [`VariablesError::Malformed`].
    pub fn parse(volume: &[u8]) -> Result<Self, VariablesError> {
        let malformed = VariablesError::Malformed;
        if volume.len() > MAX_STORE_BYTES {
            return Err(malformed("it is too large"));
        }
        if volume.get(40..44) != Some(b"_FVH") {
            return Err(malformed("it does not begin with a firmware volume"));
        }
        let store = index::<2>(volume, 48).and_then(|at| volume.get(at..));
        let store = store.ok_or(malformed("it ends within its header"))?;
        let header = store.get(..STORE_HEADER_BYTES).ok_or(malformed("it ends within its header"))?;
        if header[..16] != AUTHENTICATED.0 || header[20] != FORMATTED || header[21] != HEALTHY {
            return Err(malformed("its variables are not authenticated ones, or it is damaged"));
        }
        let size = index::<4>(header, 16).and_then(|size| store.get(..size));
        let store = size.ok_or(malformed("it is shorter than it says"))?;
        let (mut added, mut replaced) = (Vec::new(), Vec::new());
        let mut at = STORE_HEADER_BYTES;
        while number::<2>(store, at) == Some(START) {
            if added.len() + replaced.len() >= MAX_VARIABLES {
                return Err(malformed("it has too many variables"));
            }
            let ends = malformed("a variable reaches beyond it");
            let header = store.get(at..).and_then(<[u8]>::first_chunk::<HEADER_BYTES>).ok_or(ends)?;
            let lengths = (index::<4>(header, 36).ok_or(ends)?, index::<4>(header, 40).ok_or(ends)?);
            let vendor = *header[44..].first_chunk().ok_or(ends)?;
            let name_at = at + HEADER_BYTES;
            let data_at = name_at.checked_add(lengths.0).ok_or(ends)?;
            let end = data_at.checked_add(lengths.1).ok_or(ends)?;
            let (name, data) = (store.get(name_at..data_at).ok_or(ends)?, store.get(data_at..end).ok_or(ends)?);
            let units = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|u| *u != 0);
            let name = char::decode_utf16(units).collect::<Result<String, _>>();
            let variable = (Guid(vendor), name.map_err(|_| malformed("a name is no text"))?, data.to_vec());
            match header[2] {
                ADDED => added.push(variable),
                BEING_REPLACED => replaced.push(variable),
                _ => {}
            }
            at = end.checked_next_multiple_of(4).ok_or(ends)?;
        }
        // One that was being replaced is in force where nothing has replaced it.
        for old in replaced {
            if !added.iter().any(|new| new.0 == old.0 && new.1 == old.1) {
                added.push(old);
            }
        }
        Ok(Self(added))
    }

    /// What a variable holds; nothing where it is not set.
    #[must_use]
    pub fn contents(&self, vendor: Guid, name: &str) -> &[u8] {
        let found = self.0.iter().find(|variable| variable.0 == vendor && variable.1 == name);
        found.map_or(&[], |variable| variable.2.as_slice())
    }

    /// What firmware makes of them when it starts with Secure Boot.
    ///
    /// # Errors
    /// [`VariablesError::Off`].
    pub fn secure_boot(&self) -> Result<SecureBootVariables<'_>, VariablesError> {
        let [pk, kek] = ["PK", "KEK"].map(|name| self.contents(Guid::GLOBAL_VARIABLE, name));
        let [db, dbx] = ["db", "dbx"].map(|name| self.contents(Guid::IMAGE_SECURITY_DATABASE, name));
        if pk.is_empty() || self.contents(SECURE_BOOT_ENABLE, "SecureBootEnable") != [1] {
            return Err(VariablesError::Off);
        }
        Ok(SecureBootVariables { secure_boot: &[1], pk, kek, db, dbx })
    }

    /// The entry of `db` by which firmware lets this image start, as it measures it: owner and certificate.
    ///
    /// That is told by the certificate, which stands in the signature; that the signature holds is firmware's to see.
    ///
    /// # Errors
    /// [`VariablesError::Database`], [`VariablesError::NoAuthority`], [`VariablesError::Authorities`].
    pub fn authority(&self, image: &PeImage<'_>) -> Result<Vec<u8>, VariablesError> {
        let db = self.contents(Guid::IMAGE_SECURITY_DATABASE, "db");
        let entries = parse_signature_lists(db).ok_or(VariablesError::Database)?;
        let signature = image.certificates();
        let mut found = entries.iter().filter_map(|entry| match &entry.entry {
            Entry::Certificate { der } if !der.is_empty() && contains(signature, der) => {
                Some([&entry.owner.0[..], der].concat())
            }
            _ => None,
        });
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (None, _) => Err(VariablesError::NoAuthority),
            (Some(_), Some(_)) => Err(VariablesError::Authorities),
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
#[path = "variables_tests.rs"]
mod tests;
