//! The rule table of all live modules, as the kernel's programs search it.

use std::sync::atomic::Ordering::{Relaxed, Release};

use memleax_platform::SharedWords;
use rustc_hash::FxHashMap;

use super::layout::RULES;
use crate::event::ModuleId;
use crate::unwind::{Image, Module, ModuleMap, Rule, rule_rows};

/// An address as its module's file counts it, and the number of the rule that holds from there on.
type NumberedRow = (u64, u16);

/// Compiles modules, each once, and numbers rules; numbers never change their meaning.
#[derive(Debug)]
pub(super) struct RuleTable {
    numbers: FxHashMap<Rule, u16>,
    rules: Vec<u64>,
    modules: FxHashMap<ModuleId, Vec<NumberedRow>>,
    /// Rules beyond what the kernel's map holds: left to the general unwinder.
    pub(super) left_out: usize,
}

/// Where the kernel finds the table.
pub(super) struct KernelTable<'a> {
    pub(super) rows: &'a SharedWords,
    pub(super) rules: &'a SharedWords,
    pub(super) rule_cache: &'a SharedWords,
    /// `control.rows`.
    pub(super) in_use: &'a std::sync::atomic::AtomicU64,
}

impl RuleTable {
    pub(super) fn new() -> Self {
        let mut table =
            RuleTable { numbers: FxHashMap::default(), rules: Vec::new(), modules: FxHashMap::default(), left_out: 0 };
        // Rule 0 is what no row covers.
        table.number(Rule::GAP);
        table.number(Rule::SLOW);
        table
    }

    /// The rows of the modules that are live now, ascending: `run-time address << 16 | rule`.
    pub(super) fn rows(
        &mut self,
        modules: &ModuleMap,
        debug_file: &mut dyn FnMut(&Module) -> Option<Image>,
    ) -> Vec<u64> {
        let mut rows = Vec::new();
        let mut end = 0;
        for module in modules.live() {
            if !self.modules.contains_key(&module.id) {
                let compiled = rule_rows(module, debug_file);
                let numbered = compiled.iter().map(|row| (row.start, self.number(row.rule))).collect();
                self.modules.insert(module.id, numbered);
            }
            if module.range.start > end {
                rows.push(end << 16);
            }
            end = module.range.end;
            let numbered = &self.modules[&module.id];
            rows.extend(numbered.iter().map(|&(start, rule)| module.run_time_address(start) << 16 | u64::from(rule)));
        }
        rows.push(end << 16);
        // Modules do not overlap, but one may be mapped into a hole of another.
        rows.sort_unstable();
        rows
    }

    /// Makes `rows` the table in use. False if it has no room for them: then the old one stays.
    pub(super) fn publish(&self, rows: &[u64], kernel: &KernelTable<'_>) -> bool {
        let half = kernel.rows.len() / 2;
        if rows.len() > half {
            return false;
        }
        for (word, rule) in kernel.rules.iter().zip(&self.rules) {
            word.store(*rule, Relaxed);
        }
        let first = if kernel.in_use.load(Relaxed) >> 32 == 0 { half } else { 0 };
        for (word, row) in kernel.rows[first..].iter().zip(rows) {
            word.store(*row, Relaxed);
        }
        kernel.in_use.store((first as u64) << 32 | rows.len() as u64, Release);
        forget_cached(kernel.rule_cache);
        true
    }

    fn number(&mut self, rule: Rule) -> u16 {
        if let Some(&number) = self.numbers.get(&rule) {
            return number;
        }
        if self.rules.len() == RULES {
            self.left_out += 1;
            return self.numbers[&Rule::SLOW];
        }
        // RULES is far below 2^16.
        let number = self.rules.len() as u16;
        self.rules.push(rule.encode());
        self.numbers.insert(rule, number);
        number
    }
}

/// Makes the kernel look every address up again. To be repeated a little later: a lookup may be under way.
pub(super) fn forget_cached(rule_cache: &SharedWords) {
    rule_cache.iter().for_each(|word| word.store(0, Relaxed));
}
