//! What was mapped in the target at the time that a record is about: when it is read, that may be gone.

use memleax_platform::Mapping;

use crate::unwind::ModuleMap;

/// Mappings of the past, as far as records may still be about them.
///
/// Two looks at all mappings, the newest and the one before, and every mapping of code made since: so what is asked about must
/// be later than the look before the newest, and is until [`settle`](Self::settle).
#[derive(Debug, Default)]
pub(super) struct History {
    /// The look before the newest, and when it began, if records are still about it.
    before: Option<(u64, Vec<Mapping>)>,
    newest: Vec<Mapping>,
    /// When the newest look began. Times are the kernel's monotonic clock's.
    looked: u64,
    /// Mappings of code, and when they were made; ascending.
    made: Vec<(u64, Mapping)>,
}

/// A state of the mappings, to tell one from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    of_newest: bool,
    /// How many of those made are in it.
    made: usize,
}

impl History {
    /// Takes a new look, begun at `time`.
    pub(super) fn look(&mut self, time: u64, mappings: Vec<Mapping>) {
        let before = std::mem::replace(&mut self.newest, mappings);
        self.before.get_or_insert((self.looked, before));
        self.looked = time;
        self.identify();
    }

    /// When the newest look began.
    pub(super) fn looked(&self) -> u64 {
        self.looked
    }

    /// What the newest look found.
    pub(super) fn newest(&self) -> &[Mapping] {
        &self.newest
    }

    /// Takes mappings that were made; ascending. True if some were made after the newest look.
    pub(super) fn add(&mut self, made: Vec<(u64, Mapping)>) -> bool {
        self.made.extend(made);
        // Each processor tells by itself.
        self.made.sort_by_key(|&(time, _)| time);
        self.identify();
        self.made.last().is_some_and(|&(time, _)| time > self.looked)
    }

    /// All records until the newest look are dealt with.
    pub(super) fn settle(&mut self) {
        self.before = None;
        self.made.retain(|&(time, _)| time > self.looked);
    }

    /// Some mappings were not told: what is remembered besides the newest look may be wrong.
    pub(super) fn forget(&mut self) {
        self.before = None;
        self.made.clear();
    }

    /// The state at a time; `None` if the newest look shows it.
    pub(super) fn state(&self, time: u64) -> Option<State> {
        let of_newest = self.before.is_none() || time >= self.looked;
        let made = self.made.partition_point(|&(made, _)| made <= time);
        let differs = !of_newest || self.made[..made].iter().any(|&(made, _)| made > self.looked);
        differs.then_some(State { of_newest, made })
    }

    /// When the look began that a state goes by: whatever it adds was mapped later.
    pub(super) fn began(&self, state: State) -> u64 {
        self.before.as_ref().filter(|_| !state.of_newest).map_or(self.looked, |&(time, _)| time)
    }

    /// The mappings of a state, ascending.
    pub(super) fn mappings(&self, state: State) -> Vec<Mapping> {
        let mut mappings = self.base(state).to_vec();
        for made in self.since(state) {
            mappings.retain(|mapping| mapping.end <= made.start || made.end <= mapping.start);
            mappings.push(made.clone());
        }
        mappings.sort_by_key(|mapping| mapping.start);
        mappings
    }

    /// True if `modules` do not show an address as it was in a state.
    pub(super) fn contradicts(&self, state: State, modules: &ModuleMap, address: u64) -> bool {
        let covers = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&address);
        let made = self.since(state).rev().find(covers);
        let Some(mapping) = made.or_else(|| self.base(state).iter().find(covers)) else { return false };
        let offset = mapping.offset.wrapping_add(address - mapping.start);
        match modules.lookup(address) {
            Some((module, in_file)) => (module.file_id, module.file_offset(in_file)) != (mapping.file_id, Some(offset)),
            // Code in no file is in no module.
            None => mapping.file_id != (0, 0),
        }
    }

    /// What the look before the newest found, as far as that matters.
    pub(super) fn before(&self) -> &[Mapping] {
        self.before.as_ref().map_or(&self.newest, |(_, mappings)| mappings)
    }

    /// True if who goes by `look` (begun at `after`) takes the code that is at an address at a time for some other that was there.
    pub(super) fn is_mistaken(&self, look: &[Mapping], after: u64, address: u64, time: u64) -> bool {
        let covers = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
        let mut since = self.made.iter().filter(|&&(made, _)| after < made && made <= time);
        let Some((_, made)) = since.rfind(|(_, made)| covers(made)) else { return false };
        let mut of_look = look.iter().filter(|mapping| mapping.executable && covers(mapping));
        of_look.any(|other| (other.start, other.end, other.file_id) != (made.start, made.end, made.file_id))
    }

    /// Of stacked file systems, not every kernel tells the same inode when a file is mapped and when it is looked at.
    fn identify(&mut self) {
        for mapping in self.newest.iter().filter(|mapping| mapping.executable) {
            let is_same = |made: &Mapping| {
                (made.start, made.end, made.offset, &made.path)
                    == (mapping.start, mapping.end, mapping.offset, &mapping.path)
            };
            let mut before = self.made.iter_mut().filter(|(time, _)| *time <= self.looked);
            if let Some((_, made)) = before.rfind(|(_, made)| made.start < mapping.end && mapping.start < made.end)
                && is_same(made)
            {
                made.file_id = mapping.file_id;
            }
        }
    }

    fn base(&self, state: State) -> &[Mapping] {
        self.before.as_ref().filter(|_| !state.of_newest).map_or(&self.newest, |(_, mappings)| mappings)
    }

    fn since(&self, state: State) -> impl DoubleEndedIterator<Item = &Mapping> {
        let after = if state.of_newest { self.looked } else { 0 };
        self.made[..state.made].iter().filter(move |&&(time, _)| time > after).map(|(_, mapping)| mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, inode: u64) -> Mapping {
        Mapping {
            start,
            end: start + 0x1000,
            offset: 0,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            file_id: (1, inode),
            path: format!("/lib/{inode}.so").into(),
            deleted: false,
        }
    }

    fn files(history: &History, time: u64) -> Option<Vec<(u64, u64)>> {
        let mappings = history.mappings(history.state(time)?);
        Some(mappings.iter().map(|mapping| (mapping.start, mapping.file_id.1)).collect())
    }

    #[test]
    fn what_has_gone_is_there_at_its_time() {
        let mut history = History::default();
        history.look(10, vec![mapping(0x1000, 1)]);
        history.settle();
        assert_eq!(history.state(15), None, "as the newest look shows it");
        assert!(history.add(vec![(20, mapping(0x5000, 2)), (30, mapping(0x5000, 3))]));
        history.look(40, vec![mapping(0x1000, 1)]);
        assert_eq!(files(&history, 15), Some(vec![(0x1000, 1)]));
        assert_eq!(files(&history, 25), Some(vec![(0x1000, 1), (0x5000, 2)]));
        assert_eq!(files(&history, 35), Some(vec![(0x1000, 1), (0x5000, 3)]), "in the place of another");
        assert_eq!(history.state(45), None);
        history.settle();
        assert_eq!(history.state(45), None);
        assert!(history.made.is_empty());
    }

    #[test]
    fn what_came_after_the_look_is_kept() {
        let mut history = History::default();
        history.look(10, vec![mapping(0x1000, 1)]);
        history.settle();
        assert!(history.add(vec![(20, mapping(0x5000, 2))]));
        history.settle();
        assert_eq!(history.state(15), None);
        assert_eq!(files(&history, 25), Some(vec![(0x1000, 1), (0x5000, 2)]));
        history.look(30, vec![mapping(0x1000, 1), mapping(0x5000, 2)]);
        assert!(!history.add(Vec::new()));
        assert_eq!(history.state(35), None);
    }

    #[test]
    fn one_look_after_another_before_anything_is_dealt_with() {
        let mut history = History::default();
        history.look(10, vec![mapping(0x1000, 1)]);
        history.settle();
        history.look(20, vec![mapping(0x2000, 2)]);
        history.look(30, Vec::new());
        assert_eq!(files(&history, 15), Some(vec![(0x1000, 1)]));
    }

    #[test]
    fn modules_that_show_something_else_are_contradicted() {
        let mut history = History::default();
        history.look(10, vec![mapping(0x1000, 1)]);
        history.settle();
        history.look(20, Vec::new());
        let state = history.state(15).expect("not as now");
        let nothing = ModuleMap::default();
        assert!(history.contradicts(state, &nothing, 0x1800));
        assert!(!history.contradicts(state, &nothing, 0x2800), "of what is unknown nothing is said");
    }

    #[test]
    fn a_file_has_the_number_that_the_look_shows() {
        let mut history = History::default();
        let of_layer = Mapping { file_id: (9, 9), ..mapping(0x5000, 2) };
        history.add(vec![(20, of_layer.clone()), (25, mapping(0x9000, 3))]);
        history.look(30, vec![mapping(0x5000, 2)]);
        assert_eq!(history.made[0].1, mapping(0x5000, 2));
        history.look(40, vec![mapping(0x9000, 4)]);
        assert_eq!(history.made[1].1, mapping(0x9000, 3), "another file");
    }

    #[test]
    fn who_has_not_looked_since_is_mistaken() {
        let mut history = History::default();
        history.add(vec![(20, mapping(0x1000, 1))]);
        let is_mistaken = |look: &[Mapping], after, time| history.is_mistaken(look, after, 0x1fff, time);
        assert!(is_mistaken(&[mapping(0x1000, 2)], 10, 25));
        assert!(!is_mistaken(&[mapping(0x1000, 2)], 10, 15), "it was there still");
        assert!(!is_mistaken(&[mapping(0x1000, 1)], 10, 25), "the look came by in time");
        assert!(!is_mistaken(&[], 10, 25), "what is not known is not mistaken");
    }
}
