//! configfs-tsm, served by a folder that a stand-in fills as the kernel does: real files, real reads, recorded reports.

#![allow(clippy::unwrap_used)]

mod recorded;

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorded::{ARK, ASK, SNP_DATA, TDX_V4_DATA, VCEK, over, table, vector};
use starminer_attester::{
    ConfigFs, MAX_TSM_BLOB_BYTES, ReportTree, SnpCertificateKind, SvsmService, Tsm, TsmError, TsmProvider, TsmRequest,
};

/// What the stand-in does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quirk {
    None,
    /// Somebody writes to the entry after us.
    OtherWriter,
    /// The answer is over other report data, and no write shows.
    OtherData,
    /// Reading the report fails, as where firmware refuses.
    ReportFails,
    /// Writing an option fails.
    OptionFails,
    GenerationMalformed,
    NoCertificates,
}

/// Plays the kernel: makes the attributes of an entry, counts writes, makes the report when it is read.
#[derive(Debug)]
struct Kernel {
    files: ConfigFs,
    _root: tempfile::TempDir,
    provider: &'static str,
    report: Vec<u8>,
    data_offset: usize,
    certificates: Vec<u8>,
    quirk: Quirk,
    writes: Mutex<Vec<(String, Vec<u8>)>>,
    /// Where there is one, making an entry waits for a word.
    stuck: Option<Mutex<Receiver<()>>>,
}

impl Kernel {
    fn new(provider: &'static str, report: Vec<u8>, data_offset: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = ConfigFs::at(root.path());
        fs::create_dir_all(files.folder()).unwrap();
        let (certificates, quirk) = (Vec::new(), Quirk::None);
        Self {
            files,
            _root: root,
            provider,
            report,
            data_offset,
            certificates,
            quirk,
            writes: Mutex::default(),
            stuck: None,
        }
    }

    fn with_certificates(mut self, certificates: Vec<u8>) -> Self {
        self.certificates = certificates;
        self
    }

    fn with(mut self, quirk: Quirk) -> Self {
        self.quirk = quirk;
        self
    }

    fn set(&self, entry: &str, attribute: &str, bytes: &[u8]) {
        fs::write(self.files.folder().join(entry).join(attribute), bytes).unwrap();
    }

    fn count_write(&self, entry: &str) {
        let text = fs::read_to_string(self.files.folder().join(entry).join("generation")).unwrap();
        let count: u64 = text.trim().parse().unwrap();
        self.set(entry, "generation", format!("{}\n", count.wrapping_add(1)).as_bytes());
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.files.folder()).unwrap().count()
    }
}

impl ReportTree for Kernel {
    fn create(&self, entry: &str) -> io::Result<()> {
        if let Some(stuck) = &self.stuck {
            stuck.lock().unwrap().recv().unwrap();
        }
        self.files.create(entry)?;
        self.set(entry, "provider", format!("{}\n", self.provider).as_bytes());
        // A count that goes around in the middle of the request.
        let generation = if self.quirk == Quirk::GenerationMalformed { "many".into() } else { u64::MAX.to_string() };
        self.set(entry, "generation", format!("{generation}\n").as_bytes());
        for attribute in ["inblob", "privlevel", "service_provider", "service_guid", "service_manifest_version"] {
            self.set(entry, attribute, b"");
        }
        Ok(())
    }

    fn write(&self, entry: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        if self.quirk == Quirk::OptionFails && attribute != "inblob" {
            return Err(io::Error::from_raw_os_error(22));
        }
        self.files.write(entry, attribute, bytes)?;
        self.writes.lock().unwrap().push((attribute.into(), bytes.to_vec()));
        self.count_write(entry);
        Ok(())
    }

    fn read(&self, entry: &str, attribute: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
        if attribute == "outblob" {
            if self.quirk == Quirk::ReportFails {
                return Err(io::Error::from_raw_os_error(5));
            }
            let mut data = fs::read(self.files.folder().join(entry).join("inblob"))?;
            if self.quirk == Quirk::OtherData {
                data[63] ^= 1;
            }
            let fits = self.report.len() >= self.data_offset + data.len();
            let report = if fits { over(self.report.clone(), self.data_offset, &data) } else { self.report.clone() };
            self.set(entry, "outblob", &report);
            self.set(entry, "manifestblob", b"services");
            if self.quirk != Quirk::NoCertificates {
                self.set(entry, "auxblob", &self.certificates);
            }
            if self.quirk == Quirk::OtherWriter {
                self.count_write(entry);
            }
        }
        self.files.read(entry, attribute, max_bytes)
    }

    fn remove(&self, entry: &str) -> io::Result<()> {
        // rmdir of a configfs entry removes its attributes along.
        let folder = self.files.folder().join(entry);
        for attribute in fs::read_dir(&folder)? {
            fs::remove_file(attribute?.path())?;
        }
        self.files.remove(entry)
    }
}

fn data() -> [u8; 64] {
    std::array::from_fn(|at| at as u8 + 1)
}

/// Asks, and sees that no entry is left behind, whatever came of it.
fn ask(kernel: Kernel, request: &TsmRequest) -> Result<starminer_attester::TsmReport, TsmError> {
    let kernel = Arc::new(kernel);
    let result = Tsm::over(Arc::<Kernel>::clone(&kernel)).report(request);
    assert_eq!(kernel.entries(), 0, "an entry was left behind");
    result
}

#[test]
fn a_recorded_snp_report_with_its_certificates() {
    let (Some(report), Some(vcek), Some(ask_), Some(ark)) = (
        vector("snp/milan_report.bin"),
        vector("snp/milan_vcek.pem"),
        vector("snp/milan_ask.pem"),
        vector("snp/milan_ark.pem"),
    ) else {
        return;
    };
    let certificates = table(&[(VCEK, &vcek), (ASK, &ask_), (ARK, &ark), (7, b"else")]);
    let kernel = Arc::new(Kernel::new("sev_guest", report.clone(), SNP_DATA).with_certificates(certificates));
    let tsm = Tsm::over(Arc::<Kernel>::clone(&kernel));
    assert_eq!(tsm.provider().unwrap(), TsmProvider::SevGuest);
    let answer = tsm.report(&TsmRequest::new(data())).unwrap();
    assert_eq!(answer.provider, TsmProvider::SevGuest);
    assert_eq!(answer.report, over(report, SNP_DATA, &data()));
    assert_eq!(answer.manifest, None);
    use SnpCertificateKind::{Ark, Ask, Other, Vcek};
    let found: Vec<_> = answer.certificates.iter().map(|c| (c.kind, c.bytes.clone())).collect();
    let other = Other(7u128.to_be_bytes());
    assert_eq!(found, [(Vcek, vcek), (Ask, ask_), (Ark, ark), (other, b"else".to_vec())]);
    // The verifier's own parser takes what was collected.
    starminer_hardware::snp::Report::parse(&answer.report).unwrap();
    assert_eq!(*kernel.writes.lock().unwrap(), [("inblob".to_string(), data().to_vec())]);
    assert_eq!(kernel.entries(), 0);
    // A second request is one of its own.
    assert_eq!(tsm.report(&TsmRequest::new([9; 64])).unwrap().report[SNP_DATA..][..64], [9; 64]);
}

#[test]
fn a_recorded_tdx_quote() {
    let Some(quote) = vector("dcap/go_tdx_guest_spr_v4.dat") else { return };
    // What TDX shows beside the quote is not read: it has no certificates.
    let kernel = Kernel::new("tdx_guest", quote.clone(), TDX_V4_DATA).with_certificates(vec![1; 40_000]);
    let answer = ask(kernel, &TsmRequest::new(data())).unwrap();
    assert_eq!((answer.provider, answer.report), (TsmProvider::TdxGuest, over(quote, TDX_V4_DATA, &data())));
    assert_eq!(answer.certificates, []);
}

#[test]
fn options_are_written_and_counted() {
    let kernel = Arc::new(Kernel::new("sev_guest", vec![0; 1184], SNP_DATA));
    let tsm = Tsm::over(Arc::<Kernel>::clone(&kernel));
    let guid = 0xc476f1eb_0123_45a5_9641_b4e7dde5bfe3_u128.to_be_bytes();
    let svsm = Some(SvsmService { guid: Some(guid), manifest_version: Some(1) });
    let request = TsmRequest { privilege_level: Some(2), svsm, ..TsmRequest::new(data()) };
    assert_eq!(tsm.report(&request).unwrap().manifest.unwrap(), b"services");
    let writes: Vec<(String, Vec<u8>)> = kernel.writes.lock().unwrap().drain(..).skip(1).collect();
    let expected = [
        ("privlevel", "2"),
        ("service_provider", "svsm"),
        ("service_guid", "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"),
        ("service_manifest_version", "1"),
    ];
    assert_eq!(writes, expected.map(|(attribute, text)| (attribute.to_string(), text.as_bytes().to_vec())));
    let all = TsmRequest { svsm: Some(SvsmService { guid: None, manifest_version: None }), ..TsmRequest::new(data()) };
    assert!(tsm.report(&all).is_ok());
    assert_eq!(kernel.writes.lock().unwrap().len(), 2);
    let level = TsmRequest { privilege_level: Some(4), ..TsmRequest::new(data()) };
    assert_eq!(tsm.report(&level).unwrap_err().code(), "tsm.privilege-level");
}

#[test]
fn what_goes_wrong_has_a_code_and_leaves_nothing() {
    let snp = || Kernel::new("sev_guest", vec![0; 1184], SNP_DATA);
    let tdx = |length| Kernel::new("tdx_guest", [vec![4, 0], vec![0; length]].concat(), TDX_V4_DATA);
    for (kernel, code) in [
        (snp().with(Quirk::OtherWriter), "tsm.concurrent-writer"),
        (tdx(5000).with(Quirk::OtherWriter), "tsm.concurrent-writer"),
        (snp().with(Quirk::OtherData), "tsm.report-data"),
        (tdx(5000).with(Quirk::OtherData), "tsm.report-data"),
        (snp().with(Quirk::ReportFails), "tsm.io"),
        (snp().with(Quirk::GenerationMalformed), "tsm.malformed"),
        (Kernel::new("arm_cca_guest", vec![0; 1184], SNP_DATA), "tsm.provider"),
        (Kernel::new("sev_guest\0", vec![0; 1184], SNP_DATA), "tsm.provider"),
        (Kernel::new("", vec![0; 1184], SNP_DATA), "tsm.provider"),
        (Kernel::new("sev_guest", vec![], SNP_DATA), "tsm.malformed"),
        (Kernel::new("sev_guest", vec![0; 100], SNP_DATA), "tsm.malformed"),
        (Kernel::new("tdx_guest", vec![], TDX_V4_DATA), "tsm.malformed"),
        (tdx(MAX_TSM_BLOB_BYTES), "tsm.malformed"),
        (snp().with_certificates(vec![1; 20_000]), "tsm.malformed"),
        (snp().with_certificates(vec![1; 100]), "tsm.certificates"),
    ] {
        let shown = format!("{} {:?}", kernel.provider, kernel.quirk);
        assert_eq!(ask(kernel, &TsmRequest::new(data())).unwrap_err().code(), code, "{shown}");
    }
    assert!(ask(snp().with(Quirk::NoCertificates), &TsmRequest::new(data())).unwrap().certificates.is_empty());
    let option = TsmRequest { privilege_level: Some(1), ..TsmRequest::new(data()) };
    let error = ask(snp().with(Quirk::OptionFails), &option).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("tsm.io", "configfs-tsm: writing privlevel"));
}

#[test]
fn a_machine_without_it() {
    let root = tempfile::tempdir().unwrap();
    let tsm = Tsm::over(Arc::new(ConfigFs::at(root.path())));
    assert_eq!(tsm.report(&TsmRequest::new(data())).unwrap_err().code(), "tsm.missing");
    assert_eq!(tsm.provider().unwrap_err().code(), "tsm.missing");
}

#[test]
fn a_kernel_that_hangs_costs_one_thread_and_is_used_again_afterwards() {
    let (release, stuck): (Sender<()>, _) = channel();
    let mut kernel = Kernel::new("sev_guest", vec![0; 1184], SNP_DATA);
    kernel.stuck = Some(Mutex::new(stuck));
    let kernel = Arc::new(kernel);
    let tsm = Tsm::over(Arc::<Kernel>::clone(&kernel)).with_patience(Duration::from_millis(1));
    let request = TsmRequest::new(data());
    assert_eq!(tsm.report(&request).unwrap_err().code(), "tsm.timed-out");
    assert_eq!(tsm.report(&request).unwrap_err().code(), "tsm.busy");
    // Two words: for the request that hung, whose entry then is removed, and for the next.
    release.send(()).unwrap();
    release.send(()).unwrap();
    let patient = tsm.clone().with_patience(Duration::from_secs(600));
    assert_eq!(patient.report(&request).unwrap().report.len(), 1184);
    assert_eq!(kernel.entries(), 0);
}
