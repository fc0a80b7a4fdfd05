//! Machines that have everything, nothing, and everything but one thing, by the test authorities of `starminer-hardware` and `starminer-verify`
//! (their tests' files, included by path: one copy). All of it is simulated; that real devices are asked is held by `tests/cli/doctor.rs`.

#![allow(clippy::unwrap_used)]

#[path = "../../../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;
#[path = "../../../../starminer-hardware/tests/dcap/pki.rs"]
#[allow(dead_code)]
mod pki;
#[path = "../../../../starminer-hardware/tests/snp/lab.rs"]
#[allow(dead_code)]
mod snp_lab;
#[path = "../../../../starminer-verify/tests/hardware/tpm_lab.rs"]
#[allow(dead_code)]
mod tpm_lab;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starminer_attester::tpm::Properties;
use starminer_attester::{ReportTree, Tsm};
use starminer_hardware::cert::Certificate;
use starminer_hardware::dcap::{FlagRule, Tee};
use starminer_hardware::endorsements::{Ages, Candidate, Cause, Key, Marks, PckAuthority, Snapshot, Trust};
use starminer_hardware::snp::{Product, SigningKey, TcbVersion};
use starminer_hardware::tpm::{HashAlg, Template};
use starminer_verify::parts::SevSnpPart;
use starminer_verify::{
    Batch, Binding, BootId, Challenge, Digest, EvidenceKind, HardwarePolicy, HostMeasure, Measurement, MinimumPosture,
    NetworkId, NodeId, Policy, Posture, PostureItem, PostureState, PublicKey, Purpose, ReferenceValue, ReferenceValues,
    SimulatedRootId, Tier, TrustAnchors, UnixTime, report_data_for,
};

use super::collect::{Absence, Asked, Collected, Machine, Place, TeePart, TpmShown, collect};
use super::judge::{Diagnosis, Group, Mark, Standard, judge};
use super::{fix, show};
use log_builder::machine;
use snp_lab::{Lab, NOW, Vek, put};
use tpm_lab::TpmLab;

/// PCRs that reference values are over by default.
const PCRS: [u8; 5] = [0, 2, 4, 7, 11];

/// A machine and a network that knows all of it.
struct World {
    snp: Lab,
    tpm: TpmLab,
    has_tee: bool,
    has_tpm: bool,
    /// A bit of the guest's launch policy.
    guest_policy: u64,
    activated: Result<(), String>,
    ek_public: Vec<u8>,
    uefi: Option<Vec<u8>>,
    ima: Option<Vec<u8>>,
    not_in_force: Vec<(HostMeasure, PostureState)>,
    knows_image: bool,
    knows_roots: bool,
    has_policy: bool,
    endorsements: Vec<Key>,
    as_root: bool,
}

/// The endorsement key behind a certificate, by the default template of P-256.
fn ek_public(certificate: &Certificate) -> Vec<u8> {
    let key = certificate.public_key().unwrap();
    let (_, point) = key.ec().unwrap();
    let two = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let template = Template::Low;
    [
        &[0x00, 0x23, 0x00, 0x0b][..],
        &template.attributes().bits().to_be_bytes(),
        &two(template.auth_policy(HashAlg::Sha256).unwrap()),
        &[0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10],
        &two(&point[1..33]),
        &two(&point[33..]),
    ]
    .concat()
}

impl World {
    fn new() -> Self {
        let (snp, tpm) = (Lab::milan(), TpmLab::new());
        let (product, signer) = (snp.product, SigningKey::Vcek);
        let vcek = Key::AmdVcek { product, chip_id: snp.hardware_id.clone(), tcb: TcbVersion(snp.tcb) };
        Self {
            has_tee: true,
            has_tpm: true,
            guest_policy: 0x3001f,
            activated: Ok(()),
            ek_public: ek_public(&tpm.ek),
            uefi: Some(tpm.log.clone()),
            ima: Some(tpm.ima.clone()),
            not_in_force: Vec::new(),
            knows_image: true,
            knows_roots: true,
            has_policy: true,
            endorsements: vec![Key::AmdChain { product, signer }, vcek, Key::AmdCrl { product, signer }],
            as_root: true,
            snp,
            tpm,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new();
        change(&mut world);
        world
    }

    fn posture(&self) -> Posture {
        let item = |measure: &HostMeasure| {
            let otherwise = self.not_in_force.iter().find(|(name, _)| name == measure);
            let state = otherwise.map_or(PostureState::InForce, |(_, state)| *state);
            PostureItem::new(*measure, state, "as the test says")
        };
        Posture::new(Vec::new(), HostMeasure::ALL.iter().map(item).collect()).unwrap()
    }

    fn collected(&self) -> Collected {
        let posture = self.posture();
        let plain = Binding {
            network: NetworkId([1; 32]),
            challenge: Challenge([2; 32]),
            purpose: Purpose::Admission,
            spec: None,
            node: NodeId(PublicKey([3; 32])),
            attempt: None,
            boot: BootId([4; 16]),
            task_key: None,
            report_key: None,
            agent_key: PublicKey([5; 32]),
            tls_key: PublicKey([6; 32]),
            ak_name: None,
            posture: posture.digest(),
            subject: None,
        };
        let with_tpm = Binding { ak_name: Some(self.tpm.ak_name()), ..plain.clone() };
        let batch = Batch::new(&[plain.digest(), with_tpm.digest()]).unwrap();
        let (report_data, mut paths) = (batch.report_data(), batch.into_paths());
        let second = Place { binding: with_tpm, path: paths.pop().unwrap() };
        let missing = |what: &str| Absence::Missing(format!("there is no {what}"));
        let tee = || {
            let report = self.snp.report(|report| {
                put(report, 0x08, &self.guest_policy.to_le_bytes());
                put(report, 0x50, &[&report_data.as_bytes()[..], &[0; 32]].concat());
            });
            let part = SevSnpPart { report, certificates: Vec::new() }.encode();
            TeePart { kind: EvidenceKind::SevSnp, through: "a test", part }
        };
        let tpm = || {
            let mut part = self.tpm.part(&report_data);
            // What stands above the certificate is for the network to know.
            part.ek_certificates.truncate(1);
            TpmShown {
                part: Some(part),
                ak_name: self.tpm.ak_name(),
                ek_public: self.ek_public.clone(),
                activated: self.activated.clone(),
                properties: Properties {
                    maker: "TEST".to_owned(),
                    vendor: "lab".to_owned(),
                    firmware_version: 1,
                    revision: 159,
                    pcr_banks: Vec::new(),
                    owner_authorization_set: false,
                    endorsement_authorization_set: false,
                    in_lockout: false,
                },
                bank: HashAlg::Sha256,
            }
        };
        Collected {
            posture,
            plain: Place { binding: plain, path: paths.pop().unwrap() },
            with_tpm: self.has_tpm.then_some(second),
            tee: self.has_tee.then(tee).ok_or_else(|| missing("TEE")),
            tpm: self.has_tpm.then(tpm).ok_or_else(|| missing("TPM")),
            uefi: self.uefi.clone().ok_or_else(|| missing("log")),
            cc: Err(missing("CCEL")),
            ima: self.ima.clone().ok_or_else(|| missing("list")),
            as_root: self.as_root,
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut trust = Trust::genuine();
        trust.amd.add(self.snp.ark().clone());
        let certificates = self.snp.certificates(Vek::Chip);
        let mut snapshot = Snapshot::default();
        for key in &self.endorsements {
            let content = match key {
                Key::AmdChain { .. } => [certificates[1].der(), self.snp.ark().der()].concat(),
                Key::AmdCrl { .. } => self.snp.crl().der().to_vec(),
                _ => certificates[0].der().to_vec(),
            };
            let source = "https://test".to_owned();
            let candidate = Candidate { key: key.clone(), content, chain: None, fetched_s: NOW - 60, source };
            let item = snapshot.verify(&candidate, &trust, NOW).unwrap();
            snapshot = snapshot.with(item, &mut Marks::none()).unwrap();
        }
        snapshot
    }

    fn standard(&self) -> Standard {
        let fingerprint = |certificate: &Certificate| Digest(certificate.fingerprint());
        let roots =
            [SimulatedRootId::SevSnp(fingerprint(self.snp.ark())), SimulatedRootId::Tpm(fingerprint(&self.tpm.root))];
        let value = |kind, bytes: &[u8]| ReferenceValue {
            kind,
            measurement: Measurement::from_bytes(bytes).unwrap(),
            name: "a released image".to_owned(),
        };
        let known = vec![
            value(EvidenceKind::SevSnp, &[4; 48]),
            value(EvidenceKind::Tpm, self.tpm.measurement(&PCRS).as_bytes()),
        ];
        let mut hardware = HardwarePolicy::strict();
        let floor = TcbVersion(self.snp.tcb).components(Product::Milan);
        hardware.sev_snp.tcb_floor.insert(Product::Milan, floor);
        let mut fields = Policy::confidential().fields().clone();
        fields.hardware = Some(Box::new(hardware));
        fields.accepted_simulated_roots = roots.to_vec();
        let named = roots.into_iter().filter(|_| self.knows_roots);
        Standard {
            policy: self.has_policy.then(|| Policy::new(fields).unwrap()),
            anchors: TrustAnchors::makers().with_simulated_roots(named).unwrap(),
            reference_values: match self.knows_image {
                true => ReferenceValues::new(known).unwrap(),
                false => ReferenceValues::unset(),
            },
            snapshot: (!self.endorsements.is_empty()).then(|| self.snapshot()),
            ages: Ages::default(),
            authorities: vec![
                self.tpm.root.clone(),
                self.snp.certificates(Vek::Chip)[1].clone(),
                self.snp.ark().clone(),
            ],
            now: UnixTime(NOW * 1000),
        }
    }

    fn diagnosis(&self) -> Diagnosis {
        let diagnosis = judge(&self.collected(), &self.standard());
        holds_for_all(&diagnosis);
        diagnosis
    }
}

/// What is so of every diagnosis.
#[track_caller]
fn holds_for_all(diagnosis: &Diagnosis) {
    let mut names = BTreeSet::new();
    for line in &diagnosis.lines {
        assert!(!line.reason.is_empty(), "{line:?}");
        assert_eq!(line.fix.is_empty(), line.mark == Mark::Pass, "whatever does not pass says what to do: {line:?}");
        assert!(names.insert(line.name.as_str()) || line.name == "endorsements.missing", "twice: {line:?}");
    }
    for measure in HostMeasure::ALL {
        assert!(names.contains(format!("posture.host.{measure}").as_str()), "{measure}");
    }
    assert!(diagnosis.lines.is_sorted_by_key(|line| line.group));
    if let Some(next) = &diagnosis.next {
        assert!(next.tier > diagnosis.tier && !next.missing.is_empty(), "{next:?}");
        for name in &next.missing {
            let line = diagnosis.lines.iter().find(|line| line.name == *name);
            assert!(line.is_some_and(|line| line.mark != Mark::Pass), "{name} is said to be missing: {line:?}");
        }
    }
    assert!(diagnosis.would_reach >= diagnosis.tier);
    assert_eq!(diagnosis.provenance.is_some(), diagnosis.tier > Tier::None);
}

#[track_caller]
fn mark(diagnosis: &Diagnosis, name: &str) -> Mark {
    diagnosis.lines.iter().find(|line| line.name == name).unwrap_or_else(|| panic!("no line {name}")).mark
}

/// The tier that is reached, the next one, and what of it is missing among others.
#[track_caller]
fn check(world: &World, tier: Tier, next: Tier, missing: &[&str]) -> Diagnosis {
    let diagnosis = world.diagnosis();
    let lines: Vec<_> = diagnosis.lines.iter().filter(|line| line.mark != Mark::Pass).collect();
    assert_eq!(diagnosis.tier, tier, "{:?} {lines:#?}", diagnosis.next);
    let found = diagnosis.next.clone().unwrap();
    assert_eq!(found.tier, next, "{found:?}");
    for name in missing {
        assert!(found.missing.iter().any(|found| found == name), "{name} is not among {:?}", found.missing);
    }
    diagnosis
}

#[test]
fn a_machine_with_everything() {
    let world = World::new();
    let diagnosis = check(&world, Tier::Confidential, Tier::Hardened, &["device.facility"]);
    let wanted = [Mark::Pass; 5];
    let names = ["tee.device", "tee.evidence", "tpm.evidence", "tpm.enrolled", "boot.ima"];
    assert_eq!(names.map(|name| mark(&diagnosis, name)), wanted);
    assert_eq!(mark(&diagnosis, "tpm.co-enrolled"), Mark::Pass, "on trial, together with the chip");
    assert_eq!(mark(&diagnosis, "eventlog.policy.secure-boot"), Mark::Pass);
    assert_eq!(diagnosis.provenance.unwrap().name(), "simulated");
    assert_eq!(diagnosis.measurements.len(), 2);
    // The policy asks for a tier and for sandboxes, of which a doctor has none.
    assert_eq!(diagnosis.unmet.as_deref(), Some(&[][..]));
    assert!(diagnosis.is_enough());
    // What ends: AMD's list in a week by its age; TPM and chip by their certificates.
    let first = diagnosis.forecast.first().unwrap();
    assert_eq!(first.cause, Cause::Age, "{first:?}");
    assert!(diagnosis.forecast.endings().iter().all(|ending| ending.cause != Cause::Today));
}

#[test]
fn a_machine_with_nothing() {
    let world = World::with(|world| {
        (world.has_tee, world.has_tpm, world.uefi, world.ima, world.has_policy) = (false, false, None, None, false);
        world.not_in_force = HostMeasure::ALL.iter().map(|measure| (*measure, PostureState::Absent)).collect();
        world.endorsements.clear();
    });
    let diagnosis = check(&world, Tier::None, Tier::Identified, &["tee.device", "tpm.device"]);
    let absent = ["tee.device", "tpm.device", "boot.event-log", "boot.ima", "posture.host.secure_boot"];
    assert_eq!(absent.map(|name| mark(&diagnosis, name)), [Mark::Missing; 5]);
    assert!(!diagnosis.is_enough() && diagnosis.forecast.first().is_none());
    assert!(diagnosis.lines.iter().all(|line| line.mark != Mark::Pass || line.group == Group::Endorsements));
    let document = show::document(&diagnosis, 1);
    assert_eq!((&document["tier"], &document["provenance"]), (&"none".into(), &serde_json::Value::Null));
    assert_eq!(document["forecast"]["first"], serde_json::Value::Null);
}

#[test]
fn a_tpm_alone_is_measured() {
    let alone = |change: fn(&mut World)| {
        World::with(|world| {
            world.has_tee = false;
            change(world);
        })
    };
    let diagnosis = check(&alone(|_| {}), Tier::Measured, Tier::Confidential, &["tee.device"]);
    assert!(diagnosis.unmet.clone().unwrap().contains(&"tee.device".to_owned()), "{:?}", diagnosis.unmet);
    assert!(!diagnosis.is_enough(), "the policy asks for more");
    let enough = alone(|world| world.has_policy = false).diagnosis();
    assert!(enough.is_enough() && enough.unmet.is_none(), "without a policy, measured is enough");

    // Everything but one thing.
    let identified =
        |change: fn(&mut World), missing: &str| check(&alone(change), Tier::Identified, Tier::Measured, &[missing]);
    let unknown = identified(|world| world.knows_image = false, "tpm.measurement");
    assert_eq!(unknown.would_reach, Tier::Measured, "if the network named what runs here");
    let today = |diagnosis: &Diagnosis| diagnosis.forecast.first().unwrap().cause == Cause::Today;
    assert!(today(&unknown), "the policy is not met");
    let lenient = alone(|world| (world.knows_image, world.has_policy) = (false, false)).diagnosis();
    assert!(lenient.tier == Tier::Identified && !today(&lenient), "{:?}", lenient.forecast);
    let bare = identified(|world| world.uefi = None, "eventlog.policy.secure-boot");
    let fix_of = |name: &str| bare.lines.iter().find(|line| line.name == name).unwrap().fix.clone();
    assert_eq!(fix_of("eventlog.policy.secure-boot"), fix_of("boot.event-log"), "it is the log that is missing");
    let off = identified(
        |world| {
            world.tpm = TpmLab::with_log(machine(&[0]));
            world.ek_public = ek_public(&world.tpm.ek);
            (world.uefi, world.ima) = (Some(world.tpm.log.clone()), Some(world.tpm.ima.clone()));
        },
        "eventlog.policy.secure-boot",
    );
    assert_eq!((mark(&off, "eventlog.policy.secure-boot"), mark(&off, "boot.event-log")), (Mark::Missing, Mark::Pass));
    identified(|world| world.not_in_force = vec![(HostMeasure::JobStorageLocked, PostureState::Absent)], "tpm.storage");
    identified(
        |world| world.not_in_force = vec![(HostMeasure::JobStorageEncrypted, PostureState::NotChecked)],
        "tpm.storage",
    );
    // A log of another boot is left out and told, and hides nothing else.
    let other = identified(|world| world.uefi = Some(machine(&[1, 1]).bytes), "eventlog.policy.secure-boot");
    assert_eq!((mark(&other, "boot.event-log"), mark(&other, "boot.ima")), (Mark::Missing, Mark::Pass));
    let nonsense = identified(|world| world.uefi = Some(b"no log".to_vec()), "eventlog.policy.secure-boot");
    assert_eq!(mark(&nonsense, "boot.event-log"), Mark::Missing);
    // Of an IMA list nobody asks unless reference values name an agent.
    let changed = alone(|world| world.ima = Some(b"10 00 nonsense\n".to_vec())).diagnosis();
    assert_eq!((changed.tier, mark(&changed, "boot.ima")), (Tier::Measured, Mark::Missing));

    // What enrolment asks for.
    for change in [(|world| world.activated = Err("it did not".to_owned())) as fn(&mut World), |world| {
        world.ek_public = ek_public(&TpmLab::new().ek)
    }] {
        let none = check(&alone(change), Tier::None, Tier::Identified, &["tpm.enrolled"]);
        assert_eq!(mark(&none, "tpm.evidence"), Mark::Pass);
        assert_eq!(none.next.unwrap().missing, ["tpm.enrolled"], "what runs on it is no matter of who it is");
    }
    let unknown = check(&alone(|world| world.knows_roots = false), Tier::None, Tier::Identified, &["tpm.evidence"]);
    assert_eq!(mark(&unknown, "tpm.evidence"), Mark::Missing);
}

#[test]
fn a_tee_alone_is_confidential() {
    let alone = |change: fn(&mut World)| {
        World::with(|world| {
            world.has_tpm = false;
            change(world);
        })
    };
    let diagnosis = check(&alone(|_| {}), Tier::Confidential, Tier::Hardened, &["tpm.device"]);
    assert!(diagnosis.is_enough());
    // A log without a TPM is its own word.
    assert_eq!(mark(&diagnosis, "boot.event-log"), Mark::NotChecked);
    let log = diagnosis.lines.iter().find(|line| line.name == "boot.event-log").unwrap();
    assert!(log.reason.contains("Secure Boot on") && log.reason.contains("vouches"), "{log:?}");

    let identified =
        |change: fn(&mut World), missing: &str| check(&alone(change), Tier::Identified, Tier::Confidential, &[missing]);
    identified(|world| world.guest_policy |= 1 << 19, "device.debug-off");
    identified(|world| world.has_policy = false, "device.tcb");
    let unknown = identified(|world| world.knows_image = false, "device.measurement");
    assert_eq!(unknown.would_reach, Tier::Confidential);
    let old = identified(|world| drop(world.endorsements.pop()), "snp.policy.crl");
    assert_eq!(mark(&old, "endorsements.missing"), Mark::Missing);
    let named = old.lines.iter().find(|line| line.name == "endorsements.missing").unwrap();
    assert!(named.reason.starts_with("amd/crl/milan/vcek"), "{named:?}");
    // Without its certificate nothing verifies, and nothing of it counts.
    let none = check(&alone(|world| world.endorsements.clear()), Tier::None, Tier::Identified, &["tee.evidence"]);
    assert_eq!((mark(&none, "tee.device"), none.provenance), (Mark::Pass, None));
    // What it asks for is named with the command that fetches it.
    let asked: Vec<_> = none.lines.iter().filter(|line| line.name == "endorsements.missing").collect();
    assert_eq!(asked.len(), 2, "the key's certificate and the list: {asked:#?}");
    assert!(asked.iter().all(|line| line.fix.starts_with("starminer endorsements fetch DIR amd/")), "{asked:#?}");
}

#[test]
fn what_cannot_be_read_says_who_can() {
    let world = World::with(|world| {
        world.not_in_force = vec![(HostMeasure::SecureBoot, PostureState::NotChecked)];
        world.as_root = false;
    });
    let diagnosis = world.diagnosis();
    let line = diagnosis.lines.iter().find(|line| line.name == "posture.host.secure_boot").unwrap();
    assert!(line.fix.starts_with("run it as root"), "{line:?}");
    assert!(line.fix.ends_with(fix::of_measure(HostMeasure::SecureBoot)));
}

#[test]
fn a_policy_asks_for_posture_too() {
    let world = World::with(|world| world.not_in_force = vec![(HostMeasure::SwapOff, PostureState::Absent)]);
    let mut standard = world.standard();
    let mut fields = standard.policy.take().unwrap().fields().clone();
    fields.minimum_posture =
        MinimumPosture { sandbox: fields.minimum_posture.sandbox, host: vec![HostMeasure::SwapOff] };
    standard.policy = Some(Policy::new(fields).unwrap());
    let diagnosis = judge(&world.collected(), &standard);
    holds_for_all(&diagnosis);
    assert_eq!(diagnosis.tier, Tier::Confidential, "posture is no part of the tier");
    assert_eq!(diagnosis.unmet.as_deref(), Some(&["posture.host.swap_off".to_owned()][..]));
    assert!(!diagnosis.is_enough());
    let first = diagnosis.forecast.first_for_provider().unwrap();
    assert_eq!((first.cause, first.at_s), (Cause::Today, NOW));
}

/// The kernel's configfs-tsm over a chip of the test authorities, or one that never answers.
struct Kernel {
    lab: Lab,
    asked: Mutex<Vec<u8>>,
    hangs: bool,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel")
    }
}

impl ReportTree for Kernel {
    fn create(&self, _: &str) -> io::Result<()> {
        match self.hangs {
            true => loop {
                std::thread::park();
            },
            false => Ok(()),
        }
    }

    fn write(&self, _: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(attribute, "inblob");
        *self.asked.lock().unwrap() = bytes.to_vec();
        Ok(())
    }

    fn read(&self, _: &str, attribute: &str, _: usize) -> io::Result<Vec<u8>> {
        let asked = self.asked.lock().unwrap().clone();
        match attribute {
            "provider" => Ok(b"sev_guest\n".to_vec()),
            "generation" => Ok(if asked.is_empty() { b"0\n".to_vec() } else { b"1\n".to_vec() }),
            "outblob" => Ok(self.lab.report(|report| {
                put(report, 0x08, &0x3001f_u64.to_le_bytes());
                put(report, 0x50, &asked);
            })),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

/// A machine whose tree is empty but for this kernel.
fn machine_of(kernel: Kernel, patience: Duration) -> (tempfile::TempDir, Machine) {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::at(root.path(), None, None, patience);
    machine.tsm = Tsm::over(Arc::new(kernel)).with_patience(patience);
    (root, machine)
}

#[test]
fn a_tee_is_asked_and_judged() {
    let world = World::with(|world| world.has_tpm = false);
    let standard = world.standard();
    let asked = Asked { network: NetworkId([1; 32]), pcrs: BTreeSet::new(), bank: HashAlg::Sha256 };
    let kernel = Kernel { lab: world.snp, asked: Mutex::default(), hangs: false };
    let (_root, machine) = machine_of(kernel, Duration::from_secs(60));
    let steps = Mutex::new(Vec::new());
    let found = collect(&machine, &asked, |step| steps.lock().unwrap().push(step));
    assert!(found.plain.path.is_empty() && found.with_tpm.is_none());
    let diagnosis = judge(&found, &standard);
    holds_for_all(&diagnosis);
    assert_eq!((diagnosis.tier, mark(&diagnosis, "tee.evidence")), (Tier::Confidential, Mark::Pass));
    assert!(steps.lock().unwrap().len() >= 4, "whoever waits is told for what");
}

#[test]
fn a_tee_that_hangs_has_a_deadline() {
    let kernel = Kernel { lab: Lab::milan(), asked: Mutex::default(), hangs: true };
    let (_root, machine) = machine_of(kernel, Duration::from_millis(10));
    let asked = Asked { network: NetworkId([1; 32]), pcrs: BTreeSet::new(), bank: HashAlg::Sha256 };
    let found = collect(&machine, &asked, |_| {});
    let Err(Absence::Missing(reason)) = &found.tee else { panic!("{:?}", found.tee) };
    assert!(reason.contains("did not answer in time"), "{reason}");
}

/// What Intel would publish of a world of its test authority.
fn intel_snapshot(world: &pki::World) -> Snapshot {
    let file: serde_json::Value = serde_json::from_slice(&world.json()).unwrap();
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let list = |name: &str| data_encoding::HEXLOWER.decode(text(name).as_bytes()).unwrap();
    let signed = |member: &str, name: &str| {
        format!("{{\"{member}\":{},\"signature\":\"{}\"}}", text(name), text(&format!("{name}_signature"))).into_bytes()
    };
    let chain = |name: &str| Some(text(&format!("{name}_issuer_chain")).into_bytes());
    let (tee, ca) = (Tee::Tdx, PckAuthority::Platform);
    let mut trust = Trust::genuine();
    trust.intel.add(world.root.certificate.clone());
    let mut snapshot = Snapshot::default();
    for (key, content, chain) in [
        (Key::IntelRootCrl, list("root_ca_crl"), None),
        (Key::IntelPckCrl { ca }, list("pck_crl"), chain("pck_crl")),
        (Key::IntelTcbInfo { tee, fmspc: pki::FMSPC }, signed("tcbInfo", "tcb_info"), chain("tcb_info")),
        (Key::IntelQeIdentity { tee }, signed("enclaveIdentity", "qe_identity"), chain("qe_identity")),
    ] {
        let candidate = Candidate { key, content, chain, fetched_s: NOW - 60, source: "https://test".to_owned() };
        let item = snapshot.verify(&candidate, &trust, NOW).unwrap();
        snapshot = snapshot.with(item, &mut Marks::none()).unwrap();
    }
    snapshot
}

#[test]
fn a_trust_domain_and_its_log() {
    use log_builder::Builder;
    use starminer_hardware::event_log::{Bank, EventKind, EventLog, Guid, Variable};
    let variable = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let log = Builder::new(&[(0xc, Bank::Sha384)])
        .plain(1, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &variable)
        .separator(1)
        .plain(3, EventKind::IPL, b"a command line\0");
    let registers = EventLog::parse(&log.bytes).unwrap().replay_rtmrs().unwrap();
    let world = World::with(|world| (world.has_tpm, world.knows_image, world.uefi) = (false, false, None));
    let tdx = pki::World::new(pki::Form::Td10v4);
    let mut found = world.collected();
    let report_data = report_data_for(&found.plain.binding.digest(), &found.plain.path).unwrap();
    let mut body = tdx.body();
    body[520..584].copy_from_slice(&[&report_data.as_bytes()[..], &[0; 32]].concat());
    for (at, register) in [328, 376, 424, 472].into_iter().zip(registers) {
        body[at..at + 48].copy_from_slice(&register);
    }
    found.tee = Ok(TeePart { kind: EvidenceKind::Tdx, through: "a test", part: tdx.quote(&body) });
    found.cc = Ok(log.bytes);

    let root = SimulatedRootId::Intel(Digest(tdx.root.certificate.fingerprint()));
    let mut standard = world.standard();
    let mut fields = standard.policy.take().unwrap().fields().clone();
    fields.accepted_simulated_roots = vec![root];
    let hardware = fields.hardware.as_mut().unwrap();
    hardware.intel.smt_enabled = FlagRule::Any;
    standard.policy = Some(Policy::new(fields).unwrap());
    standard.anchors = TrustAnchors::makers().with_simulated_roots([root]).unwrap();
    standard.snapshot = None;

    let bare = judge(&found, &standard);
    holds_for_all(&bare);
    assert_eq!((bare.tier, mark(&bare, "tee.evidence")), (Tier::None, Mark::Missing), "without endorsements, nothing");
    assert_eq!(bare.lines.iter().filter(|line| line.name == "endorsements.missing").count(), 4, "all four are named");

    standard.snapshot = Some(intel_snapshot(&tdx));
    let diagnosis = judge(&found, &standard);
    holds_for_all(&diagnosis);
    assert_eq!((diagnosis.tier, diagnosis.would_reach), (Tier::Identified, Tier::Confidential), "{:?}", diagnosis.next);
    assert_eq!(mark(&diagnosis, "boot.cc-log"), Mark::Pass);
    assert!(diagnosis.next.unwrap().missing.contains(&"device.measurement".to_owned()));
    // Named by the network, and ended by Intel's lists.
    let values = diagnosis.measurements.into_iter().map(|(kind, measurement)| ReferenceValue {
        kind,
        measurement,
        name: "a released image".to_owned(),
    });
    standard.reference_values = ReferenceValues::new(values.collect()).unwrap();
    let diagnosis = judge(&found, &standard);
    assert_eq!(diagnosis.tier, Tier::Confidential);
    let first = diagnosis.forecast.first().unwrap();
    assert!(first.reason.starts_with("intel/") && first.cause == Cause::Age, "{first:?}");
    // A log of something else.
    found.cc = Ok(machine(&[1]).bytes);
    let other = judge(&found, &standard);
    assert_eq!((other.tier, mark(&other, "boot.cc-log")), (Tier::Confidential, Mark::Missing));
}
