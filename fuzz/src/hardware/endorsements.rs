//! Endorsements that hold at one time, under makers' roots and those of the test authorities of `fuzz/data`.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Value, json};
use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::endorsements::{Candidate, Item, Key, Marks, Object, Snapshot, Trust};
use starminer_hardware::nvidia;

use super::{DCAP, MADE_QUOTES, MANIFESTS, NOW_S as MANIFESTS_NOW_S, SIGNED, SNP, made, own};

/// When they are judged: when the test authorities' own count.
pub const NOW_S: u64 = 1_780_000_000;
const SOURCE: &str = "https://endorsements.example";
/// What the text of a snapshot's digest begins with (`specs/endorsements.md`).
const TITLE: &str = "starminer endorsement snapshot v1\n";

/// A candidate that is good in itself, or beside others.
fn candidate(key: &str, content: Vec<u8>, chain: Option<Vec<u8>>) -> Candidate {
    let key = key.parse().unwrap_or_else(|_| panic!("{key} is a key"));
    Candidate { key, content, chain, fetched_s: NOW_S, source: SOURCE.to_owned() }
}

/// A file of endorsements as its parts come from Intel.
fn intel(json: &[u8]) -> Vec<Candidate> {
    let file: Value = serde_json::from_slice(json).expect("JSON");
    let text = |name: &str| file[name].as_str().expect("a text").to_owned();
    let unhex = |name: &str| HEXLOWER_PERMISSIVE.decode(text(name).as_bytes()).expect("hexadecimal");
    let info: Value = serde_json::from_str(&text("tcb_info")).expect("JSON");
    let tee = if info["id"] == "SGX" { "sgx" } else { "tdx" };
    let fmspc = info["fmspc"].as_str().expect("a text").to_ascii_lowercase();
    let authority = Certificate::read(text("pck_crl_issuer_chain").as_bytes()).expect("certificates");
    let by = authority.first().and_then(Certificate::common_name).unwrap_or_default();
    let ca = if by.contains("Platform") { "platform" } else { "processor" };
    let answer = |member: &str, name: &str| {
        let (text, signature) = (text(name), text(&format!("{name}_signature")));
        format!("{{\"{member}\":{text},\"signature\":\"{signature}\"}}").into_bytes()
    };
    let chain = |name: &str| Some(text(name).into_bytes());
    vec![
        candidate("intel/root-crl", unhex("root_ca_crl"), None),
        candidate(&format!("intel/pck-crl/{ca}"), unhex("pck_crl"), chain("pck_crl_issuer_chain")),
        candidate(
            &format!("intel/tcb-info/{tee}/{fmspc}"),
            answer("tcbInfo", "tcb_info"),
            chain("tcb_info_issuer_chain"),
        ),
        candidate(
            &format!("intel/qe-identity/{tee}"),
            answer("enclaveIdentity", "qe_identity"),
            chain("qe_identity_issuer_chain"),
        ),
    ]
}

/// What test authorities made in place of makers of TPMs and GPUs: their roots, and endorsements.
struct Others {
    tpm_root: Certificate,
    nvidia_root: Certificate,
    endorsements: Vec<Candidate>,
}

static OTHERS: LazyLock<Others> = LazyLock::new(|| {
    let file: Value = serde_json::from_slice(&made("others", "json")).expect("JSON");
    let root = |name: &str| {
        let der = BASE64.decode(file[name].as_str().expect("a text").as_bytes()).expect("base64");
        Certificate::from_der(&der).expect("a certificate")
    };
    let all = file["endorsements"].as_array().expect("a list").iter();
    let endorsements = all.map(|one| decode(one.to_string().as_bytes()).expect("a candidate")).collect();
    Others { tpm_root: root("tpm_root"), nvidia_root: root("nvidia_root"), endorsements }
});

/// Makers and test authorities.
pub static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let mut trust = Trust::genuine();
    for name in MADE_QUOTES {
        trust.intel.add(Certificate::from_der(&made(name, "root")).expect("a certificate"));
    }
    trust.nvidia = trust.nvidia.with_device(OTHERS.nvidia_root.clone());
    trust.tpm.add(OTHERS.tpm_root.clone());
    trust
});

/// Candidates with names of files for them, in sets that go into one snapshot. All of them hold beside those before them.
pub static HONEST: LazyLock<Vec<(String, Vec<Candidate>)>> = LazyLock::new(|| {
    let milan = &SNP[0];
    let (product, key) = (milan.key.product().claim(), &milan.key);
    let vcek = format!(
        "amd/vcek/{product}/{}/{}",
        HEXLOWER.encode(key.chip_id().expect("a chip's")),
        HEXLOWER.encode(&key.tcb().0)
    );
    let ders = |certificates: &[Certificate]| -> Vec<u8> {
        certificates.iter().flat_map(|certificate| certificate.der().to_vec()).collect()
    };
    let ask = Certificate::read(&own("roots/amd/milan_ask.pem")).expect("a certificate");
    let mut all = vec![
        (
            "amd".to_owned(),
            vec![
                candidate(&format!("amd/chain/{product}/vcek"), ders(&ask), None),
                candidate(&vcek, ders(&milan.certificates[..1]), None),
            ],
        ),
        ("others".to_owned(), OTHERS.endorsements.clone()),
    ];
    for (name, known) in MADE_QUOTES.iter().zip(DCAP.iter()) {
        all.push(((*name).to_owned(), intel(&known.json)));
    }
    all
});

/// A snapshot of one set each of AMD's, Intel's and others', and its marks.
pub static KEPT: LazyLock<(Snapshot, Marks)> = LazyLock::new(|| {
    let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
    for candidate in HONEST.iter().take(3).flat_map(|(_, set)| set) {
        let item = snapshot.verify(candidate, &TRUST, NOW_S);
        let item = item.unwrap_or_else(|refusal| panic!("{}: {refusal}", candidate.key));
        snapshot = snapshot.with(item, &mut marks).expect("it is the first of its key");
    }
    (snapshot, marks)
});

type Lists = HashSet<Vec<u8>>;
type Texts = Vec<Vec<u8>>;

/// What Intel, or a test authority in its place, signed: lists, and texts of TCB data.
static INTELS: LazyLock<(Lists, Texts)> = LazyLock::new(|| {
    let (mut lists, mut texts) = (HashSet::new(), Vec::new());
    for known in DCAP.iter() {
        let file: Value = serde_json::from_slice(&known.json).expect("JSON");
        for name in ["root_ca_crl", "pck_crl"] {
            let der = HEXLOWER_PERMISSIVE.decode(file[name].as_str().expect("a text").as_bytes());
            lists.insert(der.expect("hexadecimal"));
        }
        texts.extend(["tcb_info", "qe_identity"].map(|name| file[name].as_str().expect("a text").as_bytes().to_vec()));
    }
    (lists, texts)
});

/// What the known manifests are about.
static RIMS: LazyLock<Vec<nvidia::RimClaims>> = LazyLock::new(|| {
    let verified = |bytes: &Vec<u8>| {
        let rim = nvidia::Rim::parse(bytes).expect("a manifest");
        nvidia::verify_rim(&rim, &TRUST.nvidia, MANIFESTS_NOW_S).1.expect("NVIDIA's manifest")
    };
    MANIFESTS.iter().map(verified).collect()
});

/// Asserts that an item is what somebody honest signed.
///
/// # Panics
/// Where it is not.
pub fn check_item(item: &Item) {
    let (key, content) = (item.key(), item.content().bytes());
    assert_eq!(key.to_string().parse().as_ref(), Ok(key), "a key has one text");
    assert!(item.facts().until_s >= NOW_S, "{key}: it is over");
    // In DER, and so as it was made.
    let known_other = || OTHERS.endorsements.iter().any(|known| known.content == content);
    let known_list = || {
        let list = Crl::from_der(content).expect("kept in DER");
        SIGNED.lists.contains(&list) || INTELS.0.contains(content) || known_other()
    };
    let known = match key {
        Key::AmdVcek { .. } | Key::AmdVlek { .. } | Key::AmdChain { .. } | Key::TpmAuthority { .. } => {
            let certificates = Certificate::read(content).expect("kept in DER");
            let known = |one: &Certificate| SIGNED.fingerprints.contains(&one.fingerprint()) || known_other();
            certificates.iter().all(known)
        }
        Key::AmdCrl { .. } | Key::IntelPckCrl { .. } | Key::IntelRootCrl | Key::TpmCrl { .. } => known_list(),
        Key::IntelTcbInfo { .. } | Key::IntelQeIdentity { .. } => {
            INTELS.1.iter().any(|text| content.windows(text.len()).any(|window| window == text))
        }
        Key::NvidiaRim { .. } => {
            let rim = nvidia::Rim::parse(content).expect("it was read before");
            let (_, claims) = nvidia::verify_rim(&rim, &TRUST.nvidia, NOW_S);
            claims.is_some_and(|claims| RIMS.contains(&claims))
        }
        Key::NvidiaOcsp { .. } => KEPT.0.item(key).is_some_and(|honest| item.facts() == honest.facts()),
        _ => false,
    };
    assert!(known, "{key}: an endorsement that nobody signed");
}

/// A candidate as the targets read it.
#[must_use]
pub fn encode(candidate: &Candidate) -> Vec<u8> {
    let chain = candidate.chain.as_deref().unwrap_or_default();
    json!({
        "key": candidate.key.to_string(),
        "content": BASE64.encode(&candidate.content),
        "chain": BASE64.encode(chain),
    })
    .to_string()
    .into_bytes()
}

/// See [`encode`].
#[must_use]
pub fn decode(data: &[u8]) -> Option<Candidate> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let bytes = |name: &str| BASE64.decode(value[name].as_str()?.as_bytes()).ok();
    let (key, content, chain) = (value["key"].as_str()?.parse().ok()?, bytes("content")?, bytes("chain")?);
    let chain = (!chain.is_empty()).then_some(chain);
    Some(Candidate { key, content, chain, fetched_s: NOW_S, source: SOURCE.to_owned() })
}

/// A bundle with the digests that its altered parts have: those of a bundle keep nobody out who wants in.
#[must_use]
pub fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    let hash = |bytes: &[u8]| HEXLOWER.encode(Object::new(bytes).sha256());
    let file: Value = serde_json::from_slice(data).ok()?;
    let mut objects = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (name, base64) in file["objects"].as_object()? {
        let new = hash(&BASE64.decode(base64.as_str()?.as_bytes()).ok()?);
        objects.insert(new.clone(), base64.as_str()?);
        names.insert(name.as_str(), new);
    }
    let mut items = BTreeMap::new();
    for item in file["items"].as_array()? {
        let text = |name: &str| item[name].as_str();
        let digest = |name: &str| text(name).map(|text| names.get(text).map_or(text, String::as_str));
        let (key, content, chain, source) = (text("key")?, digest("content")?, digest("chain"), text("source")?);
        let fetched_s = item["fetched_s"].as_u64()?;
        let shown = if source.is_empty() { "-" } else { source };
        let line = format!("{key} {content} {} {fetched_s} {shown}\n", chain.unwrap_or("-"));
        let member = chain.map(|chain| format!(",\"chain\":{}", json!(chain))).unwrap_or_default();
        let (name, content, source) = (json!(key), json!(content), json!(source));
        let entry =
            format!("{{\"key\":{name},\"content\":{content}{member},\"fetched_s\":{fetched_s},\"source\":{source}}}");
        items.insert(key, (line, entry));
    }
    let text: String = std::iter::once(TITLE).chain(items.values().map(|(line, _)| line.as_str())).collect();
    let items: Vec<&str> = items.values().map(|(_, entry)| entry.as_str()).collect();
    let (digest, objects) = (hash(text.as_bytes()), json!(objects));
    let file = format!(
        "{{\"version\":{},\"digest\":\"{digest}\",\"items\":[{}],\"objects\":{objects}}}",
        file["version"],
        items.join(",")
    );
    Some(file.into_bytes())
}
