//! CPU TEEs that are stand-ins over recorded reports. What is asked of them, the form of their parts and the report data are a verifier's to take;
//! their signatures are over the report data of another time, and that is what it refuses.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use starminer_attester::{
    Attester as _, CpuTee, DeviceAnswer, Gramine, JoinedAttester, RESPONSE_BYTES, ReportTree, SevGuest, SimulatedRoot,
    SnpDevice, Tsm,
};
use starminer_hardware::cert::Certificate;
use starminer_hardware::dcap::{Rtmr, rtmr_replay};
use starminer_hardware::event_log::{Bank, EventKind, EventLog};
use starminer_verify::parts::SevSnpPart;
use starminer_verify::{Batch, EvidenceKind, UnixTime};

use crate::boot::{CCEL, put};
use crate::log_builder::Builder;
use crate::recorded::{ARK, ASK, SGX_DATA, SGX_ENCLAVE, SNP_DATA, TDX_V4_DATA, VCEK, over, table, vector};
use crate::{BOOT, attest, binding, kinds, notes, parts, software, verified};

/// RTMR 0 to 3 in a quote of version 4.
const TDX_V4_RTMRS: usize = 48 + 328;
/// While the recorded certificates are valid.
const NOW: UnixTime = UnixTime(1_800_000_000_000);

/// configfs-tsm in memory: one entry at a time is enough, as requests come one after the other.
#[derive(Debug)]
struct Kernel {
    provider: &'static str,
    report: Vec<u8>,
    data_at: usize,
    certificates: Vec<u8>,
    written: Mutex<HashMap<String, Vec<u8>>>,
}

impl Kernel {
    fn tee(provider: &'static str, report: Vec<u8>, data_at: usize, certificates: Vec<u8>) -> CpuTee {
        let kernel = Self { provider, report, data_at, certificates, written: Mutex::default() };
        CpuTee::tsm(Tsm::over(Arc::new(kernel))).unwrap()
    }
}

impl ReportTree for Kernel {
    fn create(&self, _entry: &str) -> io::Result<()> {
        self.written.lock().unwrap().clear();
        Ok(())
    }

    fn write(&self, _entry: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        self.written.lock().unwrap().insert(attribute.into(), bytes.to_vec());
        Ok(())
    }

    fn read(&self, _entry: &str, attribute: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
        let written = self.written.lock().unwrap();
        let mut bytes = match attribute {
            "provider" => self.provider.into(),
            "generation" => written.len().to_string().into_bytes(),
            "outblob" => over(self.report.clone(), self.data_at, &written["inblob"]),
            "auxblob" => self.certificates.clone(),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        bytes.truncate(max_bytes);
        Ok(bytes)
    }

    fn remove(&self, _entry: &str) -> io::Result<()> {
        Ok(())
    }
}

/// `/dev/sev-guest` that gives this report and these certificates.
#[derive(Debug)]
struct Driver {
    report: Vec<u8>,
    certificates: Vec<u8>,
}

impl SnpDevice for Driver {
    fn report(&self, data: &[u8; 64], vmpl: u32, response: &mut [u8; RESPONSE_BYTES]) -> DeviceAnswer {
        assert_eq!(vmpl, 0);
        response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
        response[32..32 + 1184].copy_from_slice(&over(self.report.clone(), SNP_DATA, data));
        DeviceAnswer { error: None, exitinfo2: 0 }
    }

    fn extended_report(
        &self,
        data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
        certificates: &mut [u8],
        _certificates_len: &mut u32,
    ) -> DeviceAnswer {
        certificates[..self.certificates.len()].copy_from_slice(&self.certificates);
        self.report(data, vmpl, response)
    }
}

fn attester(tee: CpuTee, root: &Path) -> JoinedAttester {
    JoinedAttester::new(BOOT, Some(tee), None, root).unwrap()
}

/// Which check refuses evidence whose device signed another day.
fn refused_by(evidence: &[u8]) -> String {
    verified(evidence, 7, NOW, &[]).unwrap_err().check().to_owned()
}

/// To the same firmware.
#[derive(Clone, Copy)]
enum Way {
    Driver,
    Kernel,
}

fn certificates(line: &str) -> Option<[Vec<u8>; 3]> {
    let [vcek, ask, ark] = ["vcek", "ask", "ark"].map(|name| vector(&format!("snp/{line}_{name}.pem")));
    Some([vcek?, ask?, ark?])
}

#[test]
fn sev_snp_with_what_the_host_gives() {
    let (Some(report), Some([vcek, ask, ark])) = (vector("snp/milan_report.bin"), certificates("milan")) else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let der = |pem: &[u8]| Certificate::read_one(pem).unwrap().der().to_vec();
    let whole = table(&[(ARK, &ark), (7, b"else"), (VCEK, &vcek), (ASK, &ask)]);
    let broken = table(&[(VCEK, &vcek), (ASK, b"ask"), (ARK, &ark)]);
    let by_driver = |certificates: &[u8]| {
        CpuTee::from(SevGuest::over(Arc::new(Driver { report: report.clone(), certificates: certificates.to_vec() })))
    };
    let by_kernel = |certificates: &[u8]| Kernel::tee("sev_guest", report.clone(), SNP_DATA, certificates.to_vec());
    for way in [Way::Driver, Way::Kernel] {
        let tee = |certificates: &[u8]| match way {
            Way::Driver => by_driver(certificates),
            Way::Kernel => by_kernel(certificates),
        };
        let found = attester(tee(&whole), root.path());
        assert_eq!(found.kind(), EvidenceKind::SevSnp);
        let evidence = attest(&found);
        let part = SevSnpPart::parse(&parts(&evidence)[0].1).unwrap();
        assert_eq!(part.certificates, [der(&vcek), der(&ask), der(&ark)], "in the order of the chain");
        let batch = Batch::new(&[binding(7, None).digest()]).unwrap();
        assert_eq!(part.report, over(report.clone(), SNP_DATA, &[&batch.report_data().0[..], &[0; 32]].concat()));
        assert_eq!((refused_by(&evidence).as_str(), notes(&found)), ("snp.report-signature", vec![]));

        let found = attester(tee(&[]), root.path());
        let part = SevSnpPart::parse(&parts(&attest(&found))[0].1).unwrap();
        assert_eq!((part.certificates.len(), notes(&found)), (0, vec![]));

        let found = attester(tee(&broken), root.path());
        let part = SevSnpPart::parse(&parts(&attest(&found))[0].1).unwrap();
        assert_eq!(part.certificates, [der(&vcek), der(&ark)]);
        assert_eq!(found.notes().len(), 1);
    }
}

#[test]
fn tdx_with_a_log_that_leads_to_its_registers() {
    let Some(quote) = vector("dcap/go_tdx_guest_spr_v4.dat") else { return };
    let root = tempfile::tempdir().unwrap();
    let log = (1..5).fold(Builder::new(&[(0xc, Bank::Sha384)]), |log, register| {
        log.plain(register, EventKind::EFI_ACTION, b"something that firmware did").separator(register)
    });
    let log = log.bytes;
    let parsed = EventLog::parse(&log).unwrap();
    let registers = rtmr_replay(parsed.events().filter(|event| event.extends()).map(|event| {
        (Rtmr::from_ccel(event.register).unwrap(), event.digest(Bank::Sha384).unwrap().try_into().unwrap())
    }));
    // Firmware reserves more for its table than it uses.
    put(root.path(), CCEL, &[&log[..], &[0xff; 9000]].concat());
    let of_this_boot = over(quote.clone(), TDX_V4_RTMRS, registers.as_flattened());
    let found = attester(Kernel::tee("tdx_guest", of_this_boot, TDX_V4_DATA, vec![1; 99]), root.path());
    assert_eq!(found.kind(), EvidenceKind::Tdx);
    let evidence = attest(&found);
    assert_eq!((kinds(&evidence), notes(&found)), (vec!["tdx".into(), "cc-log".into()], vec![]));
    assert_eq!(parts(&evidence)[1].1, log);
    let refused = refused_by(&evidence);
    assert!(refused.starts_with("dcap."), "{refused}");

    // Of another boot.
    let found = attester(Kernel::tee("tdx_guest", quote, TDX_V4_DATA, Vec::new()), root.path());
    assert_eq!(
        (kinds(&attest(&found)), notes(&found)),
        (vec!["tdx".to_owned()], vec![(EvidenceKind::CcLog, "log.registers")])
    );
}

#[test]
fn sgx_in_gramine() {
    let root = tempfile::tempdir().unwrap();
    // Gramine makes the quote when it is read; a file has it ready for the one binding that is asked for.
    let batch = Batch::new(&[binding(7, None).digest()]).unwrap();
    let quote = over([vec![3, 0], vec![0; 4598]].concat(), SGX_DATA, &batch.report_data().0);
    let quote = over(quote, SGX_ENCLAVE, &[0xee; 32]);
    let file = |name: &str, contents: &[u8]| put(root.path(), &format!("dev/attestation/{name}"), contents);
    file("attestation_type", b"none");
    assert_eq!(CpuTee::gramine(Gramine::at(root.path())).unwrap_err().code(), "gramine.not-dcap");
    file("attestation_type", b"dcap");
    file("my_target_info", &[[0xee; 32].as_slice(), &[0; 480]].concat());
    file("user_report_data", b"");
    file("quote", &quote);
    let found = attester(CpuTee::find(root.path()).unwrap().expect("an enclave"), root.path());
    assert_eq!(found.kind(), EvidenceKind::Sgx);
    assert_eq!(parts(&attest(&found)), [("sgx".to_owned(), quote)]);
    assert_eq!(fs::read(root.path().join("dev/attestation/user_report_data")).unwrap()[32..], [0; 32]);
    let error = found.attest(&[binding(8, None)], &crate::posture()).unwrap_err();
    assert_eq!(error.code(), "gramine.report-data", "{error}");
}

#[test]
fn a_machine_without_any() {
    let root = tempfile::tempdir().unwrap();
    assert!(CpuTee::find(root.path()).unwrap().is_none());
    assert_eq!(CpuTee::tsm_at(root.path()).unwrap_err().code(), "tsm.missing");
    assert_eq!(CpuTee::sev_guest(root.path()).unwrap_err().code(), "sev-guest.missing");
    // What is there and does not work is said, and not passed over.
    put(root.path(), "dev/sev-guest", b"");
    fs::remove_file(root.path().join("dev/sev-guest")).unwrap();
    fs::create_dir(root.path().join("dev/sev-guest")).unwrap();
    assert_eq!(CpuTee::find(root.path()).unwrap_err().code(), "sev-guest.open");
    let authority = SimulatedRoot::generate(&[1; 32]);
    let found = attester(software(&authority).into(), root.path());
    let evidence = attest(&found);
    assert_eq!(kinds(&evidence), ["software-tee"]);
    verified(&evidence, 7, NOW, &[authority.id()]).unwrap();
}
