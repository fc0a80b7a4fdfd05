//! What the digest of an event covers. A digest is what a quote vouches for, once the log replays to it; everything else in an event is what
//! whoever keeps the log wrote there, and proves nothing unless it can be hashed to that digest.
//!
//! Rules by type: Platform Firmware Profile, section 10.4; GRUB's and systemd-stub's own habits for `EV_IPL`.

use super::EventKind;
use super::bank::{Bank, Digest};
use super::parse::Event;
use super::variable::{Guid, Variable, utf16};

/// What of an event its digest covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coverage {
    /// The data, all of it.
    Data,
    /// A part of the data: the contents of a variable without its name, a command of GRUB without the word before it.
    Content,
    /// The data as a name: systemd-stub hashes a section's name in ASCII and logs it in UTF-16.
    Name,
    /// The digest is of a measurement that is the same on every machine, whatever the data says.
    Known,
    /// Something that is not in the log, such as a file. The data is a hint.
    DigestOnly,
    /// Nothing, although the type promises that the digest is of the data: the data is not what was measured.
    Mismatch,
    /// Nothing: an event of this type is not extended.
    NotExtended,
    /// Nothing: no value of its register was given to compare with, while values of others were.
    Unanchored,
}

impl Coverage {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Content => "content",
            Self::Name => "name",
            Self::Known => "known",
            Self::DigestOnly => "digest-only",
            Self::Mismatch => "mismatch",
            Self::NotExtended => "not-extended",
            Self::Unanchored => "unanchored",
        }
    }

    /// Why, for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Data => "the data hashes to the digest",
            Self::Content => "a part of the data hashes to the digest; the rest is a hint",
            Self::Name => "the name in the data hashes to the digest",
            Self::Known => "the digest is that of a measurement which is the same everywhere",
            Self::DigestOnly => "the digest is of something that is not in the log; the data is a hint",
            Self::Mismatch => "the data does not hash to the digest, as its type demands",
            Self::NotExtended => "events of this type are not extended into a register",
            Self::Unanchored => "no value of the register was given",
        }
    }

    /// Whether the digest covers what the event says.
    #[must_use]
    pub const fn vouched(self) -> bool {
        matches!(self, Self::Data | Self::Content | Self::Name | Self::Known)
    }
}

/// Measurements that are the same on every machine, so that the digest alone tells them, whatever type and data the log gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// Firmware has done its part of the register.
    Separator,
    /// Firmware failed.
    ErrorSeparator,
    /// A boot option is started.
    CallingApplication,
    /// A boot option came back.
    ReturningApplication,
    /// The operating system takes over.
    ExitBootServices,
    /// It did.
    ExitBootServicesSuccess,
    /// It did not.
    ExitBootServicesFailure,
    /// A debugger of the firmware could be attached.
    FirmwareDebugger,
    /// Devices could write to memory during boot.
    DmaProtectionDisabled,
    /// Shim was told not to verify what it starts.
    ShimInsecure,
}

const ACTIONS: [(Known, &str); 7] = [
    (Known::CallingApplication, "Calling EFI Application from Boot Option"),
    (Known::ReturningApplication, "Returning from EFI Application from Boot Option"),
    (Known::ExitBootServices, "Exit Boot Services Invocation"),
    (Known::ExitBootServicesSuccess, "Exit Boot Services Returned with Success"),
    (Known::ExitBootServicesFailure, "Exit Boot Services Returned with Failure"),
    (Known::FirmwareDebugger, "UEFI Debug Mode"),
    (Known::DmaProtectionDisabled, "DMA Protection Disabled"),
];

/// The digests of known measurements, in the banks in question.
pub(super) struct KnownDigests(Vec<(Known, [Option<Digest>; Bank::ALL.len()])>);

impl KnownDigests {
    pub fn new(banks: &[Bank]) -> Self {
        let digests = |parts: &[&[u8]]| {
            let mut digests = [None; Bank::ALL.len()];
            for bank in banks {
                digests[bank.slot()] = Some(bank.hash(parts));
            }
            digests
        };
        let mut known = vec![
            (Known::Separator, digests(&[&[0; 4]])),
            (Known::Separator, digests(&[&[0xff; 4]])),
            (Known::ErrorSeparator, digests(&[&1_u32.to_le_bytes()])),
            (Known::ShimInsecure, digests(&[&Variable::encode(Guid::SHIM_LOCK, "MokSBState", &[1])])),
        ];
        known.extend(ACTIONS.iter().map(|(known, text)| (*known, digests(&[text.as_bytes()]))));
        // Some firmware counts the end of the string in.
        known.extend(ACTIONS.iter().map(|(known, text)| (*known, digests(&[text.as_bytes(), b"\0"]))));
        Self(known)
    }

    /// What the event is by its digests alone, if all of them in these banks agree on it.
    pub fn of(&self, event: &Event<'_>, banks: &[Bank]) -> Option<Known> {
        self.0
            .iter()
            .find(|(_, digests)| {
                banks.iter().all(|bank| digests[bank.slot()].as_ref().map(Digest::as_bytes) == event.digest(*bank))
                    && !banks.is_empty()
            })
            .map(|(known, _)| *known)
    }
}

/// What the event's digests cover, in all of the banks, and those bytes.
pub(super) fn coverage<'a>(event: &Event<'a>, banks: &[Bank]) -> (Coverage, &'a [u8]) {
    let data = event.data;
    if !event.extends() {
        return (Coverage::NotExtended, &[]);
    }
    if banks.is_empty() {
        return (Coverage::Unanchored, &[]);
    }
    if hashes_to(event, banks, &[data]) {
        return (Coverage::Data, data);
    }
    let contents = || Variable::parse(data).map(|variable| variable.contents);
    let candidates: [Option<&[u8]>; 2] = match event.kind {
        EventKind::EFI_VARIABLE_BOOT | EventKind::EFI_VARIABLE_BOOT2 => [contents(), None],
        // Firmware exists that measures the contents alone, and old shim logged a byte more than it measured.
        EventKind::EFI_VARIABLE_AUTHORITY => [contents(), data.split_last().map(|(_, rest)| rest)],
        // The variables of Secure Boot are measured whole: contents alone could be those of another variable.
        EventKind::EFI_VARIABLE_DRIVER_CONFIG if event.register != 7 => [contents(), None],
        EventKind::IPL => {
            let content = grub_content(data);
            [Some(content), content.strip_suffix(b"\0")]
        }
        EventKind::EFI_ACTION | EventKind::ACTION | EventKind::S_CRTM_VERSION => [data.strip_suffix(b"\0"), None],
        EventKind::EVENT_TAG => [tagged_content(data), None],
        _ => [None, None],
    };
    if let Some(content) = candidates.into_iter().flatten().find(|content| hashes_to(event, banks, &[content])) {
        return (Coverage::Content, content);
    }
    let named = || name(data).is_some_and(|name| hashes_to(event, banks, &[name.as_bytes(), b"\0"]));
    if event.kind == EventKind::IPL && named() {
        return (Coverage::Name, data);
    }
    let promised = matches!(
        event.kind,
        EventKind::SEPARATOR
            | EventKind::ACTION
            | EventKind::EFI_ACTION
            | EventKind::S_CRTM_VERSION
            | EventKind::EFI_VARIABLE_DRIVER_CONFIG
            | EventKind::EFI_VARIABLE_AUTHORITY
            | EventKind::EFI_VARIABLE_BOOT
            | EventKind::EFI_VARIABLE_BOOT2
            | EventKind::EFI_GPT_EVENT
    );
    (if promised { Coverage::Mismatch } else { Coverage::DigestOnly }, &[])
}

fn hashes_to(event: &Event<'_>, banks: &[Bank], parts: &[&[u8]]) -> bool {
    banks.iter().all(|bank| event.digest(*bank).is_some_and(|digest| bank.hash(parts).as_bytes() == digest))
}

/// The words that GRUB logs before the text that it hashes, with or without the zero byte behind it; those without a colon are older.
pub(super) const GRUB_WORDS: [&str; 5] =
    ["grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ", "grub_cmd ", "grub_kernel_cmdline "];

fn grub_content(data: &[u8]) -> &[u8] {
    GRUB_WORDS.into_iter().find_map(|word| data.strip_prefix(word.as_bytes())).unwrap_or(data)
}

/// The event of an `EV_EVENT_TAG`: a number, a length, and that many bytes.
pub(super) fn tagged_content(data: &[u8]) -> Option<&[u8]> {
    let (size_bytes, rest) = data.get(4..)?.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*size_bytes) as usize == rest.len()).then_some(rest)
}

/// A short name in UTF-16, without the zero at its end.
pub(super) fn name(data: &[u8]) -> Option<String> {
    if data.len() > 128 {
        return None;
    }
    let name = utf16(data)?;
    let name = name.strip_suffix('\0').unwrap_or(&name);
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then(|| name.to_owned())
}

/// Whether bytes could be an image that firmware starts (PE, TE, or a legacy option ROM): data like that is no proof that an event is
/// anything else, since the digest of an image is that of its bytes.
pub(super) fn could_be_image(covered: &[u8]) -> bool {
    [&b"MZ"[..], b"PE\0\0", b"VZ", &[0x55, 0xaa]].into_iter().any(|start| covered.starts_with(start))
}
