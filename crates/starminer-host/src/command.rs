//! QEMU's arguments for a machine, and swtpm's for its TPM: pure functions of what the machine is.
//!
//! Sources: qemu-system-x86_64(1); swtpm(8); QEMU's `docs/system/i386/amd-memory-encryption.rst` and `docs/system/i386/tdx.rst`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";
/// The emulated TPM's.
pub const SWTPM: &str = "swtpm";
/// The bit of an address that says that memory is encrypted, on every processor with SEV-SNP so far.
const ENCRYPTION_BIT: u8 = 51;
/// By how many bits it makes addresses shorter.
const REDUCED_ADDRESS_BITS: u8 = 1;
/// The port at which the host's service signs quotes of trust domains (Intel's `qgs`).
const QUOTE_SERVICE_PORT: u16 = 4050;
/// By what the guest knows its data disk.
pub const DISK_SERIAL: &str = "starminer-data";

/// What protects the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp {
        /// QEMU's model of the processor, which the launch digest depends on.
        cpu: String,
    },
    /// Intel TDX.
    Tdx,
    /// Nothing.
    None,
}

/// What runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, in software.
    Tcg,
}

/// What the machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Firmware with its own variables, and a partition with the image: everything is measured into the TPM.
    Partition {
        /// The firmware's code.
        code: PathBuf,
        /// Its variables, which it writes.
        variables: PathBuf,
        /// A directory that becomes the partition.
        partition: PathBuf,
    },
    /// Firmware that is given kernel, initial file system and command line, by whose digests the launch is measured.
    Direct {
        /// The firmware.
        firmware: PathBuf,
        /// The kernel.
        kernel: PathBuf,
        /// The initial file system.
        initrd: PathBuf,
        /// The command line.
        command_line: String,
    },
}

/// The machine's TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmDevice {
    /// swtpm, by the socket that controls it.
    Emulated(PathBuf),
    /// This machine's own.
    Passthrough(PathBuf),
}

/// An emulated TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tpm {
    /// Where it keeps what it knows. Made at the first start.
    pub state: PathBuf,
    /// Where it is controlled.
    pub socket: PathBuf,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What protects its memory.
    pub tee: Tee,
    /// What runs it.
    pub accelerator: Accelerator,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub vcpus: u32,
    /// What it starts.
    pub boot: Boot,
    /// Its TPM.
    pub tpm: Option<TpmDevice>,
    /// Its data disk, in raw form.
    pub disk: Option<PathBuf>,
    /// Where QEMU takes orders (QMP).
    pub orders: PathBuf,
}

/// An option's value, put together from text and paths. A comma separates in it, so that one in a path is doubled.
struct Value(OsString);

impl Value {
    fn new(text: impl AsRef<OsStr>) -> Self {
        Self(text.as_ref().to_owned())
    }

    fn text(mut self, text: &str) -> Self {
        self.0.push(text);
        self
    }

    fn path(mut self, path: &Path) -> Self {
        use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
        let mut escaped = Vec::new();
        for byte in path.as_os_str().as_bytes() {
            escaped.push(*byte);
            if *byte == b',' {
                escaped.push(b',');
            }
        }
        self.0.push(OsString::from_vec(escaped));
        self
    }
}

/// The arguments of `qemu-system-x86_64`.
#[must_use]
pub fn arguments(machine: &Machine) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: Value| all.extend([option.into(), value.0]);
    let protected = machine.tee != Tee::None;

    let accelerator = match machine.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    };
    let kind = Value::new(format!("q35,accel={accelerator}"));
    let memory = machine.memory_mib;
    match &machine.tee {
        Tee::None => add("-machine", kind),
        Tee::Snp { .. } => {
            add("-machine", kind.text(",confidential-guest-support=tee,memory-backend=memory"));
            add(
                "-object",
                Value::new(format!("memory-backend-memfd,id=memory,size={memory}M,share=true,prealloc=false")),
            );
            let snp = format!(
                "sev-snp-guest,id=tee,cbitpos={ENCRYPTION_BIT},reduced-phys-bits={REDUCED_ADDRESS_BITS},kernel-hashes=on"
            );
            add("-object", Value::new(snp));
        }
        Tee::Tdx => {
            add("-machine", kind.text(",kernel-irqchip=split,confidential-guest-support=tee"));
            // The host is number 2 of its virtual sockets.
            let tdx = format!(
                r#"{{"qom-type":"tdx-guest","id":"tee","quote-generation-socket":{{"type":"vsock","cid":"2","port":"{QUOTE_SERVICE_PORT}"}}}}"#
            );
            add("-object", Value::new(tdx));
        }
    }
    let cpu = match (&machine.tee, machine.accelerator) {
        (Tee::Snp { cpu }, _) => cpu.as_str(),
        (_, Accelerator::Kvm) => "host",
        (_, Accelerator::Tcg) => "max",
    };
    add("-cpu", Value::new(cpu));
    add("-m", Value::new(memory.to_string()));
    add("-smp", Value::new(machine.vcpus.to_string()));
    add("-display", Value::new("none"));
    add("-serial", Value::new("stdio"));
    add("-qmp", Value::new("unix:").path(&machine.orders).text(",server=on,wait=off"));

    match &machine.boot {
        Boot::Partition { code, variables, partition } => {
            add("-drive", Value::new("if=pflash,format=raw,readonly=on,file=").path(code));
            add("-drive", Value::new("if=pflash,format=raw,file=").path(variables));
            let disk = Value::new("file=fat:").path(partition).text(",format=raw,if=none,readonly=on,id=image");
            add("-drive", disk);
            add("-device", Value::new(device("virtio-blk-pci,drive=image,bootindex=0", protected)));
        }
        Boot::Direct { firmware, kernel, initrd, command_line } => {
            add("-bios", Value::new(firmware));
            add("-kernel", Value::new(kernel));
            add("-initrd", Value::new(initrd));
            add("-append", Value::new(command_line));
        }
    }
    match &machine.tpm {
        Some(TpmDevice::Emulated(socket)) => {
            add("-chardev", Value::new("socket,id=tpm,path=").path(socket));
            add("-tpmdev", Value::new("emulator,id=tpm,chardev=tpm"));
            add("-device", Value::new("tpm-crb,tpmdev=tpm"));
        }
        Some(TpmDevice::Passthrough(device)) => {
            add("-tpmdev", Value::new("passthrough,id=tpm,path=").path(device));
            add("-device", Value::new("tpm-crb,tpmdev=tpm"));
        }
        None => {}
    }
    if let Some(disk) = &machine.disk {
        add("-drive", Value::new("file=").path(disk).text(",format=raw,if=none,id=data"));
        add("-device", Value::new(device(&format!("virtio-blk-pci,drive=data,serial={DISK_SERIAL}"), protected)));
    }
    add("-netdev", Value::new("user,id=net"));
    // Without a boot program of its own, which would be tried and measured.
    add("-device", Value::new(device("virtio-net-pci,netdev=net,romfile=", protected)));
    all.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
    all
}

/// The arguments of `swtpm`.
#[must_use]
pub fn tpm_arguments(tpm: &Tpm) -> Vec<OsString> {
    let fixed = ["socket", "--tpm2", "--terminate", "--flags", "startup-clear"].map(OsString::from);
    // swtpm knows no way to write a comma in a path.
    let option = |name: &str, path: &Path| {
        let mut text = OsString::from(name);
        text.push(path);
        text
    };
    let state = option("dir=", &tpm.state);
    let control = option("type=unixio,path=", &tpm.socket);
    fixed.into_iter().chain(["--tpmstate".into(), state, "--ctrl".into(), control]).collect()
}

/// A device of a guest whose memory is protected goes through memory that it shares.
fn device(what: &str, protected: bool) -> String {
    let shared = if protected { ",disable-legacy=on,iommu_platform=true" } else { "" };
    format!("{what}{shared}")
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
