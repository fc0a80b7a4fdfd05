//! Firmware images and PE images, made to measure.

/// A GUID as it stands in memory.
pub fn guid(text: &str) -> [u8; 16] {
    let mut bytes: Vec<u8> = data_encoding::HEXLOWER.decode(text.replace('-', "").as_bytes()).unwrap();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes.try_into().unwrap()
}

pub const FOOTER: &str = "96b582de-1fb2-45f7-baea-a366c55a082d";
pub const SEV_HASH_TABLE: &str = "7255371f-3a3b-4b04-927b-1da6efa8d454";
pub const SEV_RESET: &str = "00f771de-1a7e-4fcb-890e-68c77e2fb44e";
pub const SEV_METADATA: &str = "dc886566-984a-4798-a75e-5585a7bf67cc";
pub const TDX_METADATA: &str = "e47a6535-984a-4798-865e-4685a7bf8ec2";

/// A section of TDX metadata: offset and length in the file, address, length in memory, kind, attributes.
pub type TdxRow = (u32, u32, u64, u64, u32, u32);

/// A firmware image of `pages` pages with OVMF's table; what is `None` is left out.
#[derive(Clone)]
pub struct FirmwareBuilder {
    pub pages: usize,
    pub reset: Option<u32>,
    pub hash_table: Option<u32>,
    pub sev: Option<Vec<(u32, u32, u32)>>,
    pub tdx: Option<Vec<TdxRow>>,
}

impl FirmwareBuilder {
    pub fn new() -> Self {
        Self {
            pages: 4,
            reset: Some(0x0080_b004),
            hash_table: Some(0x0081_0c00),
            sev: Some(vec![
                (0x80_0000, 0x9000, 1),
                (0x80_d000, 0x1000, 2),
                (0x80_e000, 0x1000, 3),
                (0x80_f000, 0x1000, 4),
                (0x81_0000, 0x1000, 0x10),
                (0x81_1000, 0x3000, 1),
            ]),
            tdx: Some(vec![
                (0x1000, 0x3000, 0xffff_d000, 0x3000, 0, 1),
                (0, 0x1000, 0xffff_c000, 0x1000, 1, 0),
                (0, 0, 0x81_0000, 0x2000, 3, 0),
                (0, 0, 0x80_9000, 0x2000, 2, 0),
                (0, 0, 0x90_0000, 0x8000, 4, 2),
            ]),
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..self.pages * 4096).map(|at| (at * 31 + at / 4096 * 7) as u8).collect();
        let length = image.len();
        let place = |image: &mut Vec<u8>, from_end: usize, bytes: &[u8]| {
            image[length - from_end..length - from_end + bytes.len()].copy_from_slice(bytes);
            (from_end as u32).to_le_bytes().to_vec()
        };
        let mut entries = Vec::new();
        if let Some(address) = self.reset {
            entries.push((SEV_RESET, address.to_le_bytes().to_vec()));
        }
        if let Some(address) = self.hash_table {
            entries.push((SEV_HASH_TABLE, [address.to_le_bytes(), 0x400_u32.to_le_bytes()].concat()));
        }
        if let Some(rows) = &self.sev {
            let words = rows.iter().flat_map(|row| [row.0, row.1, row.2]);
            let body: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            let pointer = place(&mut image, 1024, &metadata(*b"ASEV", rows.len(), &body));
            entries.push((SEV_METADATA, pointer));
        }
        if let Some(rows) = &self.tdx {
            let mut body = Vec::new();
            for row in rows {
                body.extend(row.0.to_le_bytes());
                body.extend(row.1.to_le_bytes());
                body.extend(row.2.to_le_bytes());
                body.extend(row.3.to_le_bytes());
                body.extend(row.4.to_le_bytes());
                body.extend(row.5.to_le_bytes());
            }
            let pointer = place(&mut image, 2048, &metadata(*b"TDVF", rows.len(), &body));
            entries.push((TDX_METADATA, pointer));
        }
        let mut table = Vec::new();
        for (name, data) in entries {
            table.extend(&data);
            table.extend((data.len() as u16 + 18).to_le_bytes());
            table.extend(guid(name));
        }
        let all = table.len() as u16 + 18;
        table.extend(all.to_le_bytes());
        table.extend(guid(FOOTER));
        place(&mut image, 32 + table.len(), &table);
        image
    }
}

fn metadata(signature: [u8; 4], count: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    for word in [16 + body.len() as u32, 1, count as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(body);
    bytes
}

/// A PE32+ image of these sections, each with as many bytes in memory as given; `trailing` follows them, certificates come last.
pub fn pe(sections: &[(&str, &[u8], usize)], trailing: &[u8], certificates: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 0x600;
    const ALIGNMENT: usize = 0x200;
    let mut image = vec![0; HEADER_BYTES];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image[0x84..0x86].copy_from_slice(&0x8664_u16.to_le_bytes());
    image[0x86..0x88].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    image[0x94..0x96].copy_from_slice(&240_u16.to_le_bytes());
    image[0x96..0x98].copy_from_slice(&0x22_u16.to_le_bytes()); // executable, large addresses
    let optional = 0x98;
    let mut put = |at: usize, value: u32| image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(optional, 0x20b);
    put(optional + 32, 0x1000); // alignment in memory
    put(optional + 36, ALIGNMENT as u32);
    put(optional + 56, 0x10_0000); // size in memory
    put(optional + 60, HEADER_BYTES as u32);
    put(optional + 64, 0x1234_5678); // checksum
    put(optional + 68, 10); // an EFI application
    put(optional + 108, 16);
    let mut address = 0x1000_usize;
    for (number, (name, contents, memory_bytes)) in sections.iter().enumerate() {
        let header = optional + 240 + number * 40;
        let raw_bytes = contents.len().next_multiple_of(ALIGNMENT);
        let at = image.len();
        image[header..header + name.len()].copy_from_slice(name.as_bytes());
        let fields = [*memory_bytes, address, raw_bytes, at];
        for (place, value) in (header + 8..).step_by(4).zip(fields) {
            image[place..place + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        image.extend(*contents);
        image.resize(at + raw_bytes, 0);
        address += memory_bytes.next_multiple_of(0x1000).max(0x1000);
    }
    image.extend(trailing);
    if !certificates.is_empty() {
        let at = image.len();
        image.extend(certificates);
        let entry = optional + 112 + 4 * 8;
        image[entry..entry + 4].copy_from_slice(&(at as u32).to_le_bytes());
        image[entry + 4..entry + 8].copy_from_slice(&(certificates.len() as u32).to_le_bytes());
    }
    image
}
