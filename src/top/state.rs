//! What the display shows, and what keys do to it. Nothing here knows a terminal, a clock or a run.

use std::path::PathBuf;
use std::sync::Arc;

use super::rows::{Baseline, Order, Past, Row, rows};
use crate::profile::{Profile, SiteId};
use crate::report::Format;

/// What a key asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Quit,
    Up(usize),
    Down(usize),
    First,
    Last,
    StackUp,
    StackDown,
    Order(Order),
    NextOrder,
    Pause,
    Snapshot,
    ForgetSnapshot,
    Filter,
    Save,
    Help,
    Type(char),
    Erase,
    Accept,
    Cancel,
}

/// What is to be done besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Leave,
    Snapshot,
    Save(Format, PathBuf),
}

/// Who takes the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Browse,
    /// The filter is written; before it was this.
    Filter(String),
    /// The name of a file is written.
    Save(String),
    Help,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) title: String,
    pub(super) profile: Option<Arc<Profile>>,
    pub(super) rows: Vec<Row>,
    pub(super) order: Order,
    pub(super) filter: String,
    pub(super) selected: Option<SiteId>,
    /// Lines of the stack that are above its window.
    pub(super) scroll: u16,
    pub(super) mode: Mode,
    pub(super) is_paused: bool,
    pub(super) baseline: Option<Baseline>,
    /// What came of the last thing that was asked for, or why there is nothing new.
    pub(super) message: Option<String>,
    /// How the run ended.
    pub(super) ending: Option<String>,
    past: Past,
}

impl State {
    pub(super) fn new(title: String) -> State {
        State {
            title,
            profile: None,
            rows: Vec::new(),
            order: Order::Live,
            filter: String::new(),
            selected: None,
            scroll: 0,
            mode: Mode::Browse,
            is_paused: false,
            baseline: None,
            message: None,
            ending: None,
            past: Past::default(),
        }
    }

    /// True if profiles are to be fetched.
    pub(super) fn wants_news(&self) -> bool {
        !self.is_paused && self.ending.is_none()
    }

    /// What is known now.
    pub(super) fn renew(&mut self, profile: Arc<Profile>) {
        self.past.remember(&profile);
        if self.wants_news() || self.profile.is_none() {
            self.profile = Some(profile);
            self.list();
        }
    }

    /// A snapshot was taken: growth is from there on.
    pub(super) fn taken(&mut self, number: usize, profile: Arc<Profile>) {
        self.baseline = Some(Baseline::of(&profile, number));
        self.message = Some(format!("Snapshot {number} is taken: growth is since then."));
        self.renew(profile);
        self.list();
    }

    /// The run is over.
    pub(super) fn end(&mut self, ending: String) {
        self.ending.get_or_insert(ending);
    }

    /// The line that is chosen.
    pub(super) fn place(&self) -> Option<usize> {
        let selected = self.selected?;
        self.rows.iter().position(|row| row.id == selected)
    }

    fn list(&mut self) {
        let Some(profile) = &self.profile else { return };
        self.rows = rows(profile, &self.past, self.baseline.as_ref(), self.order, &self.filter);
        if self.place().is_none() {
            self.select(0);
        }
    }

    fn select(&mut self, place: usize) {
        let row = self.rows.get(place.min(self.rows.len().saturating_sub(1)));
        let selected = row.map(|row| row.id);
        if selected != self.selected {
            self.selected = selected;
            self.scroll = 0;
        }
    }

    /// Does what is asked for.
    pub(super) fn act(&mut self, action: Action) -> Option<Effect> {
        let place = self.place().unwrap_or(0);
        match (&mut self.mode, action) {
            (_, Action::Quit) => return Some(Effect::Leave),
            (Mode::Help, _) => self.mode = Mode::Browse,
            (Mode::Filter(before), Action::Cancel) => {
                self.filter = std::mem::take(before);
                self.mode = Mode::Browse;
                self.list();
            }
            (Mode::Filter(_), Action::Accept) => self.mode = Mode::Browse,
            (Mode::Filter(_), Action::Type(character)) => {
                self.filter.push(character);
                self.list();
            }
            (Mode::Filter(_), Action::Erase) => {
                self.filter.pop();
                self.list();
            }
            (Mode::Save(_), Action::Cancel) => self.mode = Mode::Browse,
            (Mode::Save(name), Action::Type(character)) => name.push(character),
            (Mode::Save(name), Action::Erase) => _ = name.pop(),
            (Mode::Save(name), Action::Accept) => {
                let path = PathBuf::from(std::mem::take(name));
                self.mode = Mode::Browse;
                return self.save(path);
            }
            (Mode::Browse, Action::Up(lines)) => self.select(place.saturating_sub(lines)),
            (Mode::Browse, Action::Down(lines)) => self.select(place + lines),
            (Mode::Browse, Action::First) => self.select(0),
            (Mode::Browse, Action::Last) => self.select(usize::MAX),
            (Mode::Browse, Action::StackUp) => self.scroll = self.scroll.saturating_sub(1),
            (Mode::Browse, Action::StackDown) => self.scroll = self.scroll.saturating_add(1),
            (Mode::Browse, Action::Order(order)) => self.order_by(order),
            (Mode::Browse, Action::NextOrder) => self.order_by(match self.order {
                Order::Live => Order::Growth,
                Order::Growth => Order::Rate,
                Order::Rate => Order::Live,
            }),
            (Mode::Browse, Action::Pause) => self.is_paused = !self.is_paused,
            (Mode::Browse, Action::Snapshot) if self.ending.is_none() => {
                self.message = Some("Taking a snapshot…".into());
                return Some(Effect::Snapshot);
            }
            (Mode::Browse, Action::ForgetSnapshot) => {
                self.baseline = None;
                self.message = None;
                self.list();
            }
            (Mode::Browse, Action::Filter) => self.mode = Mode::Filter(self.filter.clone()),
            (Mode::Browse, Action::Save) => self.mode = Mode::Save(String::new()),
            (Mode::Browse, Action::Help) => self.mode = Mode::Help,
            (Mode::Browse, Action::Cancel) => {
                self.message = None;
                self.filter.clear();
                self.list();
            }
            _ => {}
        }
        None
    }

    fn order_by(&mut self, order: Order) {
        self.order = order;
        self.list();
    }

    fn save(&mut self, path: PathBuf) -> Option<Effect> {
        if path.as_os_str().is_empty() {
            return None;
        }
        if let Some(format) = Format::of_path(&path) {
            self.message = Some(format!("Writing {}…", path.display()));
            return Some(Effect::Save(format, path));
        }
        let endings: Vec<&str> = Format::all().filter_map(|format| format.endings().first().copied()).collect();
        self.message = Some(format!("Nothing is written: the name must end in one of {}.", endings.join(" ")));
        None
    }
}
