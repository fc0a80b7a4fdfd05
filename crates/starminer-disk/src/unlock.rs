//! From a device to a mounted file system, or the reason why not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rustix::fs::{major, minor};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};
use starminer_attester::tpm::{Authorization, Tpm, TpmError, TpmSettings};
use zeroize::{Zeroize as _, Zeroizing};

use crate::boots::{Rollback, Stage, Step, decide};
use crate::crypt::{self, Secret};
use crate::device::{LABEL, check_size, is_new, mark};
use crate::error::DiskError;
use crate::header::{DATA_AT, FINISHED, Header, HeaderError, UNFINISHED};
use crate::machine::{MachineKey, mix};
use crate::seal::{self, BOOT_COUNTER, EPOCH_COUNTER, ImagePolicy};
use crate::token::{Seal, Token};
use crate::{MAX_FILE_BYTES, read_bounded};

/// Where device-mapper puts what is opened.
const MAPPER: &str = "/dev/mapper";
/// The count of starts, at the root of the file system.
const STARTS: &str = "starts.json";
const STARTS_FORMAT: &str = "starminer-starts/1";
/// The header that cryptsetup opens with, while it does.
const HEADER_COPY: &str = "disk-header";

/// What is needed to open a disk.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The device.
    pub device: PathBuf,
    /// A directory in memory, for the copy of the header.
    pub memory: PathBuf,
    /// Where the file system is mounted: an existing directory.
    pub mount: PathBuf,
    /// The TPM.
    pub tpm: TpmSettings,
    /// The image's file with its maker's policy, if it has one ([`starminer_hardware::tpm::approval::DiskPolicy`]).
    pub policy: Option<Vec<u8>>,
    /// A chip that derives a key for this guest, where there is one.
    pub machine: Option<Arc<dyn MachineKey>>,
    /// Its approvals ([`starminer_hardware::tpm::approval::Approvals`]).
    pub approvals: Option<Vec<u8>>,
}

/// A disk that is open. It stays open when this is dropped.
#[derive(Debug)]
pub struct Unlocked {
    /// Whether it was formatted just now.
    pub formatted: bool,
    /// Whether an image of a higher security version has taken it over just now.
    pub taken_over: bool,
    /// Whether its file system had to be repaired just now.
    pub repaired: bool,
    /// Which start with this disk it is, from 1.
    pub start: u64,
    /// Whether the last one ended with [`Self::close`].
    pub ended_in_order: bool,
    mount: PathBuf,
}

/// The count of starts, as it lies on the disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Starts {
    format: String,
    /// Number of the first.
    first: u64,
    /// Number of this one, or of the last.
    number: u64,
    stage: Stage,
    /// Whether it has not ended in order, or not yet.
    running: bool,
    /// Authorises both counters. Nobody but this disk's machine counts.
    authorization: String,
}

impl Drop for Starts {
    fn drop(&mut self) {
        self.authorization.zeroize();
    }
}

impl Starts {
    fn read(mount: &Path) -> Result<Self, DiskError> {
        let path = mount.join(STARTS);
        let bytes = read_bounded(&path, MAX_FILE_BYTES).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge => DiskError::Count,
            // What cannot be read now may be at the next start.
            _ => DiskError::Io { path, source: error },
        });
        let bytes = Zeroizing::new(bytes?);
        let starts: Self = serde_json::from_slice(&bytes).map_err(|_| DiskError::Count)?;
        if starts.format == STARTS_FORMAT && starts.first <= starts.number { Ok(starts) } else { Err(DiskError::Count) }
    }

    fn authorization(&self) -> Result<Authorization, DiskError> {
        let value = BASE64.decode(self.authorization.as_bytes()).map(Zeroizing::new);
        value.map(|value| Authorization::new(&value)).map_err(|_| DiskError::Count)
    }

    /// The old one or the new one is there, whatever happens meanwhile; and the new one when this returns.
    fn write(&self, mount: &Path) -> Result<(), DiskError> {
        let (path, new) = (mount.join(STARTS), mount.join("starts.new"));
        let bytes = Zeroizing::new(serde_json::to_vec(self).expect("text and numbers"));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(mount)?.sync_all()
        };
        write().map_err(DiskError::io(&path))
    }
}

/// Opens a disk and mounts it (nosuid, nodev, noexec). A blank one is formatted first, and one that was never finished again; anything else is left as it is if
/// it does not open.
///
/// # Errors
/// Every variant of [`DiskError`] but those of [`crate::find`].
pub fn unlock(settings: &Settings) -> Result<Unlocked, DiskError> {
    let image = ImagePolicy::parse(settings.policy.as_deref(), settings.approvals.as_deref())?;
    let device = &settings.device;
    check_size(device)?;
    let mut tpm = Tpm::open(settings.tpm.clone()).map_err(DiskError::Tpm)?;
    let beginning = read_beginning(device)?;
    let header = Header::parse(&beginning);
    if is_new(device, &header)? {
        return format(settings, &mut tpm, image.as_ref());
    }
    let header = match header {
        Err(HeaderError::None) => return Err(DiskError::NotBlank(device.clone())),
        Err(error) => return Err(error.into()),
        Ok(header) if header.label != LABEL => return Err(DiskError::NotBlank(device.clone())),
        Ok(header) => header,
    };
    let token = token_of(&header)?;
    let machine = settings.machine.as_deref();
    if token.mixed.as_deref() != machine.map(MachineKey::name) {
        let named = |name: Option<&str>| name.map_or("no chip's key".into(), |name| format!("the key of {name}"));
        let (disk, machine) = (named(token.mixed.as_deref()), named(machine.map(MachineKey::name)));
        return Err(DiskError::OtherMachine { disk, machine });
    }
    let (secret, chosen) = open_seal(&mut tpm, &token, image.as_ref())?;
    let mut mounted = Mounted::map(settings, &header, &beginning, &mix(&secret, machine)?)?;
    let repaired = mounted.mount_or_repair(&settings.mount)?;
    // From here on, an error leaves nothing open.
    let mut starts = Starts::read(&settings.mount)?;
    let authorization = starts.authorization()?;
    let ended_in_order = !starts.running;
    count(&mut tpm, &mut starts, &authorization, &settings.mount)?;
    let mine = image.as_ref().map_or(0, |image| image.policy.security_version);
    let taken_over = chosen.security_version() < mine || token.seals.len() > 1;
    if let Some(image) = image.as_ref().filter(|_| taken_over) {
        take_over(&mut tpm, device, &token.mixed, chosen, &secret, image, &authorization)?;
    }
    let start = starts.number.saturating_sub(starts.first).saturating_add(1);
    mounted.stays();
    Ok(Unlocked { formatted: false, taken_over, repaired, start, ended_in_order, mount: settings.mount.clone() })
}

impl Unlocked {
    /// Unmounts and closes it. The next start is told whether this one ended `in_order`.
    ///
    /// # Errors
    /// Where something still uses it, or the disk fails.
    pub fn close(self, in_order: bool) -> Result<(), DiskError> {
        if in_order {
            let mut starts = Starts::read(&self.mount)?;
            starts.running = false;
            starts.write(&self.mount)?;
        }
        unmount(&self.mount, UnmountFlags::empty()).map_err(|error| DiskError::FileSystem(error.into()))?;
        crypt::close()
    }
}

/// An open mapping with its file system, which goes when this is dropped, unless it stays.
struct Mounted<'a> {
    mount: Option<&'a Path>,
    stays: bool,
}

impl<'a> Mounted<'a> {
    /// Opens with this header and no other.
    fn map(settings: &Settings, header: &Header, beginning: &[u8], secret: &Secret) -> Result<Self, DiskError> {
        // Looked at here as well, so that no way to a mapping goes past it.
        header.layout()?;
        if header.subsystem != FINISHED && header.subsystem != UNFINISHED {
            return Err(HeaderError::Foreign("another subsystem".into()).into());
        }
        let copy = settings.memory.join(HEADER_COPY);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy)?;
            file.write_all(&header.alone(beginning))
        };
        write().map_err(DiskError::io(&copy))?;
        let opened = crypt::open(&settings.device, &copy, secret);
        fs::remove_file(&copy).map_err(DiskError::io(&copy))?;
        opened.map(|()| Self { mount: None, stays: false })
    }

    fn mount(&mut self, place: &'a Path) -> Result<(), DiskError> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = c"errors=remount-ro";
        mount(mapping(), place, "ext4", flags, Some(options)).map_err(|error| DiskError::FileSystem(error.into()))?;
        self.mount = Some(place);
        Ok(())
    }

    /// Mounts what an earlier start left; whether it had to be repaired.
    fn mount_or_repair(&mut self, place: &'a Path) -> Result<bool, DiskError> {
        if is_checked()? {
            match self.mount(place) {
                Ok(()) if !knows_of_errors()? => return Ok(false),
                Ok(()) => {
                    unmount(place, UnmountFlags::empty()).map_err(|error| DiskError::FileSystem(error.into()))?;
                    self.mount = None;
                }
                Err(DiskError::FileSystem(error)) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        crypt::repair_file_system(&mapping())?;
        self.mount(place).map(|()| true)
    }

    fn stays(mut self) {
        self.stays = true;
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Of both errors, the one that led here says why; and the machine is switched off next.
        if let Some(place) = self.mount {
            let _ = unmount(place, UnmountFlags::empty());
        }
        let _ = crypt::close();
    }
}

fn mapping() -> PathBuf {
    Path::new(MAPPER).join(LABEL)
}

/// Whether no check of the file system was cut short: bit 0 of `s_state`, which the kernel leaves alone where there is a journal (ext4, "Super Block").
fn is_checked() -> Result<bool, DiskError> {
    const STATE: u64 = 1024 + 0x3a;
    let path = mapping();
    let mut state = [0; 2];
    File::open(&path).and_then(|file| file.read_exact_at(&mut state, STATE)).map_err(DiskError::io(&path))?;
    Ok(state[0] & 1 == 1)
}

/// What ext4 says where a checksum or a structure is wrong; not what a disk says that cannot be read.
fn is_damage(error: &io::Error) -> bool {
    [Errno::BADMSG, Errno::UCLEAN].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether the mounted file system says of itself that it found something wrong, now or at an earlier start (Linux, `Documentation/ABI/testing/sysfs-fs-ext4`).
fn knows_of_errors() -> Result<bool, DiskError> {
    let path = mapping();
    let number = fs::metadata(&path).map_err(DiskError::io(&path))?.rdev();
    let device = Path::new("/sys/dev/block").join(format!("{}:{}", major(number), minor(number)));
    let name = fs::read_link(&device).map_err(DiskError::io(&device))?;
    let count = Path::new("/sys/fs/ext4").join(name.file_name().unwrap_or_default()).join("errors_count");
    Ok(fs::read_to_string(&count).map_err(DiskError::io(&count))?.trim() != "0")
}

fn read_beginning(device: &Path) -> Result<Vec<u8>, DiskError> {
    let mut beginning = Vec::new();
    let file = File::open(device).map_err(DiskError::io(device))?;
    file.take(DATA_AT).read_to_end(&mut beginning).map_err(DiskError::io(device))?;
    Ok(beginning)
}

fn token_of(header: &Header) -> Result<Token, DiskError> {
    let layout = header.layout()?;
    let token = layout.tokens.get("0").and_then(Token::parse);
    token.ok_or_else(|| HeaderError::Foreign("it holds no key that a TPM sealed for a node".into()).into())
}

/// Opens the seal that asks for most. If none opens, what the first said is the reason.
fn open_seal<'a>(
    tpm: &mut Tpm,
    token: &'a Token,
    image: Option<&ImagePolicy>,
) -> Result<(Secret, &'a Seal), DiskError> {
    let mut seals: Vec<&Seal> = token.seals.iter().collect();
    seals.sort_by_key(|seal| std::cmp::Reverse(seal.security_version()));
    let mut first = None;
    for seal in seals {
        match seal::unseal(tpm, seal, image) {
            Ok(secret) => return Ok((secret, seal)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or(DiskError::OtherTpm))
}

/// Counts this start, or says what was put back.
fn count(tpm: &mut Tpm, starts: &mut Starts, authorization: &Authorization, mount: &Path) -> Result<(), DiskError> {
    // A counter that somebody made anew does not know this authorisation.
    let gone = |error: TpmError| match error {
        TpmError::NoCounter(_) | TpmError::Argument(_) | TpmError::Refused { .. } => DiskError::Counter,
        other => DiskError::Tpm(other),
    };
    let counted = tpm.read_counter(BOOT_COUNTER, authorization).map_err(gone)?;
    let step = decide(starts.number, starts.stage, counted).map_err(|rollback| match rollback {
        Rollback::Disk => DiskError::OldDisk { disk: starts.number, tpm: counted },
        Rollback::Tpm => DiskError::OldTpm { disk: starts.number, tpm: counted },
    })?;
    starts.running = true;
    let (Step::Announce(number) | Step::Count(number)) = step;
    if matches!(step, Step::Announce(_)) {
        (starts.number, starts.stage) = (number, Stage::Announced);
        starts.write(mount)?;
    }
    if tpm.increment_counter(BOOT_COUNTER, authorization).map_err(gone)? != number {
        return Err(DiskError::Counter);
    }
    starts.stage = Stage::Counted;
    starts.write(mount)
}

/// Seals the key to this image's security version, and closes what older ones sealed, in an order in which the power may fail anywhere.
fn take_over(
    tpm: &mut Tpm,
    device: &Path,
    mixed: &Option<String>,
    opened: &Seal,
    secret: &Secret,
    image: &ImagePolicy,
    authorization: &Authorization,
) -> Result<(), DiskError> {
    let epoch = tpm.read_counter(EPOCH_COUNTER, authorization).map_err(DiskError::Tpm)?;
    let next = epoch.saturating_add(1);
    let new = seal::seal(tpm, secret, Some(image), next)?;
    // What opened this time opens again until the counter has moved.
    crypt::put_token(device, &Token::new(mixed.clone(), vec![opened.clone(), new.clone()]).encode())?;
    tpm.increment_counter(EPOCH_COUNTER, authorization).map_err(DiskError::Tpm)?;
    crypt::put_token(device, &Token::new(mixed.clone(), vec![new]).encode())
}

/// Makes a disk. Until its last step it is marked as not finished, first beside the header and then in it, and made anew if the power fails.
fn format(settings: &Settings, tpm: &mut Tpm, image: Option<&ImagePolicy>) -> Result<Unlocked, DiskError> {
    let device = &settings.device;
    let mut secret = Secret::new([0; 64]);
    let mut authorization = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut secret[..]).map_err(|_| DiskError::Randomness)?;
    aws_lc_rs::rand::fill(&mut authorization[..]).map_err(|_| DiskError::Randomness)?;
    let (first, epoch) = seal::new_counters(tpm, &Authorization::new(&authorization[..]))?;
    let sealed = seal::seal(tpm, &secret, image, epoch)?;
    let machine = settings.machine.as_deref();
    let secret = mix(&secret, machine)?;
    mark(device)?;
    crypt::format(device, &secret)?;
    let mixed = machine.map(|machine| machine.name().to_owned());
    crypt::put_token(device, &Token::new(mixed, vec![sealed]).encode())?;
    let beginning = read_beginning(device)?;
    let header = Header::parse(&beginning)?;
    token_of(&header)?;
    let mut mounted = Mounted::map(settings, &header, &beginning, &secret)?;
    crypt::make_file_system(&mapping())?;
    mounted.mount(&settings.mount)?;
    let starts = Starts {
        format: STARTS_FORMAT.into(),
        first,
        number: first,
        stage: Stage::Counted,
        running: true,
        authorization: BASE64.encode(&authorization[..]),
    };
    starts.write(&settings.mount)?;
    crypt::set_subsystem(device, FINISHED)?;
    mounted.stays();
    Ok(Unlocked {
        formatted: true,
        taken_over: false,
        repaired: false,
        start: 1,
        ended_in_order: true,
        mount: settings.mount.clone(),
    })
}
