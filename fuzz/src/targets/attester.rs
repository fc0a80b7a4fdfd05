//! The target of `starminer-attester`: its key files.

use starminer_attester::{SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_verify::software_tee::{DebugMode, MemoryEncryption};

use super::with_file;
use crate::Outcome;
use crate::world::{BOOT, MEASUREMENT};

pub fn key_files(data: &[u8]) -> Outcome {
    let settings = SoftwareTeeSettings {
        measurement: MEASUREMENT,
        boot: BOOT,
        debug: DebugMode::Off,
        memory_encryption: MemoryEncryption::NotClaimed,
        tcb_version: 1,
    };
    with_file(data, |path| {
        let beside = path.with_extension("saved");
        let root = SimulatedRoot::load(path);
        if let Ok(root) = &root {
            root.save(&beside).expect("room for a key file");
            let again = SimulatedRoot::load(&beside).expect("what was saved can be loaded");
            assert_eq!(again.id(), root.id());
            std::fs::remove_file(&beside).expect("it was just written");
        }
        let device = SoftwareTee::load(path, settings);
        if let Ok(device) = &device {
            device.save(&beside).expect("room for a key file");
            let again = SoftwareTee::load(&beside, settings).expect("what was saved can be loaded");
            assert_eq!(again.certificate(), device.certificate());
            std::fs::remove_file(&beside).expect("it was just written");
        }
        assert!(root.is_err() || device.is_err(), "a file is of one kind");
        Outcome::of(&root, |error| error.code()).and(Outcome::of(&device, |error| error.code()))
    })
}
