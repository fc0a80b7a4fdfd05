//! The section `hardware` of a policy: its one form, and that a policy without it is as it always was.

use starminer_verify::{Digest, HardwarePolicy, MAX_DENIED_CHIPS, Policy, PolicyError};

use crate::world::World;

fn with(change: impl FnOnce(&mut HardwarePolicy)) -> Result<Policy, PolicyError> {
    let mut hardware = HardwarePolicy::strict();
    change(&mut hardware);
    let mut fields = Policy::confidential().fields().clone();
    fields.hardware = Some(Box::new(hardware));
    Policy::new(fields)
}

#[test]
fn a_policy_without_the_section_has_the_bytes_and_the_digest_that_it_had() {
    const JSON: &str = concat!(
        r#"{"version":1,"minimum_tier":"confidential","operator_may_read_memory":"no","accepted_simulated_roots":[],"#,
        r#""evidence_max_age_ms":60000,"minimum_tcb":{"software_tee":1},"minimum_posture":{"sandbox":["no_network","#,
        r#""no_new_privileges","seccomp","rlimits","keys_locked"],"host":[]}}"#
    );
    let policy = Policy::parse(JSON.as_bytes()).unwrap();
    let sorted = String::from_utf8(policy.to_json()).unwrap();
    assert!(!sorted.contains("hardware"), "{sorted}");
    assert_eq!(sorted, JSON);
    assert_eq!(policy.digest(), starminer_verify::tagged_hash("policy", &[JSON.as_bytes()]));
    assert_eq!(*policy.hardware(), HardwarePolicy::strict());
    // `null` is not the same as leaving it out: there is one form.
    let null = JSON.replace(r#""host":[]}}"#, r#""host":[]},"hardware":null}"#);
    assert_ne!(null, JSON);
    assert!(Policy::parse(null.as_bytes()).map_or(true, |policy| policy.to_json() == JSON.as_bytes()));
}

#[test]
fn written_out_it_reads_back_as_itself_in_json_and_toml() {
    let world = World::new();
    for policy in [with(|_| {}).unwrap(), world.policy(&[], |_| {})] {
        let json = policy.to_json();
        assert_eq!(Policy::parse(&json).unwrap(), policy);
        assert_ne!(policy.digest(), Policy::confidential().digest());
        let text = toml::to_string(policy.fields()).unwrap();
        let read: Policy = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((read.digest(), read), (policy.digest(), policy));
    }
}

#[test]
fn every_field_is_written_and_none_is_unknown() {
    let policy = with(|_| {}).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&policy.to_json()).unwrap();
    let sections = json["hardware"].as_object().unwrap();
    assert_eq!(sections.len(), 7);
    let read = |json: &serde_json::Value| Policy::parse(&serde_json::to_vec(json).unwrap());
    for (section, rules) in sections {
        let mut less = json.clone();
        less["hardware"].as_object_mut().unwrap().remove(section);
        assert_eq!(read(&less), Err(PolicyError::Malformed), "{section}");
        for name in rules.as_object().unwrap().keys() {
            let mut less = json.clone();
            less["hardware"][section].as_object_mut().unwrap().remove(name);
            assert_eq!(read(&less), Err(PolicyError::Malformed), "{section}.{name}");
            let mut other = json.clone();
            other["hardware"][section][name] = serde_json::json!([[1]]);
            assert_eq!(read(&other), Err(PolicyError::Malformed), "{section}.{name}");
        }
        let mut more = json.clone();
        more["hardware"][section]["extra"] = 1.into();
        assert_eq!(read(&more), Err(PolicyError::Malformed), "{section}");
    }
    let mut more = json.clone();
    more["hardware"]["extra"] = 1.into();
    assert_eq!(read(&more), Err(PolicyError::Malformed));
}

#[test]
fn lists_have_one_order_and_no_entry_twice() {
    let digest = |byte| Digest([byte; 32]);
    let a = with(|hardware| hardware.chips.denied = vec![digest(1), digest(2)]).unwrap();
    let b = with(|hardware| hardware.chips.denied = vec![digest(2), digest(1)]).unwrap();
    assert_eq!(a.digest(), b.digest());
    let twice = |list| Err(PolicyError::Twice { list });
    assert_eq!(with(|h| h.chips.denied = vec![digest(1), digest(1)]), twice("hardware.chips.denied"));
    assert_eq!(with(|h| h.sev_snp.vmpl = vec![1, 0, 1]), twice("hardware.sev_snp.vmpl"));
    assert_eq!(with(|h| h.sev_snp.cloud_ids = vec!["a".into(), "a".into()]), twice("hardware.sev_snp.cloud_ids"));
    let many = |count: usize| {
        with(|hardware| hardware.chips.denied = (0..count).map(|at| Digest::of(&at.to_be_bytes())).collect())
    };
    assert!(many(MAX_DENIED_CHIPS).is_ok());
    assert_eq!(many(MAX_DENIED_CHIPS + 1), Err(PolicyError::TooManyChips));
    let full = many(MAX_DENIED_CHIPS).unwrap();
    assert_eq!(Policy::parse(&full.to_json()).unwrap(), full, "the most chips fit into the longest policy");
}
