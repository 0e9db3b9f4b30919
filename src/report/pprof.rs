//! pprof's `profile.proto`, gzipped: for `go tool pprof`, Perfetto, Speedscope and others.
//!
//! A file holds the four numbers of Go's heap profiles for each call stack, `alloc_objects`, `alloc_space`, `inuse_objects` and
//! `inuse_space`, so that habits and scripts work: all that was allocated, and what was live at the end. A view that shows something else adds
//! two numbers, such as `peak_objects` and `peak_space`. What a reader shows first is the view's.
//!
//! Unknown functions are named `module+0xoffset`. The losses and remarks are the profile's comments (`pprof -comments`); a call stack that is
//! not complete has the label `backtrace` that says why.

mod message;

use std::collections::HashMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use self::message::{Function, Label, Line, Location, Mapping, Sample, ValueType};
use super::format::WriteError;
use super::markup::in_one_line;
use super::notes::notes;
use super::wording;
use crate::profile::{Call, Change, Profile, View};
use crate::symbol::{NamedFrame, NamedStack};

/// Writes the whole run.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let message = message(profile, view)?;
    let mut encoder = GzEncoder::new(output, Compression::default());
    encoder.write_all(&message.encode_to_vec())?;
    encoder.finish()?;
    Ok(Vec::new())
}

fn message(profile: &Profile, view: &View) -> Result<message::Profile, WriteError> {
    let weighed = profile.weigh(view)?;
    let mut tables = Tables::new(profile);
    let mut names = vec!["alloc", "inuse"];
    let (first, of_view) = match view {
        View::Allocated => ("alloc", None),
        View::Leaks => ("inuse", None),
        View::Expired => ("expired", Some("expired")),
        View::Peak => ("peak", Some("peak")),
        View::Temporary => ("temporary", Some("temporary")),
        View::Snapshot(_) => ("snapshot", Some("snapshot")),
        View::Growth { .. } => ("growth", Some("growth")),
    };
    names.extend(of_view);
    let sample_type = names.iter().flat_map(|name| {
        let objects = tables.value_type(&format!("{name}_objects"), "count");
        [objects, tables.value_type(&format!("{name}_space"), "bytes")]
    });
    let sample_type = sample_type.collect();

    let mut changes = vec![Change::default(); profile.sites.len()];
    weighed.costs.iter().for_each(|cost| changes[cost.index] = cost.change);
    let mut sample = Vec::with_capacity(profile.sites.len());
    for (site, change) in profile.sites.iter().zip(changes) {
        let mut values = vec![Change::from(site.allocated), Change::from(site.live)];
        values.extend(of_view.map(|_| change));
        sample.push(Sample {
            location_id: tables.locations(&site.stack),
            value: values.into_iter().flat_map(|change| [change.count, change.bytes]).collect(),
            label: tables.label(&site.stack).into_iter().collect(),
        });
    }
    let mut comments = vec![format!("View: {}.", weighed.label)];
    comments.extend(notes(profile));
    let comment = comments.into_iter().map(|comment| tables.string(&comment)).collect();
    let period_type = Some(tables.value_type("space", "bytes"));
    let default_sample_type = tables.string(&format!("{first}_space"));
    Ok(message::Profile {
        sample_type,
        sample,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
        time_nanos: profile.run.started.cast_signed(),
        duration_nanos: i64::try_from(profile.run.monitored.as_nanos()).unwrap_or(i64::MAX),
        period_type,
        // Each byte counts: nothing was sampled.
        period: 1,
        comment,
        default_sample_type,
    })
}

/// What messages refer to, each once. Identifiers count from 1, in order.
struct Tables<'a> {
    strings: Vec<String>,
    mappings: Vec<Mapping>,
    locations: Vec<Location>,
    functions: Vec<Function>,
    string_indices: HashMap<String, i64>,
    /// Places in `mappings` by path: several where a library was loaded more than once.
    modules: HashMap<&'a str, Vec<usize>>,
    /// By module, address, and whether the frame is a caller.
    location_ids: HashMap<(&'a str, u64, bool), u64>,
    /// By name, system name and file.
    function_ids: HashMap<[i64; 3], u64>,
}

impl<'a> Tables<'a> {
    fn new(profile: &'a Profile) -> Tables<'a> {
        let mut tables = Tables {
            strings: Vec::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            functions: Vec::new(),
            string_indices: HashMap::new(),
            modules: HashMap::new(),
            location_ids: HashMap::new(),
            function_ids: HashMap::new(),
        };
        tables.string("");
        for module in &profile.modules {
            let build_id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
            let build_id = tables.string(&build_id);
            let mapping = tables.mapping(&module.path);
            mapping.memory_start = module.range.start;
            mapping.memory_limit = module.range.end;
            mapping.file_offset = module.file_offset;
            mapping.build_id = build_id;
        }
        tables
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.string_indices.get(text) {
            return index;
        }
        let index = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.string_indices.insert(text.to_owned(), index);
        index
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.string(kind), unit: self.string(unit) }
    }

    /// A new one.
    fn mapping(&mut self, path: &'a str) -> &mut Mapping {
        let index = self.mappings.len();
        let filename = self.string(path);
        self.mappings.push(Mapping { id: index as u64 + 1, filename, ..Mapping::default() });
        self.modules.entry(path).or_default().push(index);
        &mut self.mappings[index]
    }

    /// That of the frame's module; `None` for code in no file.
    fn mapping_of(&mut self, frame: &'a NamedFrame) -> Option<&mut Mapping> {
        if frame.module.is_empty() {
            return None;
        }
        let Some(candidates) = self.modules.get(frame.module.as_str()) else {
            return Some(self.mapping(&frame.module));
        };
        let holds = |mapping: &Mapping| (mapping.memory_start..mapping.memory_limit).contains(&frame.address);
        let index = candidates.iter().copied().find(|&index| holds(&self.mappings[index])).unwrap_or(candidates[0]);
        Some(&mut self.mappings[index])
    }

    fn locations(&mut self, stack: &'a NamedStack) -> Vec<u64> {
        stack.frames.iter().enumerate().map(|(depth, frame)| self.location(frame, depth > 0)).collect()
    }

    fn location(&mut self, frame: &'a NamedFrame, is_caller: bool) -> u64 {
        let key = (frame.module.as_str(), frame.address, is_caller);
        if let Some(&id) = self.location_ids.get(&key) {
            return id;
        }
        let mapping_id = self.mapping_of(frame).map_or(0, |mapping| {
            for function in &frame.functions {
                mapping.has_functions = true;
                mapping.has_filenames |= function.file.is_some();
                mapping.has_line_numbers |= function.line.is_some();
                // Both come from the same debug information.
                mapping.has_inline_frames |= function.line.is_some();
            }
            mapping.id
        });
        let line = frame.calls().map(|call| self.line(&call)).collect();
        let id = self.locations.len() as u64 + 1;
        // A return address may already be the next statement's.
        let address = frame.address.wrapping_sub(u64::from(is_caller));
        self.locations.push(Location { id, mapping_id, address, line });
        self.location_ids.insert(key, id);
        id
    }

    fn line(&mut self, call: &Call<'_>) -> Line {
        let name = in_one_line(&call.name());
        let raw = call.function.map_or("", |function| function.raw.as_str());
        let system_name = self.string(if raw.is_empty() { &name } else { raw });
        let (name, filename) = (self.string(&name), self.string(call.file().unwrap_or_default()));
        let id = self.functions.len() as u64 + 1;
        let function_id = *self.function_ids.entry([name, system_name, filename]).or_insert(id);
        if function_id == id {
            self.functions.push(Function { id, name, system_name, filename });
        }
        Line { function_id, line: i64::from(call.line().unwrap_or_default()) }
    }

    /// Why the stack is not what it should be.
    fn label(&mut self, stack: &NamedStack) -> Option<Label> {
        let why = match wording::ending(stack.ending) {
            Some(why) => why,
            None if stack.by_frame_pointer => wording::BY_FRAME_POINTER,
            None => return None,
        };
        Some(Label { key: self.string("backtrace"), str: self.string(why) })
    }
}
