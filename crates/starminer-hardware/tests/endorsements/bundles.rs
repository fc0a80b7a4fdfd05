//! Bundles: one encoding, damage and lies refused.

use proptest::prelude::*;
use serde_json::Value;
use starminer_hardware::{
    cert::Roots,
    endorsements::{Bundle, BundleError, Marks, Refusal, Snapshot, Trust, encode},
};

use super::{
    add, intel, nobody,
    pki::{Form, NOW_S, World},
};

fn made() -> (World, Trust, Snapshot) {
    let world = World::new(Form::Sgx3);
    let trust = Trust { intel: world.roots(), ..nobody() };
    let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
    for one in intel(&world.json(), NOW_S) {
        add(&mut snapshot, &mut marks, &trust, NOW_S, &one).unwrap();
    }
    (world, trust, snapshot)
}

#[test]
fn the_empty_one() {
    let empty = Snapshot::default();
    let file = encode(&empty);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"starminer endorsement snapshot v1\n");
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    let expected = format!("{{\"version\":1,\"digest\":\"{digest}\",\"items\":[],\"objects\":{{}}}}");
    assert_eq!(String::from_utf8(file.clone()).unwrap(), expected);
    assert_eq!(Bundle::parse(&file).unwrap().digest(), empty.digest());
}

#[test]
fn the_digest_is_of_the_list_that_the_specification_writes() {
    let (_, _, snapshot) = made();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut text = "starminer endorsement snapshot v1\n".to_owned();
    for item in snapshot.items() {
        let chain = item.chain().map_or_else(|| "-".to_owned(), |chain| hex(chain.sha256()));
        let content = hex(item.content().sha256());
        text += &format!("{} {content} {chain} {} {}\n", item.key(), item.fetched_s(), item.source());
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    assert_eq!(digest.as_ref(), snapshot.digest());
}

/// Members in the order of the form, whatever the order of a map in memory.
fn in_order(file: &Value) -> Vec<u8> {
    let member = |of: &Value, name: &str| of.get(name).map(|value| format!("\"{name}\":{value}"));
    let object = |of: &Value, names: &[&str]| {
        let mut members: Vec<String> = names.iter().filter_map(|name| member(of, name)).collect();
        let more = of.as_object().unwrap().keys().filter(|key| !names.contains(&key.as_str()));
        members.extend(more.filter_map(|name| member(of, name)));
        format!("{{{}}}", members.join(","))
    };
    if !file.is_object() {
        return file.to_string().into_bytes();
    }
    let items = file["items"].as_array().unwrap().iter();
    let items: Vec<String> =
        items.map(|item| object(item, &["key", "content", "chain", "fetched_s", "source"])).collect();
    let mut objects: Vec<String> =
        file["objects"].as_object().unwrap().iter().map(|(name, base64)| format!("\"{name}\":{base64}")).collect();
    objects.sort();
    let digest = &file["digest"];
    let (items, objects) = (items.join(","), objects.join(","));
    format!("{{\"version\":{},\"digest\":{digest},\"items\":[{items}],\"objects\":{{{objects}}}}}", file["version"])
        .into_bytes()
}

#[test]
fn damaged_ones() {
    let (_, _, snapshot) = made();
    let whole = encode(&snapshot);
    let file: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(in_order(&file), whole);
    assert!(Bundle::parse(&whole).is_ok());
    // Blanks, other orders and escapes: JSON that means the same, and is none.
    let text = String::from_utf8(whole).unwrap();
    for other in [
        format!(" {text}"),
        format!("{text}\n"),
        text.replacen(",\"digest\"", ", \"digest\"", 1),
        text.replacen("\"key\":\"i", "\"key\":\"\\u0069", 1),
        text.replacen("\"version\":1", "\"version\":01", 1),
    ] {
        assert_ne!(other, text);
        assert_eq!(Bundle::parse(other.as_bytes()).unwrap_err().code(), "bundle.json");
    }
    let parse = |alter: &dyn Fn(&mut Value)| {
        let mut file = file.clone();
        alter(&mut file);
        Bundle::parse(&in_order(&file)).map(|_| ()).unwrap_err()
    };
    let code = |alter: &dyn Fn(&mut Value)| parse(alter).code();
    assert_eq!(code(&|file| file["version"] = 2.into()), "bundle.version");
    assert_eq!(code(&|file| file["digest"] = "00".repeat(32).into()), "bundle.digest");
    assert_eq!(code(&|file| file["items"][0]["fetched_s"] = 1.into()), "bundle.digest");
    assert_eq!(code(&|file| file["items"][0]["source"] = "https://other.example".into()), "bundle.digest");
    assert_eq!(code(&|file| file["items"][0]["source"] = "a b".into()), "bundle.json");
    assert_eq!(code(&|file| file["items"][0]["more"] = 1.into()), "bundle.json");
    assert_eq!(code(&|file| file["items"][0]["key"] = "intel/other".into()), "bundle.json");
    assert_eq!(code(&|file| drop(file["items"].as_array_mut().unwrap().pop())), "bundle.digest");
    assert_eq!(code(&|file| file["items"].as_array_mut().unwrap().reverse()), "bundle.item");
    assert_eq!(
        code(&|file| {
            let first = file["items"][0].clone();
            file["items"].as_array_mut().unwrap().push(first);
        }),
        "bundle.item"
    );
    assert_eq!(
        code(&|file| *file["objects"].as_object_mut().unwrap().values_mut().next().unwrap() = "AAAA".into()),
        "bundle.item"
    );
    assert_eq!(code(&|file| file["objects"] = serde_json::json!({})), "bundle.item");
    assert_eq!(
        code(&|file| drop(file["objects"].as_object_mut().unwrap().insert(
            data_encoding::HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"more").as_ref()),
            data_encoding::BASE64.encode(b"more").into()
        ))),
        "bundle.item"
    );
    assert!(matches!(parse(&|file| *file = 1.into()), BundleError::Json(_)));
}

#[test]
fn lying_ones_are_opened_without_the_lie() {
    let (world, trust, snapshot) = made();
    let bundle = Bundle::parse(&encode(&snapshot)).unwrap();
    // For somebody who trusts nobody there is nothing in it.
    let opened = bundle.open(&Snapshot::default(), &mut Marks::none(), &nobody(), NOW_S);
    assert!(opened.snapshot.is_empty());
    assert_eq!(opened.refused.len(), 4);
    // After its dates likewise.
    let late = bundle.open(&Snapshot::default(), &mut Marks::none(), &trust, NOW_S + 90 * 86_400);
    assert_eq!((late.snapshot.len(), late.refused.len()), (0, 4));
    // And one that goes back takes nothing away.
    let mut older = world;
    older.tcb_info["tcbEvaluationDataNumber"] = 1.into();
    let (mut old, mut marks) = (Snapshot::default(), Marks::none());
    for one in intel(&older.json(), NOW_S) {
        add(&mut old, &mut marks, &trust, NOW_S, &one).unwrap();
    }
    let mut marks = Marks::none();
    let kept = bundle.open(&Snapshot::default(), &mut marks, &trust, NOW_S).snapshot;
    let opened = Bundle::parse(&encode(&old)).unwrap().open(&kept, &mut marks, &trust, NOW_S);
    assert_eq!(opened.refused.len(), 1);
    assert!(matches!(opened.refused[0].1, Refusal::Rollback { .. }));
    assert_eq!(
        opened.snapshot.item(&opened.refused[0].0).unwrap().content(),
        kept.item(&opened.refused[0].0).unwrap().content()
    );
}

#[test]
fn one_root_does_not_vouch_for_another_maker() {
    let (world, _, snapshot) = made();
    let bundle = Bundle::parse(&encode(&snapshot)).unwrap();
    let swapped = Trust { intel: Roots::none(), amd: world.roots(), tpm: world.roots(), ..nobody() };
    assert!(bundle.open(&Snapshot::default(), &mut Marks::none(), &swapped, NOW_S).snapshot.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        static FILE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| encode(&made().2));
        let mut file = FILE.clone();
        let at = at.index(file.len());
        file[at] = byte;
        let _ = Bundle::parse(&file);
        file.truncate(cut.index(file.len()));
        let _ = Bundle::parse(&file);
    }
}
