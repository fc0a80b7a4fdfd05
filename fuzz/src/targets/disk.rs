//! Targets of a node's disk: its header, which whoever has the disk writes, and what images say of disks.

use aws_lc_rs::digest;
use serde_json::Value;
use starminer_disk::header::{CIPHER, Header};
use starminer_disk::{DiskKind, DiskStatus};
use starminer_hardware::tpm::approval::{Approvals, DiskPolicy};

use crate::Outcome;
use crate::seeds::Seed;

const HEADER_BYTES: usize = 0x4000;
const BINARY_BYTES: usize = 4096;

/// A header with this metadata, as far as there is room, and a checksum that holds.
fn forged(metadata: &[u8]) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    header[8..16].copy_from_slice(&(HEADER_BYTES as u64).to_be_bytes());
    header[24..38].copy_from_slice(b"starminer-data");
    header[72..78].copy_from_slice(b"sha256");
    header[208..219].copy_from_slice(b"job-storage");
    let length = metadata.len().min(HEADER_BYTES - BINARY_BYTES);
    header[BINARY_BYTES..BINARY_BYTES + length].copy_from_slice(&metadata[..length]);
    let sum = digest::digest(&digest::SHA256, &header);
    header[448..480].copy_from_slice(sum.as_ref());
    header
}

pub fn header(data: &[u8]) -> Outcome {
    // As a disk, which it hardly ever is.
    let _ = Header::parse(data);
    let Ok(header) = Header::parse(&forged(data)) else { return Outcome::refused("no JSON") };
    let status = DiskStatus::of(&header);
    assert_eq!(status.kind, DiskKind::Node);
    match header.layout() {
        Ok(_) => {
            let metadata = &header.metadata;
            let only = |what: &str| -> Vec<Value> {
                metadata[what].as_object().into_iter().flat_map(|object| object.values().cloned()).collect()
            };
            let (segments, slots) = (only("segments"), only("keyslots"));
            assert!(segments.len() == 1 && slots.len() == 1, "one key opens one piece");
            assert_eq!(segments[0]["encryption"], CIPHER);
            assert_eq!(slots[0]["area"]["encryption"], CIPHER);
            assert!(metadata["config"].get("flags").is_none() && metadata["config"].get("requirements").is_none());
            Outcome::accepted((status.not_taken.is_some(), status.unlocked_by.len().min(3)))
        }
        Err(error) => {
            assert!(status.not_taken.is_some());
            Outcome::refused(error.to_string().split('`').next().unwrap_or_default().to_owned())
        }
    }
}

pub fn policy(data: &[u8]) -> Outcome {
    let policy = DiskPolicy::parse(data);
    if let Some(policy) = &policy {
        assert_eq!(DiskPolicy::parse(&policy.encode()).as_ref(), Some(policy));
    }
    let approvals = Approvals::parse(data);
    if let Some(approvals) = &approvals {
        assert_eq!(Approvals::parse(&approvals.encode()).as_ref(), Some(approvals));
    }
    super::taken(&[policy.is_some(), approvals.is_some()])
}

pub fn seeds() -> Vec<Seed> {
    let seed = |target, name: &str, text: &str| (target, name.to_owned(), text.trim().as_bytes().to_vec());
    let approvals = format!(r#"{{"format":"starminer-disk-approvals/1","approvals":["{}=="]}}"#, "A".repeat(86));
    vec![
        seed("disk-header", "cryptsetup", METADATA),
        seed(
            "disk-header",
            "cipher_null",
            &METADATA.replace(
                "\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
                "\"encryption\":\"cipher_null-ecb\",\"sector_size\"",
            ),
        ),
        seed("disk-policy", "policy", POLICY),
        seed("disk-policy", "approvals", &approvals),
    ]
}

/// As cryptsetup 2.6 writes it.
const METADATA: &str = r#"{"keyslots":{"0":{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},"area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":64},"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"X0N9/PMwm+yJGImKLQO9Yr3PJRissVqCPADUKAGCh7o="}}},"tokens":{"0":{"type":"starminer-tpm2","keyslots":["0"],"version":1,"seals":[{"public":"AAA=","private":"AAA=","to":{"maker":{"key":"ab","security_version":1,"epoch":2}},"registers":{"0":"00","7":"00","11":"00"}},{"public":"AAA=","private":"AAA=","to":{"image":{}},"registers":{}}]}},"segments":{"0":{"type":"crypt","offset":"16777216","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}},"digests":{"0":{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256","iterations":1000,"salt":"YOl4smNyOEvFJFLGWoEFSokjoq83cQNKNPNUa6LFuj4=","digest":"I0reXbXuQy/Y/AiZvnFMdvyVu5MDQ2djhENwaaithhI="}},"config":{"json_size":"12288","keyslots_size":"16744448"}}"#;

const POLICY: &str = r#"{"format":"starminer-disk-policy/1","key":"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==","security_version":3}"#;
