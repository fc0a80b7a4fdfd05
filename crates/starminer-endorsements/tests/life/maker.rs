//! Makers with test authorities of their own, whose services are played by one server.

use std::sync::Arc;

use serde_json::Value;
use starminer_endorsements::{Base, Fetcher, Limits, Politeness, ServerRoots, Sources};
use starminer_hardware::{
    cert::{Certificate, Roots},
    dcap::Tee,
    endorsements::{Ages, DcapWants, Key, PckAuthority, SnpWants, Trust},
    nvidia,
    snp::{Product, SigningKey, TcbVersion},
};

use super::{
    lab::{Lab, Vek},
    pki::{FMSPC, Form, World},
    server::{Reply, Server},
    time_and_chance::{TestClock, no_jitter},
};

pub const NOW_S: u64 = super::pki::NOW_S;
pub const TCB_INFO: &str = "/sgx/certification/v4/tcb?fmspc=102030400000";
pub const QE_IDENTITY: &str = "/sgx/certification/v4/qe/identity";
pub const PCK_CRL: &str = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der";
pub const ROOT_CRL: &str = "/sgx/certification/v4/rootcacrl";

pub struct Makers {
    pub intel: World,
    pub amd: Lab,
    pub server: Server,
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Makers {
    pub async fn start() -> Self {
        let makers = Self { intel: World::new(Form::Sgx3), amd: Lab::milan(), server: Server::start().await };
        makers.publish_intel();
        makers.publish_amd();
        makers
    }

    /// What Intel would publish of its world as it stands.
    pub fn publish_intel(&self) {
        let file: Value = serde_json::from_slice(&self.intel.json()).unwrap();
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        let answer = |member: &str, name: &str| {
            format!("{{\"{member}\":{},\"signature\":\"{}\"}}", text(name), text(&format!("{name}_signature")))
                .into_bytes()
        };
        let chain = |name: &str| percent(&text(name));
        let table = &self.server.table;
        let full = |header, chain, body| Reply::Full(200, vec![(header, chain)], body);
        table.set(
            TCB_INFO,
            full("TCB-Info-Issuer-Chain", chain("tcb_info_issuer_chain"), answer("tcbInfo", "tcb_info")),
        );
        table.set(
            QE_IDENTITY,
            full(
                "SGX-Enclave-Identity-Issuer-Chain",
                chain("qe_identity_issuer_chain"),
                answer("enclaveIdentity", "qe_identity"),
            ),
        );
        let list = data_encoding::HEXLOWER.decode(text("pck_crl").as_bytes()).unwrap();
        table.set(PCK_CRL, full("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl_issuer_chain"), list));
        // A cache gives the list of the root in hexadecimal.
        table.set(ROOT_CRL, Reply::ok(text("root_ca_crl")));
    }

    pub fn publish_amd(&self) {
        let certificates = self.amd.certificates(Vek::Chip);
        let keys = self.amd_wants().keys();
        let path = |at: usize| Key::location(&keys[at]).unwrap().path;
        let chain = certificates.iter().skip(1).flat_map(|one: &Certificate| one.der().to_vec());
        self.server.table.set(&path(1), Reply::ok(certificates[0].der()));
        self.server.table.set(&path(0), Reply::ok(chain.collect::<Vec<u8>>()));
        self.server.table.set(&path(2), Reply::ok(self.amd.crl().der()));
    }

    pub fn amd_wants(&self) -> SnpWants<'_> {
        let (product, signer) = (Product::Milan, SigningKey::Vcek);
        SnpWants { product, signer, names: &self.amd.hardware_id, tcb: TcbVersion(self.amd.tcb) }
    }

    pub fn keys(&self) -> Vec<Key> {
        [self.amd_wants().keys(), intel_wants().keys()].concat()
    }

    pub fn trust(&self) -> Trust {
        Trust { amd: self.amd.roots(), intel: self.intel.roots(), nvidia: nvidia::Roots::none(), tpm: Roots::none() }
    }

    pub fn sources(&self) -> Sources {
        sources(&self.server.base())
    }

    pub fn fetcher(&self, clock: &Arc<TestClock>) -> Fetcher {
        fetcher(self.sources(), clock, &ServerRoots::Web)
    }
}

pub fn sources(base: &str) -> Sources {
    let one = || base.parse::<Base>().unwrap();
    Sources {
        amd_kds: one(),
        intel_pcs: one(),
        intel_root_crl: format!("{base}{ROOT_CRL}").parse().unwrap(),
        nvidia_rim: one(),
        nvidia_ocsp: format!("{base}/ocsp").parse().unwrap(),
        tpm: [("maker.example".to_owned(), one())].into(),
    }
}

pub fn fetcher(sources: Sources, clock: &Arc<TestClock>, roots: &ServerRoots) -> Fetcher {
    Fetcher::new(sources, roots, Politeness::default(), Limits::default(), clock.clone(), no_jitter()).unwrap()
}

pub fn intel_wants() -> DcapWants {
    DcapWants { tee: Tee::Sgx, fmspc: FMSPC, ca: PckAuthority::Platform }
}

pub fn ages() -> Ages {
    Ages::default()
}
