//! A machine of several devices, the makers of each, and a verifier that knows them. Each test changes one thing.

use starminer_hardware::cert::Certificate;
use starminer_hardware::dcap::FlagRule;
use starminer_hardware::snp::Product;
use starminer_verify::parts::{GpuArchitecture, GpuPart, SevSnpPart};
use starminer_verify::{
    AttestationResult, Check, Decision, Digest, EndorsementKind, Endorsements, Enrolment, EvidenceBuilder,
    EvidenceKind, FacilityCredential, HardwarePolicy, HostMeasure, Measurement, Policy, PolicyFields, PostureItem,
    PostureState, Provenance, Purpose, ReferenceValue, ReferenceValues, Refusal, SimulatedRootId, Tier, TrustAnchors,
    UnixTime, Verified, chip_digest,
};

use crate::fixture::{NOW, Node, Verifier, policy};
use crate::intel_lab::{Form, World as IntelLab};
use crate::log_builder::Builder;
use crate::nvidia::pki::{Maker as GpuMaker, Recipe, Resource};
use crate::snp_lab::{Lab as SnpLab, Vek, put};
use crate::tpm_lab::{AGENT_FILE, TpmLab};

use EvidenceKind as Kind;

/// The PCRs that reference values are over by default.
pub const PCRS: [u8; 5] = [0, 2, 4, 7, 11];
pub const DRIVER: &str = "590.12";
pub const VBIOS: &str = "96.00.A5.00.01";

pub fn fingerprint(certificate: &Certificate) -> Digest {
    Digest(certificate.fingerprint())
}

pub fn ders(certificates: &[Certificate]) -> Vec<Vec<u8>> {
    certificates.iter().map(|certificate| certificate.der().to_vec()).collect()
}

/// What goes into evidence, kind by kind.
pub type Parts = Vec<(Kind, Vec<u8>)>;

pub struct World {
    pub node: Node,
    pub snp: SnpLab,
    pub vek: Vek,
    /// No threads share a core.
    pub smt_off: bool,
    pub tdx: IntelLab,
    pub td_log: Vec<u8>,
    pub td_registers: [[u8; 48]; 4],
    pub sgx: IntelLab,
    pub tpm: TpmLab,
    pub gpus: GpuMaker,
    /// Rules beside the strict ones, and the tier that is asked for.
    pub rules: HardwarePolicy,
    pub minimum_tier: Tier,
}

fn padded(report_data: &Digest) -> [u8; 64] {
    let mut data = [0; 64];
    data[..32].copy_from_slice(report_data.as_bytes());
    data
}

impl World {
    pub fn new() -> Self {
        let snp = SnpLab::milan();
        let mut rules = HardwarePolicy::strict();
        let floor = starminer_hardware::snp::TcbVersion(snp.tcb).components(Product::Milan);
        rules.sev_snp.tcb_floor.insert(Product::Milan, floor);
        rules.intel.smt_enabled = FlagRule::Any;
        let log = {
            use starminer_hardware::event_log::{Bank, EventKind, Guid, Variable};
            let secure_boot = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
            Builder::new(&[(0xc, Bank::Sha384)])
                .plain(1, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &secure_boot)
                .separator(1)
                .separator(2)
                .plain(3, EventKind::IPL, b"a command line\0")
        };
        let registers = starminer_hardware::event_log::EventLog::parse(&log.bytes).unwrap().replay_rtmrs().unwrap();
        Self {
            node: Node::for_purpose(Purpose::Admission),
            snp,
            vek: Vek::Chip,
            smt_off: false,
            tdx: IntelLab::new(Form::Td10v4),
            td_log: log.bytes,
            td_registers: registers,
            sgx: IntelLab::new(Form::Sgx3),
            tpm: TpmLab::new(),
            gpus: GpuMaker::new(),
            rules,
            minimum_tier: Tier::Confidential,
        }
    }

    /// The same, of a node whose binding names the TPM's key.
    pub fn with_tpm() -> Self {
        let mut world = Self::new();
        world.node.binding.ak_name = Some(world.tpm.ak_name());
        world
    }

    /// A TPM is all that there is, and that is what is asked for.
    pub fn tpm_alone(minimum_tier: Tier) -> Self {
        Self { minimum_tier, ..Self::with_tpm() }
    }

    /// States that measures of the host are in force.
    pub fn state(&mut self, measures: &[HostMeasure]) {
        let mut host: Vec<_> = self.node.posture.host().to_vec();
        host.extend(measures.iter().map(|measure| PostureItem::new(*measure, PostureState::InForce, "")));
        host.sort_by_key(|item| item.name());
        let sandbox = self.node.posture.sandbox().to_vec();
        self.node.set_posture(starminer_verify::Posture::new(sandbox, host).unwrap());
    }

    pub fn report_data(&self) -> Digest {
        self.node.batch().0
    }

    pub fn snp_part(&self, report_data: &Digest) -> SevSnpPart {
        let report = self.snp.report_by(self.vek, |report| {
            put(report, 0x50, &padded(report_data));
            if self.smt_off {
                put(report, 0x40, &[0b0010_0100]);
            }
        });
        let mut certificates = ders(&self.snp.certificates(self.vek));
        certificates.push(self.snp.ark().der().to_vec());
        SevSnpPart { report, certificates }
    }

    pub fn tdx_quote(&self, report_data: &Digest) -> Vec<u8> {
        let mut body = self.tdx.body();
        body[520..584].copy_from_slice(&padded(report_data));
        for (at, register) in [328, 376, 424, 472].into_iter().zip(self.td_registers) {
            body[at..at + 48].copy_from_slice(&register);
        }
        self.tdx.quote(&body)
    }

    pub fn sgx_quote(&self, report_data: &Digest) -> Vec<u8> {
        let mut body = self.sgx.body();
        body[320..384].copy_from_slice(&padded(report_data));
        self.sgx.quote(&body)
    }

    pub fn gpu_part(&self, serial: &str, report_data: &Digest) -> GpuPart {
        let (pieces, _) = self.gpus.device(&Recipe { nonce: report_data.0, ..Recipe::hopper(serial) });
        let bytes = |name: &str| serde_json::from_value::<Vec<u8>>(pieces[name].clone()).unwrap();
        GpuPart {
            architecture: GpuArchitecture::Hopper,
            report: bytes("report"),
            certificates: ders(&Certificate::read(&bytes("certificates")).unwrap()),
        }
    }

    /// A part of this kind, over this batch.
    pub fn part(&self, kind: Kind, report_data: &Digest) -> Vec<u8> {
        match kind {
            Kind::SoftwareTee => self.node.sign_report(&self.node.report_body(*report_data).encode()),
            Kind::SevSnp => self.snp_part(report_data).encode(),
            Kind::Tdx => self.tdx_quote(report_data),
            Kind::Sgx => self.sgx_quote(report_data),
            Kind::Tpm => self.tpm.part(report_data).encode(),
            Kind::UefiLog => self.tpm.log.clone(),
            Kind::CcLog => self.td_log.clone(),
            Kind::ImaLog => self.tpm.ima.clone(),
            Kind::NvidiaGpu => self.gpu_part("A1", report_data).encode(),
        }
    }

    pub fn parts(&self, kinds: &[Kind]) -> Parts {
        kinds.iter().map(|kind| (*kind, self.part(*kind, &self.report_data()))).collect()
    }

    pub fn encode(&self, parts: Parts) -> Vec<u8> {
        let builder = EvidenceBuilder::new(self.node.binding.clone(), self.node.batch().1, self.node.posture.clone());
        parts.into_iter().fold(builder, |builder, (kind, part)| builder.part(kind, part)).encode().unwrap()
    }

    pub fn evidence(&self, kinds: &[Kind]) -> Vec<u8> {
        self.encode(self.parts(kinds))
    }

    /// Every root that a part of these kinds ends in.
    pub fn roots(&self, kinds: &[Kind]) -> Vec<SimulatedRootId> {
        let mut roots = Vec::new();
        for kind in kinds {
            match kind {
                Kind::SoftwareTee => roots.push(self.node.root_id()),
                Kind::SevSnp => roots.push(SimulatedRootId::SevSnp(fingerprint(self.snp.ark()))),
                Kind::Tdx => roots.push(SimulatedRootId::Intel(fingerprint(&self.tdx.root.certificate))),
                Kind::Sgx => roots.push(SimulatedRootId::Intel(fingerprint(&self.sgx.root.certificate))),
                Kind::Tpm => roots.push(SimulatedRootId::Tpm(fingerprint(&self.tpm.root))),
                Kind::NvidiaGpu => {
                    roots.push(SimulatedRootId::Nvidia(fingerprint(&self.gpus.device_root.certificate)));
                    roots.push(SimulatedRootId::NvidiaRim(fingerprint(&self.gpus.rim_root.certificate)));
                }
                Kind::UefiLog | Kind::CcLog | Kind::ImaLog => {}
            }
        }
        roots
    }

    /// Everything that makers published.
    pub fn endorsements(&self) -> Vec<(EndorsementKind, Vec<u8>)> {
        use EndorsementKind as Of;
        let gpus = &self.gpus;
        let rim = |version| gpus.rim(version, "GH100", &[Resource::matching(if version == DRIVER { 7 } else { 1 })]);
        let mut files = vec![
            (Of::AmdCrl, self.snp.crl().der().to_vec()),
            (Of::Intel, self.tdx.json()),
            (Of::Intel, self.sgx.json()),
            (Of::TpmCrl, self.tpm.crl(None).der().to_vec()),
            (Of::NvidiaRim, rim(DRIVER).into_bytes()),
            (Of::NvidiaRim, rim(VBIOS).into_bytes()),
            // Of another version: nobody's business here, though nobody vouches for it.
            (Of::NvidiaRim, GpuMaker::new().rim("1.2", "GH100", &[Resource::matching(7)]).into_bytes()),
        ];
        for authority in [&gpus.device_root, &gpus.identity, &gpus.rim_root] {
            files.push((Of::NvidiaCrl, authority.list(&[], 5).der().to_vec()));
        }
        files
    }

    pub fn tdx_measurement(&self) -> Vec<u8> {
        [&[0x44; 48][..], &self.td_registers.concat()].concat()
    }

    pub fn reference_values(&self) -> ReferenceValues {
        let value = |kind, measurement: &[u8]| ReferenceValue {
            kind,
            measurement: Measurement::from_bytes(measurement).unwrap(),
            name: "starminer-agent 0.1".into(),
        };
        ReferenceValues::new(vec![
            value(Kind::SoftwareTee, Digest::of(b"agent 0.1").as_bytes()),
            value(Kind::SevSnp, &[4; 48]),
            value(Kind::Tdx, &self.tdx_measurement()),
            value(Kind::Sgx, &[0x11; 32]),
            value(Kind::Tpm, self.tpm.measurement(&PCRS).as_bytes()),
            value(Kind::ImaLog, Digest::of(AGENT_FILE).as_bytes()),
        ])
        .unwrap()
    }

    /// The record of the TPM's key, without a chip.
    pub fn enrolment(&self) -> Enrolment {
        Enrolment {
            network: self.node.binding.network,
            node: self.node.binding.node,
            ak_name: self.tpm.ak_name(),
            ek_certificate: fingerprint(&self.tpm.ek),
            provenance: Provenance::Simulated { root: SimulatedRootId::Tpm(fingerprint(&self.tpm.root)) },
            chip: None,
            enrolled_at: UnixTime(NOW.0 - 86_400_000),
        }
    }

    pub fn snp_chip(&self) -> Digest {
        chip_digest(Kind::SevSnp, &self.snp.hardware_id)
    }

    pub fn facility(&self, chip: Digest) -> FacilityCredential {
        FacilityCredential {
            network: self.node.binding.network,
            chip,
            not_before: UnixTime(NOW.0 - 1),
            not_after: UnixTime(NOW.0 + 1),
        }
    }

    pub fn policy(&self, kinds: &[Kind], change: impl FnOnce(&mut PolicyFields)) -> Policy {
        policy(|fields| {
            fields.accepted_simulated_roots = self.roots(kinds);
            fields.hardware = Some(Box::new(self.rules.clone()));
            fields.minimum_tier = self.minimum_tier;
            if self.minimum_tier < Tier::Confidential {
                fields.operator_may_read_memory = starminer_verify::OperatorMayReadMemory::Yes;
            }
            change(fields);
        })
    }

    /// A verifier that trusts every root of these kinds, in trust file and policy, and was given all that there is to give.
    pub fn verifier(&self, kinds: &[Kind]) -> Verifier {
        let mut verifier = Verifier::of(&self.node);
        verifier.anchors = TrustAnchors::makers().with_simulated_roots(self.roots(kinds)).unwrap();
        verifier.endorsements = Endorsements::new(self.endorsements()).unwrap();
        verifier.enrolments.keys = vec![self.enrolment()];
        verifier.reference_values = self.reference_values();
        verifier.policy = self.policy(kinds, |_| {});
        verifier
    }

    pub fn verify(&self, kinds: &[Kind]) -> Result<Verified, Refusal> {
        self.verifier(kinds).verify(&self.evidence(kinds))
    }

    pub fn appraise(&self, kinds: &[Kind]) -> AttestationResult {
        self.verifier(kinds).appraise(&self.evidence(kinds)).unwrap_or_else(|refusal| panic!("{kinds:?}: {refusal}"))
    }
}

/// Names of the checks that refuse.
pub fn refused_by(result: &AttestationResult) -> Vec<String> {
    match result.decision() {
        Decision::Meets => Vec::new(),
        Decision::Fails(refusals) => refusals.iter().map(|refusal| refusal.check().to_owned()).collect(),
    }
}

#[track_caller]
pub fn find<'a>(result: &'a AttestationResult, name: &str) -> &'a Check {
    result.checks().iter().find(|check| check.name() == name).unwrap_or_else(|| panic!("no check {name}"))
}
