//! The maker of GPUs, and what it asks for.

/// The time, and how one GPU is written.
pub mod support {
    pub const NOW_S: u64 = crate::snp_lab::NOW;

    /// The pieces as they go into a part.
    pub fn entry(_: &str, certificates_pem: &[u8], report: &[u8]) -> serde_json::Value {
        serde_json::json!({ "certificates": certificates_pem, "report": report })
    }
}

#[path = "../../../../starminer-hardware/tests/nvidia/pki.rs"]
#[allow(dead_code)]
pub mod pki;
