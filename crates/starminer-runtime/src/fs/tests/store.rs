//! The tests' files lie in a real vault, in memory.

use std::sync::Mutex;

use starminer_vault::object::{SealOptions, seal_bytes};
use starminer_vault::scratch::{Opening, Scratch, ScratchContext, ScratchOptions};
use starminer_vault::{ObjectContext, ObjectReader, Purpose, Salt, TaskSecret};

use crate::fs::*;

const TASK: [u8; 16] = [7; 16];

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([1; 32])
}

/// A sealed input with these bytes.
pub(super) fn input(plain: &[u8]) -> ObjectReader<Vec<u8>> {
    let context = ObjectContext { task: TASK, name: "input", purpose: Purpose::Input };
    let (sealed, _) =
        seal_bytes(&secret(), &context, Salt::from_random([2; 32]), SealOptions::default(), plain).unwrap();
    let len = sealed.len() as u64;
    ObjectReader::open(&secret(), &context, sealed, len).unwrap()
}

pub(super) fn task_fs(quota_bytes: u64) -> TaskFs {
    let context = ScratchContext { task: TASK, name: "scratch" };
    let opening = Opening { salt: Salt::from_random([3; 32]), attempt: 1 };
    // Few pages in memory, so that pages go out and come back.
    let options = ScratchOptions { cache_pages: 4, ..ScratchOptions::default() };
    let scratch = Scratch::create(Mutex::new(Vec::new()), &secret(), &context, opening, options).unwrap();
    TaskFs::new(scratch, quota_bytes)
}
