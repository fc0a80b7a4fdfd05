//! What a verified quote says, for policies and for people.

use dcap_qvl::TcbStatus;
use serde_json::{Map, Value, json};

use crate::{Checks, Verdict, Weight};

use super::body::{Body, SgxReport, TdReport};
use super::endorsements::Endorsements;
use super::parse::Trailing;
use super::pck::{Platform, hex};
use super::policy::{SgxAttribute, TdAttribute};
use super::tcb::Level;
use super::time::readable;

/// How up to date a platform is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformTcb {
    /// Platform and quoting enclave together.
    pub status: TcbStatus,
    /// Advisories that the levels of platform and quoting enclave leave open.
    pub advisories: Vec<String>,
    /// The platform's level; for TDX with that of its module, as of the launch.
    pub platform: Level,
    /// For TDX 1.5: the same as of now.
    pub current: Option<Level>,
    /// The quoting enclave's level.
    pub qe: Level,
}

/// Which endorsements were used. What a receipt commits to, and what must not go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// What TCB info is for.
    pub fmspc: String,
    /// Evaluation data number of the TCB info.
    pub tcb_evaluation_data_number: u32,
    /// Evaluation data number of the quoting enclave's identity.
    pub qe_evaluation_data_number: u32,
    /// When TCB info was issued, in seconds since 1970.
    pub tcb_info_issued_s: u64,
    /// When the quoting enclave's identity was issued, in seconds since 1970.
    pub qe_identity_issued_s: u64,
    /// When the list of revoked PCK certificates was issued, in seconds since 1970.
    pub pck_crl_issued_s: i64,
    /// When the root's list was issued, in seconds since 1970.
    pub root_ca_crl_issued_s: i64,
}

impl Snapshot {
    /// Missing parts count as nothing; no verified quote has any missing.
    pub(super) fn of(endorsements: &Endorsements) -> Self {
        let tcb = endorsements.tcb_info.as_ref();
        let qe = endorsements.qe_identity.as_ref();
        Self {
            digest: *endorsements.digest(),
            fmspc: tcb.map(|tcb| tcb.content.fmspc.to_ascii_lowercase()).unwrap_or_default(),
            tcb_evaluation_data_number: tcb.map_or(0, |tcb| tcb.content.tcb_evaluation_data_number),
            qe_evaluation_data_number: qe.map_or(0, |qe| qe.content.tcb_evaluation_data_number),
            tcb_info_issued_s: tcb.map_or(0, |tcb| tcb.issued_s),
            qe_identity_issued_s: qe.map_or(0, |qe| qe.issued_s),
            pck_crl_issued_s: endorsements.pck_crl.as_ref().map_or(0, crate::cert::Crl::this_update_s),
            root_ca_crl_issued_s: endorsements.root_ca_crl.as_ref().map_or(0, crate::cert::Crl::this_update_s),
        }
    }

    /// Whether nothing in this snapshot is older than in one that was used before for the same platform: whoever hands out endorsements could
    /// otherwise hand out those from before a vulnerability was known, for as long as their dates hold.
    #[must_use]
    pub fn not_before(&self, known: &Self) -> Checks {
        let mut checks = Checks::new();
        let mut compare = |name: &'static str, what: &str, this: i64, before: i64| {
            let (verdict, reason) = if this >= before {
                (Verdict::Pass, format!("{what} {this} is not below {before}"))
            } else {
                (Verdict::Fail, format!("{what} went back from {before} to {this}: fetch the newer one"))
            };
            checks.push(name, verdict, Weight::Required, reason);
        };
        let time = |at_s: u64| i64::try_from(at_s).unwrap_or(i64::MAX);
        if self.fmspc == known.fmspc {
            let (this, before) = (self.tcb_evaluation_data_number, known.tcb_evaluation_data_number);
            compare("dcap.monotonic.tcb-info", "TCB info's evaluation data number", this.into(), before.into());
            compare(
                "dcap.monotonic.tcb-info-date",
                "TCB info's issue time",
                time(self.tcb_info_issued_s),
                time(known.tcb_info_issued_s),
            );
        }
        let (this, before) = (self.qe_evaluation_data_number, known.qe_evaluation_data_number);
        compare("dcap.monotonic.qe-identity", "QE identity's evaluation data number", this.into(), before.into());
        compare(
            "dcap.monotonic.pck-crl",
            "the PCK revocation list's issue time",
            self.pck_crl_issued_s,
            known.pck_crl_issued_s,
        );
        compare(
            "dcap.monotonic.root-ca-crl",
            "the root's revocation list's issue time",
            self.root_ca_crl_issued_s,
            known.root_ca_crl_issued_s,
        );
        checks
    }
}

/// What a verified quote says. Only a [`super::Verified`] has it.
#[derive(Debug, Clone)]
pub struct Claims {
    pub(super) version: u16,
    pub(super) header_svns: Option<(u16, u16)>,
    pub(super) user_data: [u8; 20],
    pub(super) body: Body,
    pub(super) platform: Platform,
    pub(super) qe: SgxReport,
    pub(super) tcb: PlatformTcb,
    pub(super) endorsements: Snapshot,
    pub(super) trailing: Trailing,
}

impl Claims {
    /// The quote's version.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// What the quote is about.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The enclave's report, of SGX.
    #[must_use]
    pub fn sgx(&self) -> Option<&SgxReport> {
        match &self.body {
            Body::Sgx(report) => Some(report),
            Body::Tdx(_) => None,
        }
    }

    /// The trust domain's report, of TDX.
    #[must_use]
    pub fn tdx(&self) -> Option<&TdReport> {
        match &self.body {
            Body::Tdx(report) => Some(report),
            Body::Sgx(_) => None,
        }
    }

    /// What the PCK certificate says of the platform.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// How up to date it is.
    #[must_use]
    pub const fn tcb(&self) -> &PlatformTcb {
        &self.tcb
    }

    /// Which endorsements were used.
    #[must_use]
    pub const fn endorsements(&self) -> &Snapshot {
        &self.endorsements
    }

    /// All of it in JSON: bytes in lowercase hexadecimal, numbers as numbers, times in RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("tee", self.body.tee().name().into());
        put("quote_version", self.version.into());
        put("tcb_status", self.tcb.status.to_string().into());
        put("advisories", self.tcb.advisories.clone().into());
        put("report_data", hex(self.body.report_data()).into());
        match &self.body {
            Body::Sgx(report) => {
                for (name, value) in sgx(report) {
                    put(name, value);
                }
            }
            Body::Tdx(report) => {
                for (name, value) in tdx(report) {
                    put(name, value);
                }
            }
        }
        let platform = &self.platform;
        put("fmspc", hex(&platform.fmspc).into());
        put("pce_id", hex(&platform.pce_id).into());
        put("pce_svn", platform.pce_svn.into());
        put("ppid", hex(&platform.ppid).into());
        put(
            "platform",
            json!({
                "pck_ca": platform.ca_name(),
                "cpu_svn": hex(&platform.cpu_svn),
                "sgx_type": platform.sgx_type.name(),
                "platform_instance_id": platform.platform_instance_id.map(|id| hex(&id)),
                "dynamic_platform": platform.dynamic_platform,
                "cached_keys": platform.cached_keys,
                "smt_enabled": platform.smt_enabled,
            }),
        );
        put("platform_tcb", level(&self.tcb.platform));
        put("current_platform_tcb", self.tcb.current.as_ref().map_or(Value::Null, level));
        put("qe_tcb", level(&self.tcb.qe));
        put(
            "qe",
            json!({
                "id": hex(&self.user_data[..16]),
                "mrenclave": hex(&self.qe.mr_enclave),
                "mrsigner": hex(&self.qe.mr_signer),
                "isv_prod_id": self.qe.isv_prod_id,
                "isv_svn": self.qe.isv_svn,
            }),
        );
        if let Some((qe_svn, pce_svn)) = self.header_svns {
            put("header", json!({ "qe_svn": qe_svn, "pce_svn": pce_svn }));
        }
        let used = &self.endorsements;
        put(
            "endorsements",
            json!({
                "sha256": hex(&used.digest),
                "tcb_evaluation_data_number": used.tcb_evaluation_data_number,
                "qe_evaluation_data_number": used.qe_evaluation_data_number,
                "tcb_info_issued": readable(used.tcb_info_issued_s),
                "qe_identity_issued": readable(used.qe_identity_issued_s),
            }),
        );
        Value::Object(out)
    }
}

fn level(level: &Level) -> Value {
    json!({ "status": level.status.to_string(), "advisories": level.advisories, "tcb_date": readable(level.date_s) })
}

fn sgx(report: &SgxReport) -> Vec<(&'static str, Value)> {
    vec![
        ("mrenclave", hex(&report.mr_enclave).into()),
        ("mrsigner", hex(&report.mr_signer).into()),
        ("isv_prod_id", report.isv_prod_id.into()),
        ("isv_svn", report.isv_svn.into()),
        ("config_id", hex(&report.config_id).into()),
        ("config_svn", report.config_svn.into()),
        ("isv_ext_prod_id", hex(&report.isv_ext_prod_id).into()),
        ("isv_family_id", hex(&report.isv_family_id).into()),
        ("misc_select", report.misc_select.into()),
        ("cet_attributes", report.cet_attributes.into()),
        ("cpu_svn", hex(&report.cpu_svn).into()),
        ("xfrm", hex(&report.xfrm().to_le_bytes()).into()),
        (
            "attributes",
            json!({
                "raw": hex(&report.attributes),
                "debug": report.flags() & SgxReport::DEBUG != 0,
                "set": SgxAttribute::names(report.flags()),
                "reserved": hex(&SgxAttribute::reserved(report.flags()).to_le_bytes()),
            }),
        ),
    ]
}

fn tdx(report: &TdReport) -> Vec<(&'static str, Value)> {
    let mut out: Vec<(&'static str, Value)> = vec![
        ("mrtd", hex(&report.mr_td).into()),
        ("rtmrs", report.rtmrs.iter().map(|rtmr| hex(rtmr)).collect::<Vec<_>>().into()),
        ("mr_seam", hex(&report.mr_seam).into()),
        ("mr_signer_seam", hex(&report.mr_signer_seam).into()),
        ("seam_attributes", hex(&report.seam_attributes).into()),
        ("tee_tcb_svn", hex(&report.tee_tcb_svn).into()),
        ("mr_config_id", hex(&report.mr_config_id).into()),
        ("mr_owner", hex(&report.mr_owner).into()),
        ("mr_owner_config", hex(&report.mr_owner_config).into()),
        ("xfam", hex(&report.xfam.to_le_bytes()).into()),
        (
            "attributes",
            json!({
                "raw": hex(&report.td_attributes.to_le_bytes()),
                "debug": report.td_attributes & TdAttribute::Debug.bit() != 0,
                "set": TdAttribute::names(report.td_attributes),
                "reserved": hex(&TdAttribute::reserved(report.td_attributes).to_le_bytes()),
            }),
        ),
    ];
    if let Some(td15) = &report.td15 {
        out.push(("tee_tcb_svn_2", hex(&td15.tee_tcb_svn_2).into()));
        out.push(("mr_service_td", hex(&td15.mr_service_td).into()));
        if let Some(more) = &td15.extension {
            out.push((
                "td15_extension",
                json!({
                    "vm_id": more.vm_id,
                    "td_id": hex(&more.td_id),
                    "device_info": hex(&more.device_info),
                    "init_service_td_hash": hex(&more.init_service_td_hash),
                    "init_service_td_attributes": hex(&more.init_service_td_attributes),
                    "init_cpu_svn": hex(&more.init_cpu_svn),
                    "init_tee_tcb_svn": hex(&more.init_tee_tcb_svn),
                    "init_tee_fmspc": hex(&more.init_tee_fmspc),
                    "service_td_hash": hex(&more.service_td_hash),
                    "service_td_attributes": hex(&more.service_td_attributes),
                }),
            ));
        }
    }
    out
}
