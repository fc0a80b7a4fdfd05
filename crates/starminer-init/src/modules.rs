//! The kernel modules that the image lists, in its order. The kernel takes signed ones only.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::system::finit_module;

/// Paths of modules, one a line, each after those that it needs.
const LIST: &str = "/etc/modules";

/// Loads them.
///
/// One whose hardware is not there is passed over: an image serves more than one kind of machine.
pub fn load_all() -> Result<()> {
    let list = fs::read_to_string(LIST).context(LIST)?;
    for path in list.lines() {
        let file = File::open(path).with_context(|| path.to_owned())?;
        match finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NODEV) => crate::say(&format!("{path}: no such device here")),
            Err(error) => return Err(error).with_context(|| format!("{path} cannot be loaded")),
        }
    }
    crate::mounts::mount_configfs()
}
