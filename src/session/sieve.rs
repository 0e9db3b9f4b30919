//! Which call stacks the live report shows, and what it says of the others.

use std::collections::{BTreeMap, HashMap};

use crate::event::Tally;
use crate::filter::{Filters, Verdict};
use crate::profile::Profile;
use crate::symbol::NamedStack;
use crate::tracker::{CallStackNumber, CallStackStatistics, Finding, Statistics};

/// The user's filters, and what they said of each call stack.
pub(super) struct Sieve {
    filters: Filters,
    verdicts: HashMap<CallStackNumber, Verdict>,
}

impl Sieve {
    pub(super) fn new(filters: Filters) -> Sieve {
        Sieve { filters, verdicts: HashMap::new() }
    }

    /// True if a finding is shown. `stack` is that of [`Finding::Expired`].
    pub(super) fn shows(&mut self, finding: &Finding, stack: Option<&NamedStack>) -> bool {
        let (Finding::Expired { callstack, .. }
        | Finding::ExpiredAgain { callstack, .. }
        | Finding::ExpiredFreed { callstack, .. }
        | Finding::Muted { callstack }) = *finding;
        let verdict = match stack {
            Some(stack) => self.judge(callstack, stack),
            None => self.verdicts.get(&callstack).copied().unwrap_or(Verdict::Shown),
        };
        verdict == Verdict::Shown
    }

    fn judge(&mut self, callstack: CallStackNumber, stack: &NamedStack) -> Verdict {
        *self.verdicts.entry(callstack).or_insert_with(|| self.filters.judge(stack))
    }

    /// The profile as the filters leave it.
    pub(super) fn apply(&self, profile: Profile) -> Profile {
        self.filters.apply(profile)
    }

    /// The statistics of those call stacks that are shown, and sentences that say what the others have.
    pub(super) fn select(
        &mut self,
        statistics: &Statistics,
        mut name: impl FnMut(&CallStackStatistics) -> NamedStack,
    ) -> (Statistics, Vec<String>) {
        if !self.filters.leave_out() {
            return (statistics.clone(), Vec::new());
        }
        let mut selected = Statistics { call_stacks: Vec::new(), ..statistics.clone() };
        let mut left_out: BTreeMap<Option<usize>, (u64, Tally)> = BTreeMap::new();
        for call_stack in &statistics.call_stacks {
            let reason = match self.judge(call_stack.number, &name(call_stack)) {
                Verdict::Shown => {
                    selected.call_stacks.push(call_stack.clone());
                    continue;
                }
                Verdict::Filtered => None,
                Verdict::Suppressed(number) => Some(number),
            };
            let (stacks, blocks) = left_out.entry(reason).or_default();
            *stacks += 1;
            *blocks = blocks.plus(call_stack.may_leak());
        }
        let sentences = left_out.into_iter().map(|(reason, (stacks, Tally { count, bytes }))| {
            let what = reason.map_or("Filters".into(), |number| self.filters.suppression(number));
            let plural = if stacks == 1 { "" } else { "s" };
            format!("{what} left out {stacks} call stack{plural} with may-leak={count} ({bytes} bytes).")
        });
        (selected, sentences.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::StackId;
    use crate::filter::FilterOptions;
    use crate::profile::sample;

    #[test]
    fn call_stacks_that_are_left_out_are_not_mentioned_but_counted() {
        let sites = sample::profile().sites;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known.supp");
        std::fs::write(&path, "leak:Pool::take\n").expect("a file");
        let options = FilterOptions {
            exclude_modules: vec!["plug".into()],
            suppressions: vec![path.clone()],
            ..FilterOptions::default()
        };
        let mut sieve = Sieve::new(Filters::new(&options).expect("good filters"));
        let expired =
            |number: u32| Finding::Expired { callstack: CallStackNumber(number), stack: StackId(number), bytes: 1 };
        let again = |number| Finding::ExpiredAgain { callstack: CallStackNumber(number), bytes: 1, count: 2 };
        let shown: Vec<bool> =
            (0..3).map(|number| sieve.shows(&expired(number), Some(&sites[number as usize].stack))).collect();
        assert_eq!(shown, [false, false, true]);
        assert_eq!([0, 1, 2].map(|number| sieve.shows(&again(number), None)), [false, false, true]);

        let call_stack = |number: u32| CallStackStatistics {
            number: CallStackNumber(number),
            stack: StackId(number),
            expired: Tally { count: 5, bytes: 50 },
            freed_expired: Tally { count: 1, bytes: 10 },
            allocated: Tally::default(),
            freed: Tally::default(),
            freed_live_time: None,
            unfreed_live_time: Duration::ZERO,
        };
        let statistics = Statistics {
            monitored: Duration::ZERO,
            expire: Duration::ZERO,
            call_stacks: (0..3).map(call_stack).collect(),
            unexpired: Tally::default(),
            never_freed: Tally::default(),
            unknown_frees: 0,
            unseen_frees: Tally::default(),
            dropped_by_exec: Tally::default(),
            losses: BTreeMap::new(),
        };
        let (selected, sentences) = sieve.select(&statistics, |of| sites[of.stack.0 as usize].stack.clone());
        assert_eq!(selected.call_stacks, [call_stack(2)]);
        let path = path.display();
        assert_eq!(
            sentences,
            [
                "Filters left out 1 call stack with may-leak=4 (40 bytes).".to_owned(),
                format!("The suppression leak:Pool::take ({path}:1) left out 1 call stack with may-leak=4 (40 bytes)."),
            ]
        );
    }
}
