//! Functions and calls of a profile, each once, by number.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::symbol::{NamedFrame, NamedStack};

/// A function: calls of equal name in the same module are one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::report) struct Function<'a> {
    /// Its name; `module+0xoffset` or the address where that is unknown.
    pub(in crate::report) name: String,
    /// The module's path; empty for code in no file.
    pub(in crate::report) module: &'a str,
}

/// A place in a function.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::report) struct Place<'a> {
    /// By number.
    pub(in crate::report) function: u32,
    /// Address in the module's file.
    pub(in crate::report) offset: u64,
    /// Source file, as far as known.
    pub(in crate::report) file: Option<&'a str>,
    /// Line in `file`.
    pub(in crate::report) line: Option<u32>,
    /// The compiler put it into its caller.
    pub(in crate::report) inlined: bool,
}

/// Numbers functions and places as it meets them, from 0.
#[derive(Default, Debug)]
pub(in crate::report) struct Names<'a> {
    functions: Vec<Function<'a>>,
    places: Vec<Place<'a>>,
    function_numbers: FxHashMap<Function<'a>, u32>,
    place_numbers: FxHashMap<Place<'a>, u32>,
    /// The places of a frame, innermost first, by its address in memory: most frames are shared by many stacks.
    by_frame: FxHashMap<usize, Box<[u32]>>,
}

impl<'a> Names<'a> {
    /// In order of their numbers.
    pub(in crate::report) fn functions(&self) -> &[Function<'a>] {
        &self.functions
    }

    /// In order of their numbers.
    pub(in crate::report) fn places(&self) -> &[Place<'a>] {
        &self.places
    }

    /// The place of each function in the order of names: boxes lie in that order, so that pictures of different views and runs are alike.
    pub(in crate::report) fn rank(&self) -> Vec<u32> {
        let mut order: Vec<usize> = (0..self.functions.len()).collect();
        order.sort_by_key(|&function| (&self.functions[function].name, self.functions[function].module));
        let mut rank = vec![0; order.len()];
        for (place, function) in (0..).zip(order) {
            rank[function] = place;
        }
        rank
    }

    /// The places of a stack, by number, outermost first, instead of what was in `path`.
    pub(in crate::report) fn path(&mut self, stack: &'a NamedStack, path: &mut Vec<u32>) {
        path.clear();
        for frame in stack.frames.iter().rev() {
            let key = Arc::as_ptr(frame).addr();
            if !self.by_frame.contains_key(&key) {
                let places = self.number(frame);
                self.by_frame.insert(key, places);
            }
            path.extend(self.by_frame[&key].iter().rev());
        }
    }

    fn number(&mut self, frame: &'a NamedFrame) -> Box<[u32]> {
        frame
            .calls()
            .map(|call| {
                let name = match call.function {
                    Some(function) if !function.name.is_empty() => function.name.clone(),
                    _ if frame.module.is_empty() => call.place(),
                    _ => format!("{}+0x{:x}", call.module_name(), frame.offset),
                };
                let function = Function { name, module: &frame.module };
                let function = numbered(&mut self.functions, &mut self.function_numbers, function);
                let inlined = call.function.is_some_and(|function| function.inlined);
                let place = Place { function, offset: frame.offset, file: call.file(), line: call.line(), inlined };
                numbered(&mut self.places, &mut self.place_numbers, place)
            })
            .collect()
    }
}

fn numbered<T: Clone + Eq + std::hash::Hash>(all: &mut Vec<T>, numbers: &mut FxHashMap<T, u32>, one: T) -> u32 {
    *numbers.entry(one).or_insert_with_key(|one| {
        all.push(one.clone());
        u32::try_from(all.len() - 1).expect("fewer than 2^32 names fit into memory")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    #[test]
    fn a_path_leads_from_the_outermost_function_through_inlined_ones_to_the_allocator() {
        let profile = sample::profile();
        let mut names = Names::default();
        let mut path = Vec::new();
        let mut told = Vec::new();
        for site in &profile.sites {
            names.path(&site.stack, &mut path);
            let function = |&place: &u32| names.places()[place as usize].function as usize;
            told.push(
                path.iter().map(|place| names.functions()[function(place)].name.as_str()).collect::<Vec<_>>().join(" "),
            );
        }
        assert_eq!(told[0], "main serve(std::vector<int> const&) Pool::take(int) malloc");
        assert!(told[1].starts_with("main plug in.so+0x4242 evil"), "{}", told[1]);
        assert_eq!(told[2], "0x7fff12345678 malloc");
        let inlined: Vec<bool> = names.places().iter().map(|place| place.inlined).collect();
        assert_eq!(inlined.iter().filter(|&&inlined| inlined).count(), 1);
        assert_eq!(names.functions().len(), names.places().len());
    }
}
