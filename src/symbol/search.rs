//! Finding the files that hold what was stripped: by build id, by link, beside the program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memleax_platform::{MappedFile, RootDirectory, SharedBytes};

use super::elf::{AlternateLink, BuildId, ElfFile};

/// Where separate debug files are looked for.
#[derive(Debug)]
pub(super) struct Search {
    /// The target's root first, then memleax's own.
    roots: Vec<RootDirectory>,
    /// `/usr/lib/debug`, below each root.
    debug_directories: Vec<PathBuf>,
}

/// A file found, and where.
#[derive(Debug)]
pub(super) struct Found {
    /// Below the root that it was found in.
    pub(super) path: PathBuf,
    pub(super) elf: ElfFile,
}

/// How a file shows that it belongs to another: by the same build id, or else by the CRC-32 of its whole content.
#[derive(Clone, Copy)]
struct Proof<'a> {
    build_id: Option<&'a BuildId>,
    crc: Option<u32>,
}

/// Why a file does not belong to a program.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Another build.
    #[error("its build id is {found}, that of the program is {wanted}")]
    BuildId {
        /// The file's; or that it has none.
        found: String,
        /// The program's.
        wanted: String,
    },
    /// Other content than `.gnu_debuglink` says.
    #[error("its CRC-32 is {found:#010x}, the program's .gnu_debuglink asks for {wanted:#010x}")]
    Crc {
        /// Of the file.
        found: u32,
        /// As the link says.
        wanted: u32,
    },
}

impl Search {
    /// Looks below the target's root, then below memleax's own.
    pub(super) fn new(target_root: Option<RootDirectory>, debug_directories: Vec<PathBuf>) -> Self {
        let own = match RootDirectory::at(Path::new("/")) {
            Ok(root) => Some(root),
            Err(cause) => {
                tracing::warn!("cannot open /: {cause}; debug files are only looked for in the target's root");
                None
            }
        };
        Self { roots: target_root.into_iter().chain(own).collect(), debug_directories }
    }

    /// The files at `path`, one for each root that has one.
    pub(super) fn open<'s>(&'s self, path: &'s Path) -> impl Iterator<Item = SharedBytes> + 's {
        self.roots.iter().filter_map(move |root| {
            let file = root.open(path).ok()?;
            match MappedFile::new(&file) {
                Ok(mapped) => Some(SharedBytes::from(Arc::new(mapped))),
                Err(cause) => {
                    tracing::warn!("cannot map {}: {cause}; it is ignored", path.display());
                    None
                }
            }
        })
    }

    /// The debug file of the program `elf` at `path`.
    pub(super) fn debug_file(&self, path: &Path, elf: &ElfFile) -> Option<Found> {
        let mut rejected = Vec::new();
        let by_id = elf.build_id().and_then(|id| {
            let name = id.debug_path()?;
            let paths = self.debug_directories.iter().map(|directory| directory.join(&name));
            self.first_proven(paths, Proof { build_id: Some(id), crc: None }, &mut rejected)
        });
        let found = by_id.or_else(|| {
            let link = elf.debug_link()?;
            let name = OsStr::from_bytes(&link.name);
            let directory = path.parent()?;
            let below = |debug: &PathBuf| debug.join(directory.strip_prefix("/").unwrap_or(directory)).join(name);
            let paths = [directory.join(name), directory.join(".debug").join(name)].into_iter();
            let paths = paths.chain(self.debug_directories.iter().map(below));
            let proof = Proof { build_id: elf.build_id(), crc: Some(link.crc) };
            self.first_proven(paths, proof, &mut rejected)
        });
        if found.is_none() {
            for (path, cause) in rejected {
                tracing::warn!("{} is not used as debug file: {cause}", path.display());
            }
        }
        found
    }

    /// The file that holds what dwz moved out of the debug file at `path`.
    pub(super) fn alternate(&self, path: &Path, link: &AlternateLink) -> Option<Found> {
        let named = Path::new(OsStr::from_bytes(&link.path));
        let mut paths = vec![path.parent().unwrap_or(Path::new("/")).join(named)];
        for directory in &self.debug_directories {
            paths.extend(link.build_id.debug_path().map(|name| directory.join(name)));
            paths.extend(named.file_name().map(|name| directory.join(".dwz").join(name)));
        }
        let mut rejected = Vec::new();
        let found =
            self.first_proven(paths.into_iter(), Proof { build_id: Some(&link.build_id), crc: None }, &mut rejected);
        if found.is_none() {
            tracing::warn!(
                "cannot find the alternate debug file {} (build id {}) of {}{}; names and lines will be incomplete",
                named.display(),
                link.build_id,
                path.display(),
                rejected.iter().map(|(path, cause)| format!(" ({}: {cause})", path.display())).collect::<String>(),
            );
        }
        found
    }

    fn first_proven(
        &self,
        paths: impl Iterator<Item = PathBuf>,
        proof: Proof<'_>,
        rejected: &mut Vec<(PathBuf, String)>,
    ) -> Option<Found> {
        for path in paths {
            for bytes in self.open(&path) {
                match ElfFile::parse(bytes) {
                    Err(cause) => rejected.push((path.clone(), cause.to_string())),
                    Ok(elf) => match proof.check(&elf) {
                        Err(cause) => rejected.push((path.clone(), cause.to_string())),
                        Ok(_) if elf.has_debug_info() || elf.has_symbols() => {
                            return Some(Found { path: path.clone(), elf });
                        }
                        Ok(_) => {}
                    },
                }
            }
        }
        None
    }
}

impl Proof<'_> {
    /// What shows that the candidate belongs; `None` if there is nothing to compare.
    fn check(self, candidate: &ElfFile) -> Result<Option<String>, Mismatch> {
        match (self.build_id, candidate.build_id(), self.crc) {
            (Some(wanted), Some(found), _) if wanted == found => Ok(Some(format!("build id {found}"))),
            (Some(wanted), Some(found), _) => {
                Err(Mismatch::BuildId { found: found.to_string(), wanted: wanted.to_string() })
            }
            (_, _, Some(wanted)) => match crc32(candidate.bytes()) {
                found if found == wanted => Ok(Some(format!("CRC-32 {found:#010x}"))),
                found => Err(Mismatch::Crc { found, wanted }),
            },
            (Some(wanted), None, None) => {
                Err(Mismatch::BuildId { found: "missing".to_owned(), wanted: wanted.to_string() })
            }
            (None, _, None) => Ok(None),
        }
    }
}

/// What shows that `candidate` is the debug file of `program`; `None` if there is nothing to compare.
pub(super) fn check_belongs(program: &ElfFile, candidate: &ElfFile) -> Result<Option<String>, Mismatch> {
    let proof = Proof { build_id: program.build_id(), crc: program.debug_link().map(|link| link.crc) };
    proof.check(candidate)
}

/// The checksum of `.gnu_debuglink`.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
