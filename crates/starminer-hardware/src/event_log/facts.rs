//! What the events prove, gathered register by register.

use std::collections::BTreeMap;

use super::EventKind;
use super::bank::{Bank, Digest};
use super::coverage::{Coverage, GRUB_WORDS, Known, KnownDigests, could_be_image, coverage, name};
use super::parse::{Event, EventLog};
use super::secure_boot::{self, Authority, Databases, SecureBoot};
use super::variable::utf16;

/// What the registers of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Registers of a TPM.
    Tpm,
    /// Measurement registers of a confidential VM: 1 holds what registers 1 and 7 would, 2 what 2 to 6 would, 3 the rest.
    ConfidentialVm,
}

impl Layout {
    pub(super) fn register(self, pcr: u32) -> u32 {
        match (self, pcr) {
            (Self::Tpm, _) => pcr,
            (Self::ConfidentialVm, 0) => 0,
            (Self::ConfidentialVm, 1 | 7) => 1,
            (Self::ConfidentialVm, 2..=6) => 2,
            (Self::ConfidentialVm, _) => 3,
        }
    }
}

/// An event with what its digest covers.
pub(super) struct Item<'a> {
    pub event: Event<'a>,
    pub coverage: Coverage,
    pub covered: &'a [u8],
    pub known: Option<Known>,
    banks: Vec<Bank>,
}

impl Item<'_> {
    fn digests(&self) -> Vec<Digest> {
        self.banks.iter().filter_map(|bank| self.event.owned_digest(*bank)).collect()
    }

    fn measured(&self, hint: Option<String>) -> Measured {
        Measured {
            event: self.event.index,
            register: self.event.register,
            kind: self.event.kind,
            digests: self.digests(),
            hint,
        }
    }
}

/// Something that was measured, by its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The event.
    pub event: usize,
    /// The register.
    pub register: u32,
    /// The type, which nothing vouches for.
    pub kind: EventKind,
    /// The digests, of the banks that count.
    pub digests: Vec<Digest>,
    /// What the log says it is: a path, a name. Nothing vouches for it.
    pub hint: Option<String>,
}

/// Text that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The event.
    pub event: usize,
    /// The register.
    pub register: u32,
    /// The text, vouched for.
    pub text: String,
    /// The word that GRUB wrote before it, which nothing vouches for.
    pub label: Option<&'static str>,
}

/// A section of a unified kernel image, measured by systemd-stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name, vouched for: `.linux`, `.initrd`, `.cmdline`, …
    pub name: String,
    /// Its contents.
    pub contents: Measured,
}

/// How firmware ended its part of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separators {
    /// How many separators it has.
    pub count: usize,
    /// Whether one of them reports an error.
    pub error: bool,
}

/// How the operating system took over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitBootServices {
    /// How often it was tried.
    pub invocations: usize,
    /// How often it failed.
    pub failures: usize,
    /// How often it succeeded.
    pub successes: usize,
}

/// One event in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventFact {
    /// Its place in the log.
    pub index: usize,
    /// Its register.
    pub register: u32,
    /// Its type.
    pub kind: EventKind,
    /// What its digest covers.
    pub coverage: Coverage,
}

/// What the events prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub secure_boot: SecureBoot,
    pub databases: Databases,
    pub authorities: Vec<Authority>,
    pub applications: Vec<Measured>,
    pub option_roms: Vec<Measured>,
    pub separators: BTreeMap<u32, Separators>,
    pub exit_boot_services: ExitBootServices,
    pub crtm_version: Option<String>,
    pub firmware: Vec<Measured>,
    pub sections: Vec<Section>,
    pub command_lines: Vec<Text>,
    pub loader_files: Vec<Measured>,
    pub extensions: Vec<Measured>,
    pub mok: Vec<Measured>,
    pub events: Vec<EventFact>,
}

/// Sections that systemd-stub measures, as it names them.
const SECTIONS: [&str; 16] = [
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".dtbauto",
    ".efifw",
    ".hwids",
    ".uname",
    ".sbat",
    ".pcrsig",
    ".pcrpkey",
    ".profile",
    ".pcrpkeyx",
];

/// Gathers the facts. `banks_of` says in which banks a register's value was given and found right, or all where none was given.
pub(super) fn gather(log: &EventLog<'_>, layout: Layout, banks_of: impl Fn(u32) -> Vec<Bank>) -> Facts {
    let known = KnownDigests::new(log.banks());
    let scopes: Vec<Vec<Bank>> = (0..super::parse::REGISTERS).map(banks_of).collect();
    let items: Vec<Item<'_>> = log
        .events()
        .map(|event| {
            let banks = scopes.get(event.register as usize).cloned().unwrap_or_default();
            let (coverage, covered) = coverage(&event, &banks);
            let known = if event.extends() { known.of(&event, &banks) } else { None };
            Item { event, coverage, covered, known, banks }
        })
        .collect();
    let of = |pcr: u32| -> Vec<&Item<'_>> {
        let register = layout.register(pcr);
        items.iter().filter(|item| item.event.extends() && item.event.register == register).collect()
    };
    let register_7 = secure_boot::examine(&of(7));
    let mut facts = Facts {
        secure_boot: register_7.secure_boot,
        databases: register_7.databases,
        authorities: register_7.authorities,
        applications: images(&of(4)),
        option_roms: images(&of(2)),
        separators: separators(&items),
        exit_boot_services: ExitBootServices::default(),
        crtm_version: None,
        firmware: Vec::new(),
        sections: sections(&of(11)),
        command_lines: Vec::new(),
        loader_files: files(&of(9)),
        extensions: files(&of(13)),
        mok: files(&of(14)),
        events: items.iter().map(fact).collect(),
    };
    for item in of(5) {
        let exit = &mut facts.exit_boot_services;
        match item.known {
            Some(Known::ExitBootServices) => exit.invocations += 1,
            Some(Known::ExitBootServicesFailure) => exit.failures += 1,
            Some(Known::ExitBootServicesSuccess) => exit.successes += 1,
            _ => {}
        }
    }
    for item in of(0) {
        if item.event.kind == EventKind::S_CRTM_VERSION && item.coverage.vouched() {
            facts.crtm_version = facts.crtm_version.or_else(|| crtm_version(item.covered));
        } else if item.known.is_none() && !item.coverage.vouched() {
            facts.firmware.push(item.measured(hint(item.event.data)));
        }
    }
    let lines: Vec<u32> = [8, 12].map(|pcr| layout.register(pcr)).to_vec();
    facts.command_lines = items.iter().filter(|item| lines.contains(&item.event.register)).filter_map(text).collect();
    facts
}

fn fact(item: &Item<'_>) -> EventFact {
    EventFact {
        index: item.event.index,
        register: item.event.register,
        kind: item.event.kind,
        coverage: if item.known.is_some() && !item.coverage.vouched() { Coverage::Known } else { item.coverage },
    }
}

/// Whatever in a register of code is not proven to be something else counts as an image: its type is a label that could hide one.
fn images(items: &[&Item<'_>]) -> Vec<Measured> {
    items
        .iter()
        .filter(|item| item.known.is_none() && (!item.coverage.vouched() || could_be_image(item.covered)))
        .map(|item| item.measured(image_path(item.event.data)))
        .collect()
}

fn files(items: &[&Item<'_>]) -> Vec<Measured> {
    items
        .iter()
        .filter(|item| item.known.is_none() && !item.coverage.vouched())
        .map(|item| item.measured(hint(item.event.data)))
        .collect()
}

fn separators(items: &[Item<'_>]) -> BTreeMap<u32, Separators> {
    let mut separators = BTreeMap::new();
    for item in items {
        let error = match item.known {
            Some(Known::Separator) => false,
            Some(Known::ErrorSeparator) => true,
            _ => continue,
        };
        let entry = separators.entry(item.event.register).or_insert(Separators { count: 0, error: false });
        entry.count += 1;
        entry.error |= error;
    }
    separators
}

/// The stub extends a section's name and then its contents.
fn sections(items: &[&Item<'_>]) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut items = items.iter().peekable();
    while let Some(item) = items.next() {
        let named = if item.coverage == Coverage::Name { name(item.covered) } else { None };
        let Some(name) = named.filter(|name| SECTIONS.contains(&name.as_str())) else { continue };
        if let Some(contents) = items.next_if(|next| next.coverage != Coverage::Name) {
            sections.push(Section { name, contents: contents.measured(hint(contents.event.data)) });
        }
    }
    sections
}

fn text(item: &Item<'_>) -> Option<Text> {
    if !item.coverage.vouched() || item.known.is_some() {
        return None;
    }
    let label = GRUB_WORDS
        .into_iter()
        .find(|word| item.coverage == Coverage::Content && item.event.data.starts_with(word.as_bytes()))
        .map(|word| word.trim_end_matches([':', ' ']));
    let wide = || utf16(item.covered).map(|text| text.trim_end_matches('\0').to_owned());
    let narrow = || std::str::from_utf8(item.covered).ok().map(|text| text.trim_end_matches('\0').to_owned());
    // UTF-16 of Latin text has a zero in every second byte, which no text in UTF-8 has.
    let text = if item.covered.get(1) == Some(&0) { wide() } else { narrow() }?;
    Some(Text { event: item.event.index, register: item.event.register, text, label })
}

fn crtm_version(covered: &[u8]) -> Option<String> {
    utf16(covered).map(|text| text.trim_end_matches('\0').to_owned()).filter(|text| !text.contains('\0'))
}

/// The most characters of a hint that are kept.
const MAX_HINT_CHARS: usize = 256;

/// Data as text, where it is text in UTF-8 or UTF-16; of a tagged event, what is in it.
fn hint(data: &[u8]) -> Option<String> {
    let data = super::coverage::tagged_content(data).unwrap_or(data);
    let wide = data.len() >= 2 && data[1] == 0;
    let text = if wide { utf16(data)? } else { std::str::from_utf8(data).ok()?.to_owned() };
    let text = printable(text.trim_end_matches('\0'));
    (!text.is_empty()).then_some(text)
}

/// The path in a `UEFI_IMAGE_LOAD_EVENT`: three addresses, the length of the device path, and its nodes.
fn image_path(data: &[u8]) -> Option<String> {
    let mut nodes = data.get(32..)?;
    let mut path = String::new();
    while let Some((header, rest)) = nodes.split_first_chunk::<4>() {
        let size_bytes = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let body = rest.get(..size_bytes.checked_sub(4)?)?;
        nodes = &rest[body.len()..];
        match (header[0], header[1]) {
            (4, 4) => path.push_str(utf16(body)?.trim_end_matches('\0')),
            (4, 6 | 7) => {
                let guid = super::variable::Guid(*body.first_chunk()?);
                path.push_str(&format!("{}({guid})", if header[1] == 6 { "FvFile" } else { "Fv" }));
            }
            (0x7f, _) => break,
            _ => {}
        }
    }
    (!path.is_empty()).then(|| printable(&path))
}

fn printable(text: &str) -> String {
    text.chars().take(MAX_HINT_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
