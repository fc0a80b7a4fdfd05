#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

fn machine(files: &[(&str, &str)]) -> Found {
    let root = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let place = root.path().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, contents).unwrap();
    }
    Found::look(root.path())
}

const SNP: [(&str, &str); 3] = [("dev/kvm", ""), ("dev/sev", ""), ("sys/module/kvm_amd/parameters/sev_snp", "Y\n")];
const TDX: [(&str, &str); 2] = [("dev/kvm", ""), ("sys/module/kvm_intel/parameters/tdx", "1\n")];

fn check(found: &Found, wanted: Wanted, accelerator: Option<Accelerator>, expected: Result<(Kind, Accelerator), &str>) {
    match (choose(wanted, accelerator, found), expected) {
        (Ok(choice), Ok(expected)) => assert_eq!((choice.kind, choice.accelerator), expected, "{choice:?}"),
        (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
        (choice, _) => panic!("{wanted:?}: {choice:?}"),
    }
}

#[test]
fn the_best_that_there_is_is_chosen() {
    use Accelerator::{Kvm, Tcg};
    let (nothing, kvm, snp, tdx) = (machine(&[]), machine(&SNP[..1]), machine(&SNP), machine(&TDX));
    check(&nothing, Wanted::Auto, None, Ok((Kind::None, Tcg)));
    check(&kvm, Wanted::Auto, None, Ok((Kind::None, Kvm)));
    check(&snp, Wanted::Auto, None, Ok((Kind::Snp, Kvm)));
    check(&tdx, Wanted::Auto, None, Ok((Kind::Tdx, Kvm)));
    check(&snp, Wanted::None, None, Ok((Kind::None, Kvm)));
    check(&snp, Wanted::Auto, Some(Tcg), Ok((Kind::None, Tcg)));
    check(&nothing, Wanted::None, Some(Kvm), Ok((Kind::None, Kvm)));
}

#[test]
fn what_is_not_there_is_not_run_as_something_else() {
    let (nothing, snp, tdx) = (machine(&[]), machine(&SNP), machine(&TDX));
    check(&nothing, Wanted::Snp, None, Err("there is no /dev/kvm"));
    check(&tdx, Wanted::Snp, None, Err("kvm_amd has no parameter sev_snp"));
    check(&snp, Wanted::Tdx, None, Err("kvm_intel has no parameter tdx"));
    check(&snp, Wanted::Snp, Some(Accelerator::Tcg), Err("software was asked for"));
    let off = machine(&[SNP[0], SNP[1], (SNP[2].0, "N\n")]);
    check(&off, Wanted::Snp, None, Err("the parameter sev_snp of kvm_amd is off"));
    check(&machine(&[SNP[0], SNP[2]]), Wanted::Snp, None, Err("there is no /dev/sev"));
}

#[test]
fn the_choice_says_why() {
    let choice = choose(Wanted::Auto, None, &machine(&SNP[..1])).unwrap();
    for part in
        ["there is KVM", "no SEV-SNP: kvm_amd has no parameter sev_snp", "no TDX: kvm_intel has no parameter tdx"]
    {
        assert!(choice.why.contains(part), "{}", choice.why);
    }
}
