//! Out of a network's snapshot, what one piece of evidence needs and nothing else.

use starminer_hardware::endorsements::{Ages, Candidate, Key, Marks, Snapshot, Trust};
use starminer_hardware::snp::{Product, SigningKey, TcbVersion};
use starminer_hardware::{cert, dcap, nvidia, snp, tpm};
use starminer_verify::{Endorsements, Evidence, EvidenceKind as Kind};

use crate::snp_lab::{NOW, Vek};
use crate::world::{DRIVER, World, refused_by};

/// A snapshot that admits what the test authorities issue.
pub struct Network {
    pub snapshot: Snapshot,
    marks: Marks,
    trust: Trust,
}

impl Network {
    pub fn of(world: &World) -> Self {
        let with = |mut roots: cert::Roots, root: &cert::Certificate| {
            roots.add(root.clone());
            roots
        };
        let gpus = &world.gpus;
        let nvidia = nvidia::Roots::compiled_in()
            .with_device(gpus.device_root.certificate.clone())
            .with_rim(gpus.rim_root.certificate.clone());
        let trust = Trust {
            amd: with(snp::roots(), world.snp.ark()),
            intel: with(dcap::roots(), &world.tdx.root.certificate),
            nvidia,
            tpm: with(tpm::ek::roots(), &world.tpm.root),
        };
        Self { snapshot: Snapshot::default(), marks: Marks::none(), trust }
    }

    #[track_caller]
    pub fn add(&mut self, key: Key, content: Vec<u8>, chain: Option<Vec<u8>>) {
        let candidate = Candidate { key, content, chain, fetched_s: NOW - 60, source: "https://test".into() };
        let item = self.snapshot.verify(&candidate, &self.trust, NOW).unwrap_or_else(|refusal| panic!("{refusal}"));
        self.snapshot = self.snapshot.with(item, &mut self.marks).unwrap_or_else(|refusal| panic!("{refusal}"));
    }
}

#[test]
fn what_snp_evidence_needs() {
    let world = World::new();
    let mut network = Network::of(&world);
    let (product, signer) = (Product::Milan, SigningKey::Vcek);
    let mut part = world.snp_part(&world.report_data());
    let bare = {
        part.certificates.clear();
        world.encode(vec![(Kind::SevSnp, part.encode())])
    };
    let select = |network: &Network| {
        let evidence = Evidence::parse(&bare).unwrap();
        evidence.select_endorsements(&network.snapshot, &Ages::default(), crate::fixture::NOW).unwrap()
    };
    let nothing = select(&network);
    assert_eq!(nothing.endorsements, Endorsements::none());
    let names: Vec<String> = nothing.missing.iter().map(|missing| missing.what.to_string()).collect();
    assert_eq!(nothing.missing.len(), 2, "the key's certificate and the list, by name: {names:?}");

    let authorities: Vec<u8> = {
        let [_, ask] = &world.snp.certificates(Vek::Chip)[..] else { panic!() };
        [ask.der(), world.snp.ark().der()].concat()
    };
    let vcek = Key::AmdVcek { product, chip_id: world.snp.hardware_id.clone(), tcb: TcbVersion(world.snp.tcb) };
    network.add(Key::AmdChain { product, signer }, authorities, None);
    network.add(vcek, world.snp.certificates(Vek::Chip)[0].der().to_vec(), None);
    network.add(Key::AmdCrl { product, signer }, world.snp.crl().der().to_vec(), None);
    let found = select(&network);
    assert!(found.missing.is_empty(), "{:?}", found.missing);
    let mut verifier = world.verifier(&[Kind::SevSnp]);
    verifier.endorsements = found.endorsements;
    assert_eq!(refused_by(&verifier.appraise(&bare).unwrap()), [""; 0]);
}

#[test]
fn what_gpus_need_and_no_other_manifest() {
    use crate::nvidia::pki::Resource;
    use starminer_hardware::endorsements::RimId;
    let world = World::new();
    let mut network = Network::of(&world);
    for version in [DRIVER, "591.0"] {
        let id = RimId::new(&format!("NV_GPU_DRIVER_GH100_{version}")).unwrap();
        let rim = world.gpus.rim(version, "GH100", &[Resource::matching(7)]).into_bytes();
        network.add(Key::NvidiaRim { id }, rim, None);
    }
    let evidence = Evidence::parse(&world.evidence(&[Kind::SoftwareTee, Kind::NvidiaGpu])).unwrap();
    let found = evidence.select_endorsements(&network.snapshot, &Ages::default(), crate::fixture::NOW).unwrap();
    let id = RimId::new(&format!("NV_GPU_DRIVER_GH100_{DRIVER}")).unwrap();
    let driver = network.snapshot.item(&Key::NvidiaRim { id }).unwrap();
    let kind = starminer_verify::EndorsementKind::NvidiaRim;
    let alone = Endorsements::new([(kind, driver.content().bytes())]).unwrap();
    assert_eq!(found.endorsements.digest(), alone.digest());
}
