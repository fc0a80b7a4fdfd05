//! Programs and kernel modules: whether a program needs nothing but the kernel, and which modules a module needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Architecture, Endianness, Object as _, ObjectSection as _, elf};

use crate::{ImageError, read};

/// Most modules of an image.
const MAX_MODULES: usize = 256;
/// Most files below a directory of modules; Debian's largest kernel has some four thousand.
const MAX_FILES: usize = 65_536;

/// Reads a program that needs no loader and no libraries.
pub fn static_program(path: &Path) -> Result<Vec<u8>, ImageError> {
    let bytes = read(path)?;
    let wrong = |reason| ImageError::Program { path: path.into(), reason };
    {
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).map_err(|_| wrong("not a 64-bit ELF file"))?;
        if file.architecture() != Architecture::X86_64 {
            return Err(wrong("another machine's"));
        }
        let endian = file.endian();
        if file.elf_header().e_type.get(endian) != elf::ET_EXEC && file.elf_header().e_type.get(endian) != elf::ET_DYN {
            return Err(wrong("not a program"));
        }
        if file.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP) {
            return Err(wrong("it is linked dynamically"));
        }
    }
    Ok(bytes)
}

/// Where Debian's programs find their libraries, and where its loader looks without a cache.
const LIBRARIES: [&str; 4] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib"];
/// Most libraries of an image.
const MAX_LIBRARIES: usize = 64;

/// A file that goes into an image at a place of its own.
#[derive(Debug)]
pub struct Placed {
    /// Where it was found.
    pub path: PathBuf,
    /// Where it goes, without the first `/`.
    pub place: String,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Placed {
    /// What it is for, in a manifest.
    pub fn role(&self) -> &'static str {
        if self.place.starts_with("usr/sbin/") { "disk-program" } else { "library" }
    }
}

/// What a file asks of the loader.
struct Linked {
    /// The loader, of a program.
    loader: Option<String>,
    needs: Vec<String>,
}

/// Reads programs that are linked dynamically, with their loader and every library that they need, each once and in the order in which they were asked for.
///
/// # Errors
/// [`ImageError::File`], [`ImageError::Program`], [`ImageError::NoLibrary`].
pub fn linked_programs(paths: &[PathBuf]) -> Result<Vec<Placed>, ImageError> {
    let mut found = Vec::new();
    let mut placed = BTreeSet::new();
    // With whatever asked for them, for the message.
    let mut open: VecDeque<(PathBuf, String)> = VecDeque::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        open.push_back((path.clone(), format!("usr/sbin/{name}")));
    }
    while let Some((path, place)) = open.pop_front() {
        if !placed.insert(place.clone()) {
            continue;
        }
        if placed.len() > MAX_LIBRARIES {
            return Err(ImageError::Program { path, reason: "it needs more libraries than an image has" });
        }
        let bytes = read(&path)?;
        let linked = linked(&bytes).map_err(|reason| ImageError::Program { path: path.clone(), reason })?;
        for name in linked.needs {
            let library =
                library(&name).ok_or_else(|| ImageError::NoLibrary { name: name.clone(), path: path.clone() })?;
            // The loader is asked for by name as well, and stands where programs say.
            if !name.starts_with("ld-linux") {
                open.push_back((library, format!("lib/{name}")));
            }
        }
        if let Some(loader) = linked.loader {
            open.push_back((PathBuf::from(&loader), loader.trim_start_matches('/').to_owned()));
        }
        found.push(Placed { path, place, bytes });
    }
    Ok(found)
}

/// The first of this name. A name with a directory in it would lead elsewhere.
fn library(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return None;
    }
    LIBRARIES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// What a program or a library needs: `PT_INTERP` and `DT_NEEDED`.
fn linked(bytes: &[u8]) -> Result<Linked, &'static str> {
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| "not a 64-bit ELF file")?;
    if file.architecture() != Architecture::X86_64 {
        return Err("another machine's");
    }
    let endian = file.endian();
    let mut linked = Linked { loader: None, needs: Vec::new() };
    for header in file.elf_program_headers() {
        if let Some(loader) = header.interpreter(endian, bytes).map_err(|_| "a broken name of a loader")? {
            let loader = std::str::from_utf8(loader).map_err(|_| "a broken name of a loader")?;
            linked.loader = Some(loader.to_owned());
        }
    }
    let table = file.elf_section_table().dynamic_table(endian, bytes).map_err(|_| "a broken list of libraries")?;
    for entry in table.iter() {
        match entry.tag {
            elf::DT_NEEDED => {
                let name = table.string(entry).map_err(|_| "a broken name of a library")?;
                linked.needs.push(std::str::from_utf8(name).map_err(|_| "a broken name of a library")?.to_owned());
            }
            elf::DT_RPATH | elf::DT_RUNPATH => return Err("it looks for libraries in places of its own"),
            _ => {}
        }
    }
    Ok(linked)
}

/// A kernel module.
#[derive(Debug)]
pub struct Module {
    /// Its name as the kernel has it, with `_`.
    pub name: String,
    /// Where it was found.
    pub path: PathBuf,
    /// The file, with the signature behind it.
    pub bytes: Vec<u8>,
}

/// Finds modules and all that they need, each after those that it needs.
pub fn modules(dir: &Path, wanted: &[String]) -> Result<Vec<Module>, ImageError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut search = Search { dir, files: files(dir)?, states: BTreeMap::new(), found: Vec::new() };
    for name in wanted {
        search.add(&kernel_name(name))?;
    }
    Ok(search.found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Done,
}

struct Search<'a> {
    dir: &'a Path,
    /// By name.
    files: BTreeMap<String, PathBuf>,
    states: BTreeMap<String, State>,
    found: Vec<Module>,
}

impl Search<'_> {
    /// No deeper than there are modules: one that is open needs itself.
    fn add(&mut self, name: &str) -> Result<(), ImageError> {
        let no_module = || ImageError::NoModule { name: name.into(), dir: self.dir.into() };
        let path = self.files.get(name).ok_or_else(no_module)?.clone();
        match self.states.insert(name.into(), State::Open) {
            Some(State::Done) => {
                self.states.insert(name.into(), State::Done);
                return Ok(());
            }
            Some(State::Open) => return Err(ImageError::Module { path, reason: "it needs itself" }),
            None => {}
        }
        if self.states.len() > MAX_MODULES {
            return Err(ImageError::TooManyModules(MAX_MODULES));
        }
        let bytes = read(&path)?;
        let needs = needs(&bytes).map_err(|reason| ImageError::Module { path: path.clone(), reason })?;
        for asked in needs.asked {
            let file = file_of(&self.files, &asked).filter(|name| self.states.get(name) != Some(&State::Open));
            if let Some(name) = file {
                self.add(&name)?;
            }
        }
        for needed in needs.linked {
            self.add(&needed)?;
        }
        self.states.insert(name.into(), State::Done);
        self.found.push(Module { name: name.into(), path, bytes });
        Ok(())
    }
}

/// What a module says that it needs.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    /// Modules whose symbols it uses (`depends=a,b`).
    linked: Vec<String>,
    /// What it asks the kernel for when it starts (`softdep=pre: a b`), which would have a program fetch it, and here is no such program.
    asked: Vec<String>,
}

fn needs(bytes: &[u8]) -> Result<Needs, &'static str> {
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| "not a 64-bit ELF file")?;
    said(file.section_by_name(".modinfo").ok_or("no .modinfo")?.data().map_err(|_| "a broken .modinfo")?)
}

/// Out of the section `.modinfo`: texts that end with zeroes (Linux, `include/linux/module.h`, `MODULE_INFO`).
fn said(info: &[u8]) -> Result<Needs, &'static str> {
    let text = |entry| std::str::from_utf8(entry).map_err(|_| "names are no text");
    let mut needs = Needs { linked: Vec::new(), asked: Vec::new() };
    let mut is_said = false;
    for entry in info.split(|byte| *byte == 0) {
        if let Some(names) = entry.strip_prefix(b"depends=") {
            is_said = true;
            needs.linked.extend(text(names)?.split(',').filter(|name| !name.is_empty()).map(kernel_name));
        } else if let Some(names) = entry.strip_prefix(b"softdep=") {
            let before = text(names)?.split("post:").next().unwrap_or_default();
            needs.asked.extend(before.split_whitespace().filter(|name| *name != "pre:").map(kernel_name));
        }
    }
    if is_said { Ok(needs) } else { Err("it does not say what it needs") }
}

fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The module behind what is asked for, an algorithm perhaps (`crypto-crc32c`); none where the kernel has it built in.
fn file_of(files: &BTreeMap<String, PathBuf>, asked: &str) -> Option<String> {
    let name = asked.strip_prefix("crypto_").unwrap_or(asked);
    [asked.to_owned(), format!("{name}_generic"), name.to_owned()].into_iter().find(|name| files.contains_key(name))
}

/// Every `.ko` below a directory by its name. Where two have one name, the one whose path comes first counts, wherever this runs.
fn files(dir: &Path) -> Result<BTreeMap<String, PathBuf>, ImageError> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    let mut seen = 0_usize;
    while let Some(dir) = open.pop() {
        let error = |source| ImageError::File { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            seen += 1;
            if seen > MAX_FILES {
                return Err(error(std::io::Error::other("more files than a kernel has modules")));
            }
            let path = entry.path();
            // Links, as `build` and `source`, lead out of it.
            if entry.file_type().map_err(error)?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
                let first = found.entry(name).or_insert_with(|| path.clone());
                if path < *first {
                    *first = path;
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_is_linked_to_and_what_it_asks_for() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        // As ext4 and btrfs of Debian 12 say it, and the order of both kinds.
        let cases: [(&[u8], &[&str], &[&str]); 4] = [
            (
                b"softdep=pre: crypto-crc32c\0license=GPL\0depends=jbd2,mbcache,crc16\0",
                &["jbd2", "mbcache", "crc16"],
                &["crypto_crc32c"],
            ),
            (b"softdep=pre: blake2b-256\0softdep=pre: sha256\0depends=\0", &[], &["blake2b_256", "sha256"]),
            (b"depends=libahci\0softdep=pre: a b post: c\0", &["libahci"], &["a", "b"]),
            (b"depends=dm-mod\0softdep=post: c\0", &["dm_mod"], &[]),
        ];
        for (info, linked, asked) in cases {
            assert_eq!(said(info), Ok(Needs { linked: names(linked), asked: names(asked) }));
        }
        assert!(said(b"license=GPL\0").is_err());
    }

    #[test]
    fn what_is_asked_for_may_be_an_algorithm_or_built_in() {
        let files = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), PathBuf::new())).collect();
        let some = files(&["crc32c_generic", "ecb", "md5", "sha256_ssse3"]);
        for (asked, expected) in [
            ("crypto_crc32c", Some("crc32c_generic")),
            ("crc32c", Some("crc32c_generic")),
            ("ecb", Some("ecb")),
            ("crypto_md5", Some("md5")),
            ("sha256", None),
        ] {
            assert_eq!(file_of(&some, asked).as_deref(), expected, "{asked}");
        }
    }
}
