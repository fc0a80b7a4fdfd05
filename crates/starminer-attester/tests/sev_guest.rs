//! `/dev/sev-guest`, played by a stand-in behind the ioctl.

#![allow(clippy::unwrap_used)]

mod recorded;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorded::{ASK, SNP_DATA, VCEK, over, table, vector};
use starminer_attester::{
    DERIVED_RESPONSE_BYTES, DerivedKeyDevice, DeviceAnswer, GUEST_FIELDS, HostCertificates, MAX_THROTTLED_ATTEMPTS,
    RESPONSE_BYTES, SevGuest, SevGuestError, SnpCertificateKind, SnpDevice, derived_key, derived_key_device,
};

const EIO: i32 = 5;
const EINTR: i32 = 4;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ETIMEDOUT: i32 = 110;
const ROOM: u64 = 1 << 32;
const BUSY: u64 = 2 << 32;

/// One answer of the driver.
#[derive(Debug, Clone)]
enum Step {
    Fails(i32, u64),
    /// Status, length, report, certificates.
    Answers(u32, u32, Vec<u8>, Vec<u8>),
}

#[derive(Debug)]
struct Driver {
    steps: Mutex<VecDeque<Step>>,
    asked: Mutex<Vec<(&'static str, u32)>>,
    keeps_data: bool,
}

impl Driver {
    fn next(
        &self,
        name: &'static str,
        vmpl: u32,
        data: &[u8; 64],
        response: &mut [u8],
        room: &mut [u8],
    ) -> DeviceAnswer {
        self.asked.lock().unwrap().push((name, vmpl));
        match self.steps.lock().unwrap().pop_front().expect("a request that was not expected") {
            Step::Fails(errno, exitinfo2) => {
                DeviceAnswer { error: Some(io::Error::from_raw_os_error(errno)), exitinfo2 }
            }
            Step::Answers(status, length, report, certificates) => {
                let report = if self.keeps_data { report } else { over(report, SNP_DATA, data) };
                response[..4].copy_from_slice(&status.to_le_bytes());
                response[4..8].copy_from_slice(&length.to_le_bytes());
                response[32..32 + report.len()].copy_from_slice(&report);
                let fits = certificates.len().min(room.len());
                room[..fits].copy_from_slice(&certificates[..fits]);
                DeviceAnswer { error: None, exitinfo2: 0 }
            }
        }
    }
}

impl SnpDevice for Driver {
    fn report(&self, data: &[u8; 64], vmpl: u32, response: &mut [u8; RESPONSE_BYTES]) -> DeviceAnswer {
        self.next("report", vmpl, data, response, &mut [])
    }

    fn extended_report(
        &self,
        data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
        certificates: &mut [u8],
        certificates_len: &mut u32,
    ) -> DeviceAnswer {
        assert_eq!(certificates.len() % 4096, 0, "the kernel takes whole pages");
        assert!(certificates.len() <= 16 * 1024, "the kernel takes at most SEV_FW_BLOB_MAX_SIZE");
        *certificates_len = 5 * 4096;
        self.next("extended", vmpl, data, response, certificates)
    }
}

/// What comes of these answers, and what was asked.
fn ask(
    steps: &[Step],
    certificates: HostCertificates,
    keeps_data: bool,
) -> (Result<starminer_attester::SnpReport, SevGuestError>, Vec<(&'static str, u32)>) {
    let driver = Driver { steps: Mutex::new(steps.iter().cloned().collect()), asked: Mutex::default(), keeps_data };
    let driver = Arc::new(driver);
    let guest = SevGuest::over(Arc::<Driver>::clone(&driver)).with_pause(Duration::ZERO);
    let result = guest.report([7; 64], 1, certificates);
    assert!(driver.steps.lock().unwrap().is_empty(), "fewer requests than expected");
    let asked = driver.asked.lock().unwrap().clone();
    (result, asked)
}

fn answers(report: &[u8], certificates: &[u8]) -> Step {
    Step::Answers(0, report.len() as u32, report.to_vec(), certificates.to_vec())
}

#[test]
fn a_recorded_report_and_its_certificates() {
    let (Some(report), Some(vcek)) = (vector("snp/genoa_report.bin"), vector("snp/genoa_vcek.pem")) else { return };
    let certificates = table(&[(VCEK, &vcek), (ASK, b"ask")]);
    let (answer, asked) = ask(&[answers(&report, &certificates)], HostCertificates::Wanted, false);
    let answer = answer.unwrap();
    assert_eq!(answer.report, over(report.clone(), SNP_DATA, &[7; 64]));
    starminer_hardware::snp::Report::parse(&answer.report).unwrap();
    assert_eq!(answer.certificates.len(), 2);
    assert_eq!((answer.certificates[0].kind, &answer.certificates[0].bytes), (SnpCertificateKind::Vcek, &vcek));
    assert_eq!(asked, [("extended", 1)]);
    let (answer, asked) = ask(&[answers(&report, &[])], HostCertificates::Unwanted, false);
    assert_eq!(answer.unwrap().certificates, []);
    assert_eq!(asked, [("report", 1)]);
}

#[test]
fn throttling_is_bounded_and_a_full_table_is_left_out() {
    let report = vec![0; 1184];
    let throttled = Step::Fails(EIO, BUSY);
    let interrupted = Step::Fails(EINTR, 0xff);
    let good = answers(&report, &[]);
    let (answer, asked) =
        ask(&[throttled.clone(), interrupted, throttled.clone(), good.clone()], HostCertificates::Wanted, false);
    assert!(answer.is_ok());
    assert_eq!(asked.len(), 4);
    let all = vec![throttled; MAX_THROTTLED_ATTEMPTS as usize];
    let (answer, _) = ask(&all, HostCertificates::Unwanted, false);
    assert_eq!(answer.unwrap_err().code(), "sev-guest.throttled");
    let (answer, asked) = ask(&[Step::Fails(EIO, ROOM), good], HostCertificates::Wanted, false);
    assert_eq!(answer.unwrap().certificates, []);
    assert_eq!(asked, [("extended", 1), ("report", 1)]);
}

#[test]
fn refusals_in_words() {
    let report = vec![0; 1184];
    let short = vec![0; 400];
    for (step, code, words) in [
        (Step::Fails(EIO, 0x16), "sev-guest.refused", "firmware status 0x16: invalid parameter"),
        (Step::Fails(EIO, 0xff), "sev-guest.refused", "firmware was not asked"),
        (Step::Fails(EINVAL, u64::from(u32::MAX)), "sev-guest.refused", "not asked"),
        (Step::Fails(ETIMEDOUT, BUSY), "sev-guest.refused", "throttles"),
        (Step::Fails(EIO, 9 << 32), "sev-guest.refused", "hypervisor error 0x9"),
        (Step::Fails(ENOTTY, 0xff), "sev-guest.key-wiped", "restart"),
        (Step::Answers(0x27, 1184, report.clone(), vec![]), "sev-guest.status", "key is not available"),
        (Step::Answers(0, 0, report.clone(), vec![]), "sev-guest.malformed", ""),
        (Step::Answers(0, u32::MAX, report.clone(), vec![]), "sev-guest.malformed", ""),
        (Step::Answers(0, 400, short, vec![]), "sev-guest.malformed", ""),
        (answers(&report, &[1; 200]), "sev-guest.certificates", "certificates"),
    ] {
        let (answer, _) = ask(&[step], HostCertificates::Wanted, false);
        let error = answer.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(words), "{error}");
    }
    // Where no certificates were asked for, a wish for more room is a refusal.
    let (answer, _) = ask(&[Step::Fails(EIO, ROOM)], HostCertificates::Unwanted, false);
    assert_eq!(answer.unwrap_err().code(), "sev-guest.refused");
    let (answer, _) = ask(&[answers(&report, &[])], HostCertificates::Wanted, true);
    assert_eq!(answer.unwrap_err().code(), "sev-guest.report-data");
}

#[test]
fn a_machine_without_it() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(SevGuest::open(root.path()).unwrap_err().code(), "sev-guest.missing");
    std::fs::create_dir_all(root.path().join("dev/sev-guest")).unwrap();
    assert_eq!(SevGuest::open(root.path()).unwrap_err().code(), "sev-guest.open");
    // A file that is no such device: the real ioctl refuses.
    std::fs::remove_dir(root.path().join("dev/sev-guest")).unwrap();
    std::fs::write(root.path().join("dev/sev-guest"), "").unwrap();
    let guest = SevGuest::open(root.path()).unwrap();
    assert_eq!(guest.report([7; 64], 0, HostCertificates::Wanted).unwrap_err().code(), "sev-guest.key-wiped");
}

/// A response, or an error with firmware's word.
type Derived = Result<[u8; DERIVED_RESPONSE_BYTES], (i32, u64)>;

/// A driver that answers requests for derived keys.
#[derive(Debug)]
struct Deriving(Mutex<VecDeque<Derived>>);

impl DerivedKeyDevice for Deriving {
    fn derived_key(&self, guest_fields: u64, response: &mut [u8; DERIVED_RESPONSE_BYTES]) -> DeviceAnswer {
        assert_eq!(guest_fields, GUEST_FIELDS);
        match self.0.lock().unwrap().pop_front().expect("a request that was not expected") {
            Ok(answer) => {
                *response = answer;
                DeviceAnswer { error: None, exitinfo2: 0 }
            }
            Err((errno, exitinfo2)) => DeviceAnswer { error: Some(io::Error::from_raw_os_error(errno)), exitinfo2 },
        }
    }
}

#[test]
fn a_derived_key_is_given_whole_or_not() {
    // Launch policy and measurement, or a guest that may be debugged has the same key.
    assert_eq!(GUEST_FIELDS, 0b1001);
    let mut good = [0; DERIVED_RESPONSE_BYTES];
    good[32..].fill(9);
    let mut refused = good;
    refused[0] = 0x16;
    let ask = |answers: Vec<Result<_, _>>| derived_key(&Deriving(Mutex::new(answers.into())));
    assert_eq!(*ask(vec![Ok(good)]).unwrap(), [9; 32]);
    assert_eq!(*ask(vec![Err((EINTR, 0)), Ok(good)]).unwrap(), [9; 32]);
    let code = |answers| ask(answers).unwrap_err().code();
    assert_eq!(code(vec![Ok(refused)]), "sev-guest.status");
    // A driver that wrote nothing.
    assert_eq!(code(vec![Ok([0; DERIVED_RESPONSE_BYTES])]), "sev-guest.malformed");
    assert_eq!(code(vec![Err((ENOTTY, 0))]), "sev-guest.key-wiped");
    assert_eq!(code(vec![Err((EIO, 0x16))]), "sev-guest.refused");
    let root = tempfile::tempdir().unwrap();
    assert!(derived_key_device(root.path()).unwrap().is_none());
}
