//! Distinct call stacks, each stored once.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::event::{Backtrace, StackId};

/// Distinct backtraces, numbered in the order of their first appearance.
#[derive(Debug, Default)]
pub struct StackTable {
    backtraces: Vec<Backtrace>,
    index: HashTable<u32>,
    /// Names of threads that stacks end with, as they were when first met.
    threads: FxHashMap<u32, Option<String>>,
}

impl StackTable {
    /// The id of `backtrace`, which is copied only if it is new.
    ///
    /// # Panics
    /// After 2^32 distinct stacks.
    pub fn intern(&mut self, backtrace: &Backtrace) -> StackId {
        if let Some(id) = self.find(backtrace) {
            return id;
        }
        let hash = FxBuildHasher.hash_one(backtrace);
        let id = u32::try_from(self.backtraces.len()).expect("fewer than 2^32 distinct stacks");
        let backtraces = &self.backtraces;
        self.index.insert_unique(hash, id, |&id| FxBuildHasher.hash_one(&backtraces[id as usize]));
        self.backtraces.push(backtrace.clone());
        StackId(id)
    }

    /// The id of `backtrace`, if it has one.
    #[must_use]
    pub fn find(&self, backtrace: &Backtrace) -> Option<StackId> {
        let hash = FxBuildHasher.hash_one(backtrace);
        self.index.find(hash, |&id| self.backtraces[id as usize] == *backtrace).map(|&id| StackId(id))
    }

    /// Notes a thread that stacks are going to end with; `name` is asked once for each.
    pub fn meet_thread(&mut self, tid: u32, name: impl FnOnce() -> Option<String>) {
        self.threads.entry(tid).or_insert_with(name);
    }

    /// The name of a thread, if it was known.
    #[must_use]
    pub fn thread_name(&self, tid: u32) -> Option<&str> {
        self.threads.get(&tid)?.as_deref()
    }

    /// The backtrace of an id that [`intern`](Self::intern) gave.
    #[must_use]
    pub fn get(&self, id: StackId) -> &Backtrace {
        &self.backtraces[id.0 as usize]
    }

    /// How many distinct stacks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.backtraces.len()
    }

    /// True if none was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backtraces.is_empty()
    }
}
