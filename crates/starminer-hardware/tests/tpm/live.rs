//! Against a running TPM: quotes of every scheme, credentials that it opens, its certificates, a reset between two quotes.

use starminer_hardware::{
    cert::{Certificate, Provenance},
    tpm::{
        AttestationKey, Context, HashAlg, Hierarchy, Parent, PcrIndex, PcrValues, Public, Quote, Template, Verified,
        clock::continuity,
        credential::{Randomness, make_credential},
        ek::{self, EkCertificate},
        verify,
    },
};

use crate::{emulator::Tpm, failed};

const EK: &str = "0x81010009";
/// Where `swtpm_setup` keeps the endorsement key of its P-384 certificate.
const EK_P384: &str = "0x81010016";

/// Name, key, hash, scheme, whether `tpm2_checkquote` can check it.
const KEYS: [(&str, &str, &str, &str, bool); 6] = [
    ("rsassa-sha256", "rsa", "sha256", "rsassa", true),
    ("rsassa-sha384", "rsa", "sha384", "rsassa", true),
    ("rsapss-sha256", "rsa", "sha256", "rsapss", false),
    ("rsapss-sha384", "rsa", "sha384", "rsapss", false),
    ("ecdsa-sha256", "ecc", "sha256", "ecdsa", true),
    ("ecdsa-sha384", "ecc384", "sha384", "ecdsa", true),
];

fn quote(tpm: &Tpm, (name, _, hash, scheme, _): (&str, &str, &str, &str, bool), nonce: &[u8]) {
    let nonce = data_encoding::HEXLOWER.encode(nonce);
    tpm.run(&format!(
        "tpm2_quote -c {name}.ctx -l sha1:0+sha256:0,7,16+sha384:4 -q {nonce} -m {name}.msg -s {name}.sig -o {name}.pcrs -g {hash} --scheme {scheme}"
    ));
    tpm.run("tpm2_flushcontext -t");
}

fn verified(tpm: &Tpm, name: &str, nonce: &[u8], ek: &Public) -> Verified {
    let ak = AttestationKey::parse(&tpm.file(&format!("{name}.pub"))).unwrap();
    let quote = Quote::parse(&tpm.file(&format!("{name}.msg")), &tpm.file(&format!("{name}.sig"))).unwrap();
    let pcrs = PcrValues::parse(&tpm.file(&format!("{name}.pcrs")), quote.selections()).unwrap();
    let parent = Parent::Key(ek, Hierarchy::Endorsement);
    let verification = verify(&quote, &Context { nonce, ak: &ak, parent, pcrs: Some(&pcrs), maker: None });
    assert!(verification.checks.hold(), "{name}: {:#?}", verification.checks);
    verification.verified.unwrap()
}

fn create_ek(tpm: &Tpm) -> Public {
    tpm.run(&format!("tpm2_createek -c {EK} -G rsa -u ek.pub"));
    let ek = Public::parse(&tpm.file("ek.pub")).unwrap();
    assert_eq!(Template::of(&ek), Some(Template::Low));
    ek
}

fn create_ak(tpm: &Tpm, (name, key, hash, scheme, _): (&str, &str, &str, &str, bool)) {
    tpm.run(&format!(
        "tpm2_createak -C {EK} -c {name}.ctx -G {key} -g {hash} -s {scheme} -u {name}.pub -n {name}.name"
    ));
    tpm.run("tpm2_flushcontext -t");
}

#[test]
fn quotes_of_every_scheme() {
    let Some(tpm) = Tpm::start() else { return };
    let ek = create_ek(&tpm);
    let nonce = [0x5a; 32];
    tpm.run(&format!("tpm2_pcrextend 16:sha256={}", "11".repeat(32)));
    for key in KEYS {
        let name = key.0;
        create_ak(&tpm, key);
        quote(&tpm, key, &nonce);
        let quoted = verified(&tpm, name, &nonce, &ek);
        assert_eq!(quoted.ak().name.as_deref(), Some(&tpm.file(&format!("{name}.name"))[..]), "{name}");
        assert_eq!(quoted.ak().scheme.name(), name);
        assert_ne!(quoted.pcrs().unwrap().value(HashAlg::Sha256, 16), Some(&[0; 32][..]));
        // The reference tool agrees, on the good one and on an altered one.
        let check = |message: &str| {
            tpm.try_run(&format!(
                "tpm2_checkquote -u {name}.pub -m {message} -s {name}.sig -f {name}.pcrs -g {} -q {}",
                key.2,
                data_encoding::HEXLOWER.encode(&nonce)
            ))
        };
        if key.4 {
            let good = check(&format!("{name}.msg"));
            assert!(good.status.success(), "{name}: {good:?}");
            let mut altered = tpm.file(&format!("{name}.msg"));
            *altered.last_mut().unwrap() ^= 1;
            tpm.write("altered.msg", &altered);
            assert!(!check("altered.msg").status.success());
        }
    }
    // Other forms of key, signature and values.
    tpm.run("tpm2_readpublic -c ecdsa-sha256.ctx -f pem -o ak.pem");
    tpm.run("tpm2_flushcontext -t");
    tpm.run("tpm2_quote -c ecdsa-sha256.ctx -l sha256:0,7 -q 5a5a -m plain.msg -s plain.sig -o plain.pcrs -F values -f plain -g sha256 --scheme ecdsa");
    let plain = Quote::parse(&tpm.file("plain.msg"), &tpm.file("plain.sig")).unwrap();
    let pcrs = PcrValues::parse(&tpm.file("plain.pcrs"), plain.selections()).unwrap();
    let whole = AttestationKey::parse(&tpm.file("ecdsa-sha256.pub")).unwrap();
    let bare = AttestationKey::parse(&tpm.file("ak.pem")).unwrap();
    let context = Context { nonce: &[0x5a, 0x5a], ak: &whole, parent: Parent::Unknown, pcrs: Some(&pcrs), maker: None };
    assert!(verify(&plain, &context).verified.is_some(), "{:#?}", verify(&plain, &context).checks);
    assert_eq!(
        failed(&verify(&plain, &Context { ak: &bare, ..context }).checks),
        ["tpm.ak-scheme"],
        "neither says how it was signed"
    );
    let said = Quote::parse(&tpm.file("ecdsa-sha256.msg"), &tpm.file("ecdsa-sha256.sig")).unwrap();
    let verification = verify(&said, &Context { nonce: &nonce, ak: &bare, pcrs: None, ..context });
    assert!(verification.verified.unwrap().ak().attributes.is_none());
}

#[test]
fn a_reset_is_seen() {
    let Some(mut tpm) = Tpm::start() else { return };
    let ek = create_ek(&tpm);
    let key = KEYS[4];
    // A primary key in the owner's hierarchy would do as well; this one is loaded anew after the reset.
    tpm.run(&format!("tpm2_createak -C {EK} -c ak.ctx -G ecc -g sha256 -s ecdsa -u {0}.pub -r ak.priv", key.0));
    tpm.run("tpm2_flushcontext -t");
    let load = |tpm: &Tpm| {
        tpm.run("tpm2_startauthsession --policy-session -S session.ctx");
        tpm.run("tpm2_policysecret -S session.ctx -c e");
        tpm.run(&format!("tpm2_load -C {EK} -u {0}.pub -r ak.priv -c {0}.ctx -P session:session.ctx", key.0));
        tpm.run("tpm2_flushcontext session.ctx");
        tpm.run("tpm2_flushcontext -t");
    };
    let take = |tpm: &Tpm, nonce: &[u8]| {
        quote(tpm, key, nonce);
        verified(tpm, key.0, nonce, &ek)
    };
    load(&tpm);
    let first = take(&tpm, b"one");
    let second = take(&tpm, b"two");
    let between = continuity(&first, &second, &[]);
    assert!(between.hold(), "{between:#?}");
    assert!(failed(&continuity(&second, &first, &[])).contains(&"tpm.clock-advanced".to_owned()));
    assert_eq!(failed(&continuity(&first, &first, &[])), ["tpm.clock-advanced"], "the same quote again");
    tpm.run(&format!("tpm2_pcrextend 16:sha256={}", "22".repeat(32)));
    let third = take(&tpm, b"three");
    assert_eq!(failed(&continuity(&second, &third, &[])), ["tpm.pcrs-unchanged"]);
    let free = [(HashAlg::Sha256, PcrIndex::new(16).unwrap())];
    assert!(continuity(&second, &third, &free).hold());
    tpm.reset();
    load(&tpm);
    let fourth = take(&tpm, b"four");
    let over = failed(&continuity(&third, &fourth, &free));
    assert!(over.contains(&"tpm.reset-count".to_owned()), "{over:?}");
}

#[test]
fn credentials_are_opened_by_their_tpm_alone() {
    let Some(tpm) = Tpm::start() else { return };
    let rsa = create_ek(&tpm);
    create_ak(&tpm, KEYS[4]);
    let name = tpm.file("ecdsa-sha256.name");
    tpm.run("tpm2_createek -c ecc.ctx -G ecc -u ecc.pub");
    tpm.run("tpm2_flushcontext -t");
    let p256 = Public::parse(&tpm.file("ecc.pub")).unwrap();
    assert_eq!(Template::of(&p256), Some(Template::Low));
    tpm.run(&format!("tpm2_readpublic -c {EK_P384} -o p384.pub"));
    let p384 = Public::parse(&tpm.file("p384.pub")).unwrap();
    assert_eq!(Template::of(&p384), Some(Template::High));
    let activate = |ek: &str, low: bool| {
        let _ = std::fs::remove_file(tpm.dir.path().join("opened"));
        let session = if low { "-P session:session.ctx" } else { "" };
        if low {
            tpm.run("tpm2_startauthsession --policy-session -S session.ctx");
            tpm.run("tpm2_policysecret -S session.ctx -c e");
        }
        let output = tpm
            .try_run(&format!("tpm2_activatecredential -c ecdsa-sha256.ctx -C {ek} -i credential -o opened {session}"));
        if low {
            let _ = tpm.try_run("tpm2_flushcontext session.ctx");
        }
        tpm.run("tpm2_flushcontext -t");
        output
    };
    let make = |ek: &Public, name: &[u8], secret: &[u8]| {
        let randomness = Randomness { seed: [0x42; 64].into(), ephemeral: [0x42; 64].into() };
        let credential = make_credential(ek, name, secret, randomness).unwrap();
        tpm.write("credential", &credential.to_tpm2_tools());
        credential
    };
    for (public, handle, low) in [(&rsa, EK, true), (&p256, "ecc.ctx", true), (&p384, EK_P384, false)] {
        for secret in [&b"x"[..], b"a secret of thirty-two bytes....".as_slice()] {
            make(public, &name, secret);
            let output = activate(handle, low);
            assert!(output.status.success(), "{handle}: {output:?}");
            assert_eq!(tpm.file("opened"), secret, "{handle}");
        }
        // For a key of another name, or altered.
        let mut other = name.clone();
        other[10] ^= 1;
        let mut credential = make(public, &other, b"secret");
        assert!(!activate(handle, low).status.success(), "{handle}: opened for another key");
        credential = {
            let _ = credential;
            make(public, &name, b"secret")
        };
        *credential.credential_blob.last_mut().unwrap() ^= 1;
        tpm.write("credential", &credential.to_tpm2_tools());
        assert!(!activate(handle, low).status.success(), "{handle}: opened although altered");
    }
}

#[test]
fn certificates_by_the_local_authority() {
    let Some(tpm) = Tpm::start() else { return };
    let rsa = create_ek(&tpm);
    tpm.run(&format!("tpm2_readpublic -c {EK_P384} -o p384.pub"));
    let p384 = Public::parse(&tpm.file("p384.pub")).unwrap();
    let root = Certificate::read_one(&tpm.file("ca/swtpm-localca-rootca-cert.pem")).unwrap();
    let authorities = [Certificate::read_one(&tpm.file("ca/issuer.pem")).unwrap(), root.clone()];
    let now_s = u64::try_from(root.not_before_s()).unwrap() + 3600;
    for (file, key, other) in [("ek-rsa2048.crt", &rsa, &p384), ("ek-secp384r1.crt", &p384, &rsa)] {
        let certificate = EkCertificate::parse(&tpm.file(file)).unwrap();
        let verification = ek::verify(&certificate, &ek::Context { authorities: &authorities, crls: &[], now_s });
        assert!(verification.checks.hold(), "{file}: {:#?}", verification.checks);
        let verified = verification.verified.unwrap();
        assert_eq!(verified.provenance(), Provenance::Simulated { root: root.fingerprint() });
        assert!(verified.endorses(key).hold(), "{file}: {:#?}", verified.endorses(key));
        assert!(!verified.endorses(other).hold());
    }
    // As NV storage has it.
    tpm.run("tpm2_nvread 0x1c00002 -o nv.der");
    let stored = EkCertificate::parse(&tpm.file("nv.der")).unwrap();
    assert!(ek::verify(&stored, &ek::Context { authorities: &authorities, crls: &[], now_s }).verified.is_some());
}
