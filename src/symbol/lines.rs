//! DWARF: from an address to files, lines and inlined functions.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::{Context, Location, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{AbbreviationsCacheStrategy, Dwarf, DwarfFileType, DwarfPackage, EndianReader, LittleEndian, SectionId};
use gimli::{Reader as _, Section as _, UnitOffset};
use memleax_platform::SharedBytes;

use super::elf::ElfFile;
use super::scope::qualified_name;
use super::search::Search;

/// Reads what it owns a share of, so a context needs no borrowed file.
type Reader = EndianReader<LittleEndian, SharedBytes>;

/// The debug information of one module.
pub(super) struct Lines {
    context: Context<Reader>,
    package: Option<DwarfPackage<Reader>>,
    /// Directory of the module and of its debug file, where `.dwo` files may lie.
    directories: Vec<PathBuf>,
    /// For messages.
    path: PathBuf,
    /// Split units whose file was not found.
    missing_units: Cell<u64>,
    /// Addresses whose debug information is damaged.
    damaged: Cell<u64>,
}

/// What DWARF knows of an address at one level of inlining.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SourceFrame {
    /// As the linker names the function, or as the source does if the former is not given.
    pub(super) function: Option<String>,
    /// `function` with the scopes around it, where its language has them and `function` does not say.
    pub(super) qualified: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    die: Option<UnitOffset>,
}

impl Lines {
    /// Reads the headers of the units in `elf`, which was found at `path` and belongs to the module at `module`.
    ///
    /// # Errors
    /// If not even these can be read.
    pub(super) fn load(elf: &ElfFile, path: &Path, module: &Path, search: &Search) -> Result<Self, gimli::Error> {
        let alternate = elf.alternate_link().and_then(|link| search.alternate(path, &link));
        let load = || {
            let mut dwarf = load_dwarf(|id| section(elf, path, Some(id.name())));
            if let Some(found) = &alternate {
                dwarf.set_sup(load_dwarf(|id| section(&found.elf, &found.path, Some(id.name()))));
            }
            dwarf
        };
        let mut dwarf = load();
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let context = Context::from_dwarf(dwarf).or_else(|cause| {
            tracing::warn!("{}: its debug information is damaged ({cause}); what follows is ignored", path.display());
            let mut dwarf = load();
            keep_whole_units(&mut dwarf);
            Context::from_dwarf(dwarf)
        })?;
        let mut directories: Vec<_> =
            [module, path].iter().filter_map(|path| Some(path.parent()?.to_owned())).collect();
        directories.dedup();
        let package = [path, module].into_iter().find_map(|path| find_package(path, search));
        Ok(Self {
            context,
            package,
            directories,
            path: path.to_owned(),
            missing_units: Cell::default(),
            damaged: Cell::default(),
        })
    }

    /// What lies at `address`, innermost inlined function first; empty where nothing is known.
    pub(super) fn frames(&self, address: u64, search: &Search) -> Vec<SourceFrame> {
        self.try_frames(address, search).unwrap_or_else(|cause| {
            if count(&self.damaged) == 1 {
                tracing::warn!("{}: its debug information at {address:#x} is damaged: {cause}", self.path.display());
            }
            let location = self.context.find_location(address).ok().flatten();
            location
                .map(|at| SourceFrame { file: file(&at), line: at.line, ..Default::default() })
                .into_iter()
                .collect()
        })
    }

    fn try_frames(&self, address: u64, search: &Search) -> Result<Vec<SourceFrame>, gimli::Error> {
        if address == u64::MAX {
            // addr2line 0.26 looks for the range up to the next address, which overflows.
            return Ok(Vec::new());
        }
        let mut found = self.drive(self.context.find_frames(address), search)?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next()? {
            let function = frame.function.and_then(|name| Some(name.raw_name().ok()?.into_owned()));
            let is_mangled = function.as_ref().is_none_or(|name| name.starts_with("_Z"));
            frames.push(SourceFrame {
                qualified: frame.dw_die_offset.filter(|_| !is_mangled).and_then(|die| {
                    qualified_name(self.drive(self.context.find_dwarf_and_unit(address), search)?, die)
                }),
                function,
                file: frame.location.as_ref().and_then(file),
                line: frame.location.as_ref().and_then(|location| location.line),
                die: frame.dw_die_offset,
            });
        }
        Ok(frames)
    }

    /// Where the part of the function that `address` lies in begins; `frame` is its [`SourceFrame`].
    pub(super) fn function_start(&self, address: u64, frame: &SourceFrame, search: &Search) -> Option<u64> {
        let unit = self.drive(self.context.find_dwarf_and_unit(address), search)?;
        let entry = unit.entry(frame.die?).ok()?;
        let mut ranges = unit.die_ranges(&entry).ok()?;
        while let Some(range) = ranges.next().ok()? {
            if (range.begin..range.end).contains(&address) {
                return Some(range.begin);
            }
        }
        None
    }

    /// Loads the split units that a look-up asks for.
    fn drive<L: LookupContinuation<Buf = Reader>>(&self, mut lookup: LookupResult<L>, search: &Search) -> L::Output {
        loop {
            match lookup {
                LookupResult::Output(output) => return output,
                LookupResult::Load { load, continuation } => {
                    let unit = self.split_unit(&load, search);
                    if unit.is_none() {
                        self.tell_missing(&load);
                    }
                    lookup = continuation.resume(unit);
                }
            }
        }
    }

    /// The split unit, out of the `.dwp` package or its own `.dwo` file.
    fn split_unit(&self, load: &SplitDwarfLoad<Reader>, search: &Search) -> Option<Arc<Dwarf<Reader>>> {
        let packed =
            self.package.as_ref().and_then(|package| package.find_cu(load.dwo_id, &load.parent).ok().flatten());
        if let Some(dwarf) = packed {
            return Some(Arc::new(dwarf));
        }
        let name = split_path(load)?;
        let compiled_in = load.comp_dir.as_ref().and_then(to_path).map(|directory| directory.join(&name));
        let beside = self.directories.iter().flat_map(|directory| {
            [Some(directory.join(&name)), name.file_name().map(|name| directory.join(name))].into_iter().flatten()
        });
        compiled_in.into_iter().chain(beside).find_map(|path| {
            search.open(&path).find_map(|bytes| {
                let elf = ElfFile::parse(bytes).ok()?;
                let mut dwarf = load_dwarf(|id| section(&elf, &path, id.dwo_name()));
                dwarf.file_type = DwarfFileType::Dwo;
                let header = dwarf.units().next().ok()??;
                if dwarf.unit(header).ok()?.dwo_id != Some(load.dwo_id) {
                    tracing::warn!("{} is not used: it belongs to another build", path.display());
                    return None;
                }
                dwarf.make_dwo(&load.parent);
                Some(Arc::new(dwarf))
            })
        })
    }

    /// How many split units were asked for and not found.
    pub(super) fn missing_units(&self) -> u64 {
        self.missing_units.get()
    }

    fn tell_missing(&self, load: &SplitDwarfLoad<Reader>) {
        if count(&self.missing_units) == 1 {
            tracing::warn!(
                "{}: cannot find its split debug information {}, nor a .dwp file; inlined functions will be missing",
                self.path.display(),
                split_path(load).unwrap_or_default().display()
            );
        }
    }
}

/// One more.
fn count(counter: &Cell<u64>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}

/// The sections that names and lines need; variables, types and macros are left alone.
fn load_dwarf(mut section: impl FnMut(SectionId) -> Reader) -> Dwarf<Reader> {
    let loaded = Dwarf::load(|id| {
        Ok::<_, std::convert::Infallible>(match id {
            SectionId::DebugLoc
            | SectionId::DebugLocLists
            | SectionId::DebugMacinfo
            | SectionId::DebugMacro
            | SectionId::DebugNames
            | SectionId::DebugTypes => empty(),
            _ => section(id),
        })
    });
    match loaded {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

/// The section of this name; empty if there is none or it is damaged.
fn section(elf: &ElfFile, path: &Path, name: Option<&str>) -> Reader {
    let bytes = name.map_or(Ok(None), |name| elf.section(name)).unwrap_or_else(|cause| {
        tracing::warn!("{}: {cause}; it is ignored", path.display());
        None
    });
    EndianReader::new(bytes.unwrap_or_default(), LittleEndian)
}

fn empty() -> Reader {
    EndianReader::new(SharedBytes::default(), LittleEndian)
}

/// Cuts `.debug_info` where its chain of units breaks, and does without the index of addresses.
fn keep_whole_units(dwarf: &mut Dwarf<Reader>) {
    let mut units = dwarf.units();
    let mut end = 0;
    while let Ok(Some(header)) = units.next() {
        if let Some(offset) = header.debug_info_offset() {
            end = offset.0 + header.length_including_self();
        }
    }
    let mut info = dwarf.debug_info.reader().clone();
    if info.truncate(end).is_ok() {
        dwarf.debug_info = info.into();
    }
    dwarf.debug_aranges = empty().into();
}

/// `PROGRAM.dwp`, or `NAME.dwp` for `NAME.debug`.
fn find_package(path: &Path, search: &Search) -> Option<DwarfPackage<Reader>> {
    let mut appended = path.as_os_str().to_owned();
    appended.push(".dwp");
    [PathBuf::from(appended), path.with_extension("dwp")].iter().find_map(|path| {
        search.open(path).find_map(|bytes| {
            let loaded = ElfFile::parse(bytes).map_err(|cause| cause.to_string()).and_then(|elf| {
                let section = |id: SectionId| Ok::<_, gimli::Error>(section(&elf, path, id.dwo_name()));
                DwarfPackage::load(section, empty()).map_err(|cause| cause.to_string())
            });
            loaded.map_err(|cause| tracing::warn!("cannot use {}: {cause}", path.display())).ok()
        })
    })
}

fn split_path(load: &SplitDwarfLoad<Reader>) -> Option<PathBuf> {
    load.path.as_ref().and_then(to_path)
}

fn to_path(bytes: &Reader) -> Option<PathBuf> {
    Some(PathBuf::from(OsStr::from_bytes(&bytes.to_slice().ok()?)))
}

fn file(location: &Location<'_>) -> Option<String> {
    location.file.map(str::to_owned)
}
