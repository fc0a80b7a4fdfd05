//! Event logs put together event by event. The tests of evidence use them too.

use starminer_hardware::event_log::{Bank, EventKind, Guid, Variable};

/// A log that is put together event by event.
pub struct Builder {
    pub banks: Vec<(u16, Bank)>,
    pub bytes: Vec<u8>,
}

impl Builder {
    pub fn new(banks: &[(u16, Bank)]) -> Self {
        let mut data = b"Spec ID Event03\0".to_vec();
        data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        data.extend((banks.len() as u32).to_le_bytes());
        for (id, bank) in banks {
            data.extend(id.to_le_bytes());
            data.extend((bank.size_bytes() as u16).to_le_bytes());
        }
        data.push(0);
        let mut bytes = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
        bytes.extend([0; 20]);
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        Self { banks: banks.to_vec(), bytes }
    }

    pub fn sha256() -> Self {
        Self::new(&[(0xb, Bank::Sha256)])
    }

    /// An event whose digest is of `measured`, and whose data is `data`.
    pub fn event(mut self, register: u32, kind: EventKind, measured: &[u8], data: &[u8]) -> Self {
        self.bytes.extend(register.to_le_bytes());
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend((self.banks.len() as u32).to_le_bytes());
        for (id, bank) in self.banks.clone() {
            self.bytes.extend(id.to_le_bytes());
            match kind {
                EventKind::NO_ACTION => self.bytes.extend(vec![0; bank.size_bytes()]),
                _ => self.bytes.extend(bank.hash(&[measured]).as_bytes()),
            }
        }
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend(data);
        self
    }

    pub fn plain(self, register: u32, kind: EventKind, data: &[u8]) -> Self {
        self.event(register, kind, data, data)
    }

    pub fn variable(self, name: &str, contents: &[u8]) -> Self {
        let vendor = if name.starts_with("db") { Guid::IMAGE_SECURITY_DATABASE } else { Guid::GLOBAL_VARIABLE };
        let data = Variable::encode(vendor, name, contents);
        self.plain(7, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &data)
    }

    pub fn separator(self, register: u32) -> Self {
        self.plain(register, EventKind::SEPARATOR, &[0; 4])
    }

    pub fn separators(mut self, registers: std::ops::Range<u32>) -> Self {
        for register in registers {
            self = self.separator(register);
        }
        self
    }
}

pub const DB: &[u8] = &[1; 32];

/// A signature list of one image digest.
pub fn hash_list(digest: &[u8; 32]) -> Vec<u8> {
    let kind = Guid::new(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
    [&kind.0[..], &76_u32.to_le_bytes(), &[0; 4], &48_u32.to_le_bytes(), &[7; 16], digest].concat()
}

/// A machine with Secure Boot on and one boot application.
pub fn machine(secure_boot: &[u8]) -> Builder {
    let dbx = hash_list(&[0xbb; 32]);
    Builder::sha256()
        .plain(0, EventKind::S_CRTM_VERSION, &[b'1', 0, 0, 0])
        .variable("SecureBoot", secure_boot)
        .variable("PK", &hash_list(&[1; 32]))
        .variable("KEK", &hash_list(&[2; 32]))
        .variable("db", &hash_list(&[3; 32]))
        .variable("dbx", &dbx)
        .separator(7)
        .plain(4, EventKind::EFI_ACTION, b"Calling EFI Application from Boot Option")
        .separators(0..7)
        .event(4, EventKind::EFI_BOOT_SERVICES_APPLICATION, DB, &[0; 40])
        .plain(5, EventKind::EFI_ACTION, b"Exit Boot Services Invocation")
        .plain(5, EventKind::EFI_ACTION, b"Exit Boot Services Returned with Success")
}
