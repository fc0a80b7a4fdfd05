//! What a verified report says.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    flags::{GuestPolicy, PlatformInfo},
    report::{CpuId, Mitigations, SigningKey},
    tcb::{FirmwareVersion, Product, TcbVersion},
};
use crate::cert::Provenance;

/// What the key behind a report names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// One chip.
    Chip,
    /// Any chip of one cloud.
    Cloud,
}

impl Names {
    /// The name in claims.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chip => "chip",
            Self::Cloud => "cloud",
        }
    }
}

/// The revocation list under which the authorities were looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlState {
    /// Its number, big-endian, where it has one.
    pub number: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub this_update_s: i64,
    /// Seconds since 1970, after which it counts no more.
    pub next_update_s: i64,
}

/// Everything that a verified report and its key's certificate say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// Who stands behind the root.
    pub provenance: Provenance,
    /// SHA-256 of the root's DER.
    pub root: [u8; 32],
    /// Seconds since 1970 from which the certificates are valid.
    pub not_before_s: i64,
    /// Seconds since 1970 until which the certificates are valid.
    pub not_after_s: i64,
    /// The revocation list, if one was given.
    pub crl: Option<CrlState>,
    /// 2, 3 or 5.
    pub report_version: u32,
    /// The line of processors.
    pub product: Product,
    /// As in the certificate: `Milan-B0`.
    pub product_name: String,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// What that key names.
    pub names: Names,
    /// The chip: of a VCEK as in its certificate (64 bytes, of Turin 8); of a VLEK as in the report, if it says.
    pub chip_id: Option<Vec<u8>>,
    /// Whether the report withholds it.
    pub chip_id_masked: bool,
    /// The cloud that a VLEK names.
    pub cloud_id: Option<String>,
    /// What the key was derived from.
    pub reported_tcb: TcbVersion,
    /// What the platform cannot go back behind.
    pub committed_tcb: TcbVersion,
    /// What runs.
    pub current_tcb: TcbVersion,
    /// What ran when the guest was launched.
    pub launch_tcb: TcbVersion,
    /// What runs, by version.
    pub current_version: FirmwareVersion,
    /// What the platform cannot go back behind, by version.
    pub committed_version: FirmwareVersion,
    /// What the guest's owner allowed.
    pub policy: GuestPolicy,
    /// How the platform is set up.
    pub platform: PlatformInfo,
    /// Privilege level from which the report was asked for; [`super::VMPL_HOST`] is the host.
    pub vmpl: u32,
    /// The guest's security version, from its ID block.
    pub guest_svn: u32,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the guest had signed.
    pub report_data: [u8; 64],
    /// What the host set at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block; zero without one.
    pub id_key_digest: [u8; 48],
    /// Whether an author key signed the ID key.
    pub author_key: bool,
    /// SHA-384 of the author key; zero without one.
    pub author_key_digest: [u8; 48],
    /// The guest, for as long as it runs.
    pub report_id: [u8; 32],
    /// Its migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// Since version 3.
    pub cpuid: Option<CpuId>,
    /// Since version 5.
    pub mitigations: Option<Mitigations>,
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

impl Claims {
    /// What stands for the migration agent where there is none.
    pub(super) const NO_MIGRATION_AGENT: [u8; 32] = [0xff; 32];

    fn tcb(&self, tcb: TcbVersion) -> Value {
        let parts = tcb.components(self.product);
        json!({
            "raw": hex(&tcb.0), "fmc": parts.fmc, "bootloader": parts.bootloader, "tee": parts.tee,
            "snp": parts.snp, "microcode": parts.microcode,
        })
    }

    /// As the command line shows them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (abi_major, abi_minor) = self.policy.abi();
        let policy_bits = json!({
            "abi_major": abi_major, "abi_minor": abi_minor, "smt": self.policy.smt(),
            "migration_agent": self.policy.migration_agent(), "debug": self.policy.debug(),
            "single_socket": self.policy.single_socket(), "cxl": self.policy.cxl(),
            "aes_256_xts": self.policy.aes_256_xts(), "rapl_disabled": self.policy.rapl_disabled(),
            "ciphertext_hiding": self.policy.ciphertext_hiding(),
            "page_swap_disabled": self.policy.page_swap_disabled(),
        });
        let platform = json!({
            "raw": self.platform.0, "smt": self.platform.smt(), "tsme": self.platform.tsme(),
            "ecc": self.platform.ecc(), "rapl_disabled": self.platform.rapl_disabled(),
            "ciphertext_hiding": self.platform.ciphertext_hiding(),
            "alias_check_complete": self.platform.alias_check_complete(), "trusted_io": self.platform.trusted_io(),
        });
        let tcbs = json!({
            "reported": self.tcb(self.reported_tcb), "committed": self.tcb(self.committed_tcb),
            "current": self.tcb(self.current_tcb), "launch": self.tcb(self.launch_tcb),
        });
        let mut claims = json!({
            "kind": "snp",
            "provenance": self.provenance.name(),
            "root": hex(&self.root),
            "certificates_not_after": self.not_after_s,
            "report_version": self.report_version,
            "product": self.product.claim(),
            "product_name": self.product_name,
            "signing_key": self.signing_key.name(),
            "names": self.names.name(),
            "chip_id": self.chip_id.as_deref().map(hex),
            "chip_id_masked": self.chip_id_masked,
            "cloud_id": self.cloud_id,
            "tcbs": tcbs,
            "current_version": self.current_version.to_string(),
            "committed_version": self.committed_version.to_string(),
            "policy": self.policy.0,
            "policy_hex": format!("{:#x}", self.policy.0),
            "policy_bits": policy_bits,
            "platform": platform,
            "vmpl": self.vmpl,
            "guest_svn": self.guest_svn,
        });
        let more = json!({
            "measurement": hex(&self.measurement),
            "report_data": hex(&self.report_data),
            "host_data": hex(&self.host_data),
            "family_id": hex(&self.family_id),
            "image_id": hex(&self.image_id),
            "id_key_digest": hex(&self.id_key_digest),
            "author_key": self.author_key,
            "author_key_digest": hex(&self.author_key_digest),
            "report_id": hex(&self.report_id),
            "report_id_ma": hex(&self.report_id_ma),
            "cpuid": self.cpuid.map(|cpuid| {
                json!({ "family": cpuid.family, "model": cpuid.model, "stepping": cpuid.stepping })
            }),
            "mitigations": self.mitigations.map(|vectors| {
                json!({ "launch": format!("{:#x}", vectors.launch), "current": format!("{:#x}", vectors.current) })
            }),
            "crl": self.crl.as_ref().map(|crl| {
                json!({
                    "number": crl.number.as_deref().map(hex),
                    "this_update": crl.this_update_s, "next_update": crl.next_update_s,
                })
            }),
        });
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more);
        }
        claims
    }
}
