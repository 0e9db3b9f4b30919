//! The modules of a run that is over, as far as their files are still there.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use memleax_platform::MappedFile;

use super::image::{Image, Layout};
use super::module::{Module, ModuleTable, Role};
use crate::event::ModuleId;

/// A module as it was noted down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotedModule {
    /// As the target saw it.
    pub path: PathBuf,
    /// `NT_GNU_BUILD_ID`; empty if it had none.
    pub build_id: Vec<u8>,
    /// Run-time addresses of all its segments.
    pub range: Range<u64>,
    /// As [`Module::bias`].
    pub bias: u64,
    /// It is the program.
    pub is_executable: bool,
}

impl ModuleTable {
    /// The table of these modules, with the images of those files that are still the same. Says what is not, as sentences.
    #[must_use]
    pub fn reopened(noted: impl IntoIterator<Item = NotedModule>) -> (ModuleTable, Vec<String>) {
        let mut table = ModuleTable::default();
        let mut remarks = Vec::new();
        for module in noted {
            let id = table.next_id();
            let path = module.path.display().to_string();
            let module = match open(id, &module) {
                Ok(module) => module,
                Err(why) => {
                    // The vdso is in no file.
                    if path.starts_with('/') {
                        remarks.push(format!("{path}: its functions have no names, as {why}."));
                    }
                    without_image(id, module)
                }
            };
            table.push(Arc::new(module));
        }
        (table, remarks)
    }
}

fn open(id: ModuleId, noted: &NotedModule) -> Result<Module, String> {
    let file = File::open(&noted.path).and_then(|file| MappedFile::new(&file)).map_err(|error| error.to_string())?;
    let file = Arc::new(file);
    let layout = Layout::parse(&file)?;
    if layout.build_id.as_deref().unwrap_or_default() != noted.build_id {
        return Err("the file is of another build now".into());
    }
    let role = if noted.is_executable { Role::Executable } else { Role::Library };
    let mut module = Module::from_layout(id, noted.path.clone(), (0, 0), role, noted.bias, layout);
    module.image = Some(Image::File(file));
    Ok(module)
}

fn without_image(id: ModuleId, noted: NotedModule) -> Module {
    Module {
        id,
        path: noted.path,
        file_id: (0, 0),
        role: if noted.is_executable { Role::Executable } else { Role::Library },
        bias: noted.bias,
        range: noted.range,
        image: None,
        image_error: None,
        build_id: (!noted.build_id.is_empty()).then(|| noted.build_id.into()),
        segments: Vec::new(),
        entry: 0,
        eh_frame_hdr: None,
    }
}
