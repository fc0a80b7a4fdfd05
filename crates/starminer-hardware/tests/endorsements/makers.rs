//! Authorities and lists of TPM makers, and answers of OCSP responders, by test authorities.

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose};
use starminer_hardware::{
    cert::{Certificate, Roots},
    endorsements::{Ages, Marks, Refusal, Snapshot, Trust, issuers, ocsp_request, revocation_lists},
    nvidia,
};

use super::{
    add, candidate, nobody,
    responder::{Answer, NOW_S, Party, certificate_id, der, general_time, params},
};

fn uri(url: &str) -> Vec<u8> {
    der(0x86, url.as_bytes())
}

const AUTHORITY: &str = "https://maker.example/authority.cer";
const LIST: &str = "http://maker.example/list.crl";

/// Where the issuer is, and where its list.
fn places(params: &mut CertificateParams) {
    let oid = der(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 2]);
    let ocsp = der(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let entries =
        [der(0x30, &[ocsp, uri("http://ocsp.example/")].concat()), der(0x30, &[oid, uri(AUTHORITY)].concat())].concat();
    let point = der(0x30, &der(0xa0, &der(0xa0, &[uri(LIST), uri("ldap://x")].concat())));
    params.custom_extensions = vec![
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], der(0x30, &entries)),
        CustomExtension::from_oid_content(&[2, 5, 29, 31], der(0x30, &point)),
    ];
}

#[test]
fn a_tpms_authority_and_list_are_named_fetched_and_found() {
    let root = Party::root("maker root");
    let authority = root.issue(params("maker authority", true));
    let mut ek = params("endorsement key", false);
    places(&mut ek);
    let ek = authority.issue(ek).certificate;
    let names: Vec<String> =
        issuers(&ek).iter().chain(&revocation_lists(&ek)).map(|url| url.as_str().to_owned()).collect();
    assert_eq!(names, [AUTHORITY, LIST]);

    let trust = Trust { tpm: Roots::none().with(root.certificate.clone()), ..nobody() };
    let (mut snapshot, mut marks, ages) = (Snapshot::default(), Marks::none(), Ages::default());
    let missing = |snapshot: &Snapshot| -> Vec<String> {
        let found = snapshot.tpm(&ek, &trust.tpm, &ages, NOW_S);
        found.missing.iter().map(|missing| missing.fetch().unwrap().path).collect()
    };
    assert_eq!(missing(&snapshot), [LIST, AUTHORITY]);

    let (of_authority, of_list) = (format!("tpm/authority/{AUTHORITY}"), format!("tpm/crl/{LIST}"));
    // A list by an authority that is not known yet, then the authority, then the list.
    let list = candidate(&of_list, authority.list(5, -1), None, NOW_S);
    assert!(matches!(add(&mut snapshot, &mut marks, &trust, NOW_S, &list), Err(Refusal::Unverified(_))));
    let one = candidate(&of_authority, authority.certificate.der(), None, NOW_S);
    assert!(matches!(snapshot.verify(&one, &nobody(), NOW_S), Err(Refusal::Unverified(_))));
    add(&mut snapshot, &mut marks, &trust, NOW_S, &one).unwrap();
    assert_eq!(missing(&snapshot), [LIST]);
    add(&mut snapshot, &mut marks, &trust, NOW_S, &list).unwrap();
    let found = snapshot.tpm(&ek, &trust.tpm, &ages, NOW_S);
    assert_eq!((found.authorities.len(), found.crls.len(), found.missing.len()), (1, 1, 0));
    // No authority: the key's own certificate, or somebody else's.
    for no_authority in [ek.der(), Party::root("somebody").certificate.der()] {
        let one = candidate(&of_authority, no_authority, None, NOW_S);
        assert!(snapshot.verify(&one, &trust, NOW_S).is_err());
    }

    // Numbers of lists only rise, and a list of another issuer is not taken for this one.
    for (number, issued, code) in [
        (4, 0, "endorsement.rollback"),
        (5, -2, "endorsement.rollback"),
        (5, -1, ""),
        (256, 0, ""),
        (6, 0, "endorsement.rollback"),
    ] {
        let list = candidate(&of_list, authority.list(number, issued), None, NOW_S + 1);
        let result = add(&mut snapshot, &mut marks, &trust, NOW_S + 1, &list);
        assert_eq!(result.err().map_or("", |refusal| refusal.code()), code, "list {number}");
    }
    let other = candidate(&of_list, root.list(1000, 0), None, NOW_S + 1);
    assert_eq!(add(&mut snapshot, &mut marks, &trust, NOW_S + 1, &other), Err(Refusal::OtherIssuer));
}

#[test]
fn states_of_certificates() {
    let root = Party::root("device root");
    let issuer = root.issue(params("device issuer", true));
    let device = issuer.issue(params("device", false));
    let mut responder = params("responder", false);
    responder.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    let responder_of_root = root.issue(responder.clone());
    let responder = issuer.issue(responder);
    let other = issuer.issue(params("another device", false));
    let serial = device.certificate.serial().to_vec();
    let trust = Trust { nvidia: nvidia::Roots::none().with_device(root.certificate.clone()), ..nobody() };
    let chain = [issuer.certificate.der(), root.certificate.der()].concat();
    let hex = data_encoding::HEXLOWER.encode(&issuer.certificate.fingerprint());
    let name = format!("nvidia/ocsp/{hex}/{}", data_encoding::HEXLOWER.encode(&serial));
    let good = || Answer {
        about: (&issuer.certificate, serial.clone()),
        status: vec![0x80, 0],
        days: (-1, Some(1)),
        by: &responder,
        with: vec![responder.certificate.clone()],
    };
    let verify = |answer: &[u8], trust: &Trust| {
        Snapshot::default().verify(&candidate(&name, answer, Some(chain.clone()), NOW_S), trust, NOW_S)
    };
    let verified = |answer: &Answer<'_>| verify(&answer.encode(), &trust);
    let chains: [&[Certificate]; 1] = [&[device.certificate.clone(), issuer.certificate.clone()]];
    let ages = Ages::default();
    let revoked = |answer: &Answer<'_>| {
        let snapshot = Snapshot::default().with(verified(answer).unwrap(), &mut Marks::none()).unwrap();
        let found = snapshot.nvidia(&[], &chains, &ages, NOW_S);
        assert!(found.missing.is_empty());
        found.revoked
    };
    assert!(revoked(&good()).is_empty());
    assert!(revoked(&Answer { by: &issuer, with: Vec::new(), ..good() }).is_empty());
    let status = der(0xa1, &general_time(-5));
    assert_eq!(revoked(&Answer { status, ..good() }), [device.certificate.fingerprint()]);
    let missing = Snapshot::default().nvidia(&[], &chains, &ages, NOW_S).missing;
    assert_eq!(missing[0].what.to_string(), name);

    // The request is the one that such an answer is about.
    let id = certificate_id(&issuer.certificate, &serial);
    let asked = (0..4).fold(id, |inner, _| der(0x30, &inner));
    assert_eq!(ocsp_request(&issuer.certificate, &serial).unwrap(), asked);

    let unknown = Answer { status: vec![0x82, 0], ..good() };
    let wrong_key = Answer { by: &other, ..good() };
    let no_purpose = Answer { by: &other, with: vec![other.certificate.clone()], ..good() };
    let of_root = Answer { by: &responder_of_root, with: vec![responder_of_root.certificate.clone()], ..good() };
    let of_other = Answer { about: (&issuer.certificate, other.certificate.serial().to_vec()), ..good() };
    let by_other_issuer = Answer { about: (&root.certificate, serial.clone()), ..good() };
    for (what, answer) in [
        ("unknown", unknown),
        ("another key", wrong_key),
        ("a responder without the purpose", no_purpose),
        ("a responder of another issuer", of_root),
        ("another serial number", of_other),
        ("another issuer", by_other_issuer),
        ("not yet", Answer { days: (1, Some(2)), ..good() }),
        ("over", Answer { days: (-3, Some(-1)), ..good() }),
        ("no end", Answer { days: (-1, None), ..good() }),
    ] {
        assert!(matches!(verified(&answer), Err(Refusal::Unverified(_))), "{what}");
    }
    assert!(matches!(verify(&der(0x30, &der(10, &[6])), &trust), Err(Refusal::Unverified(_))));
    assert!(verify(&good().encode(), &nobody()).is_err());
    let whole = good().encode();
    for length in 0..whole.len() {
        assert!(verify(&whole[..length], &trust).is_err(), "cut to {length}");
    }
    // Who answers, and when, is told outside of what decides; all of it is signed.
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        if let Ok(item) = verify(&altered, &trust) {
            let certificate = responder.certificate.der();
            let start = whole.windows(certificate.len()).position(|window| window == certificate).unwrap();
            assert!(at >= start, "byte {at} altered: {item:?}");
        }
    }
    let mut cut = candidate(&name, whole, None, NOW_S);
    assert!(Snapshot::default().verify(&cut, &trust, NOW_S).is_err());
    cut.chain = Some(root.certificate.der().to_vec());
    assert!(matches!(Snapshot::default().verify(&cut, &trust, NOW_S), Err(Refusal::OtherThanAsked(_))));
}
