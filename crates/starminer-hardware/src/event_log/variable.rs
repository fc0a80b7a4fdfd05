//! `UEFI_VARIABLE_DATA`: the name, vendor and contents of a UEFI variable, as firmware measures them.

/// The longest name of a variable, in UTF-16 units, that is read.
pub const MAX_VARIABLE_NAME_UNITS: usize = 256;

/// A GUID in the mixed byte order of UEFI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From its written parts, `aabbccdd-eeff-gghh-…`: the number of the first three, the bytes of the rest.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let (a, b, c) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes());
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], rest[0], rest[1], rest[2], rest[3], rest[4], rest[5],
            rest[6], rest[7],
        ])
    }

    /// `EFI_GLOBAL_VARIABLE`: `SecureBoot`, `PK`, `KEK`, `AuditMode`, `DeployedMode`, `SetupMode`.
    pub const GLOBAL_VARIABLE: Self =
        Self::new(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c]);
    /// `EFI_IMAGE_SECURITY_DATABASE_GUID`: `db`, `dbx`, `dbt`, `dbr`.
    pub const IMAGE_SECURITY_DATABASE: Self =
        Self::new(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
    /// Shim's own variables: `MokList`, `MokSBState`, `SbatLevel`, `Shim`.
    pub const SHIM_LOCK: Self =
        Self::new(0x605d_ab50, 0xe046, 0x4300, [0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23]);
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let b = &self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{}-{}",
            u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            u16::from_le_bytes([b[4], b[5]]),
            u16::from_le_bytes([b[6], b[7]]),
            super::bank::hex(&b[8..10]),
            super::bank::hex(&b[10..]),
        )
    }
}

impl std::fmt::Debug for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A variable, as an event carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Whose it is.
    pub vendor: Guid,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub contents: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Reads `UEFI_VARIABLE_DATA`. Bytes behind the contents are passed over: shim leaves some there.
    #[must_use]
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (vendor, rest) = data.split_first_chunk::<16>()?;
        let (name_units, rest) = rest.split_first_chunk::<8>()?;
        let (contents_bytes, rest) = rest.split_first_chunk::<8>()?;
        let name_units = usize::try_from(u64::from_le_bytes(*name_units)).ok()?;
        let contents_bytes = usize::try_from(u64::from_le_bytes(*contents_bytes)).ok()?;
        if name_units > MAX_VARIABLE_NAME_UNITS || rest.len() < name_units * 2 {
            return None;
        }
        let (name, rest) = rest.split_at(name_units * 2);
        Some(Self { vendor: Guid(*vendor), name: utf16(name)?, contents: rest.get(..contents_bytes)? })
    }

    /// Whether it is that one.
    #[must_use]
    pub fn is(&self, vendor: Guid, name: &str) -> bool {
        self.vendor == vendor && self.name == name
    }

    /// What a boolean variable says: one byte, 0 or 1.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.contents {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// The bytes that firmware hashes for a variable of that name and contents.
    #[must_use]
    pub fn encode(vendor: Guid, name: &str, contents: &[u8]) -> Vec<u8> {
        let units: Vec<u16> = name.encode_utf16().collect();
        let mut bytes = vendor.0.to_vec();
        bytes.extend((units.len() as u64).to_le_bytes());
        bytes.extend((contents.len() as u64).to_le_bytes());
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(contents);
        bytes
    }
}

/// Text in UTF-16, little-endian; `None` where it is not.
pub(super) fn utf16(bytes: &[u8]) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).collect::<Result<String, _>>().ok()
}
