//! What the host's storage does to a task's bytes ends the run; it never reaches the guest as data or as an error code.

use std::sync::{Arc, Mutex};

use starminer_vault::object::{SealOptions, seal_bytes};
use starminer_vault::scratch::{Opening, Scratch, ScratchContext, ScratchOptions};
use starminer_vault::{ObjectContext, ObjectReader, Purpose, Salt, TaskSecret};

use crate::HostFault;
use crate::fs::*;

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([1; 32])
}

#[test]
fn an_altered_input_is_a_host_fault() {
    let context = ObjectContext { task: [7; 16], name: "input", purpose: Purpose::Input };
    let plain = vec![5; 300_000];
    let (mut sealed, _) =
        seal_bytes(&secret(), &context, Salt::from_random([2; 32]), SealOptions::default(), &plain).unwrap();
    sealed[100_000] ^= 1;
    let len = sealed.len() as u64;
    let mut fs = super::store::task_fs(0);
    fs.add_input("data", ObjectReader::open(&secret(), &context, sealed, len).unwrap()).unwrap();
    let inputs = fs.open_grant(Grant::Inputs).unwrap();
    let file = fs.open_at(&inputs, "data", OpenHow { read: true, ..OpenHow::default() }).unwrap();
    let mut buffer = [0; 1000];
    assert_eq!(fs.read(&file, 200_000, &mut buffer), Ok(1000), "chunks that are whole still read");
    assert_eq!(fs.read(&file, 100_000, &mut buffer), Err(FsError::Host(HostFault::INPUT)));
}

#[test]
fn an_altered_scratch_page_is_a_host_fault_and_no_plaintext_is_in_the_store() {
    let store = Arc::new(Mutex::new(Vec::new()));
    let context = ScratchContext { task: [7; 16], name: "scratch" };
    let opening = Opening { salt: Salt::from_random([3; 32]), attempt: 1 };
    let options = ScratchOptions { cache_pages: 1, ..ScratchOptions::default() };
    let scratch = Scratch::create(store.clone(), &secret(), &context, opening, options).unwrap();
    let mut fs = TaskFs::new(scratch, 1 << 30);
    let out = fs.open_grant(Grant::Outputs).unwrap();
    let how = OpenHow { create: true, read: true, write: true, ..OpenHow::default() };
    let file = fs.open_at(&out, "file", how).unwrap();
    let canary = b"CANARY-scratch-page-5d1f";
    for _ in 0..20_000 {
        fs.append(&file, canary).unwrap();
    }
    let mut bytes = store.lock().unwrap();
    assert!(bytes.len() > 300_000, "pages have left the cache");
    assert!(!bytes.windows(canary.len()).any(|window| window == canary));
    for byte in bytes.iter_mut() {
        *byte ^= 1;
    }
    drop(bytes);
    assert_eq!(fs.read(&file, 0, &mut [0; 10]), Err(FsError::Host(HostFault::SCRATCH)));
}
