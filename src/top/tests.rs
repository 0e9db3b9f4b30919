//! What is shown, on a screen in memory, and what keys change about it.

use std::path::PathBuf;
use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::draw::{Palette, course, draw};
use super::keys::action;
use super::rows::Order;
use super::state::{Effect, Mode, State};
use crate::event::{Tally, Timestamp};
use crate::profile::{Moment, Profile, sample};
use crate::report::Format;

fn state() -> State {
    let mut state = State::new("process 4321".into());
    state.renew(Arc::new(sample::profile()));
    state
}

/// The sample `seconds` later: the first site has allocated `blocks` more.
fn later(seconds: u64, blocks: u64) -> Arc<Profile> {
    let mut profile = sample::profile();
    let more = Tally { count: blocks, bytes: blocks * 128 };
    let last = *profile.timeline.last().expect("a moment");
    let at = Timestamp(last.at.0 + seconds * 1_000_000_000);
    profile.timeline.push(Moment { at, allocated: last.allocated.plus(more), live: last.live.plus(more) });
    profile.sites[0].live = profile.sites[0].live.plus(more);
    profile.sites[0].allocated = profile.sites[0].allocated.plus(more);
    Arc::new(profile)
}

fn press(state: &mut State, keys: &[KeyCode]) -> Option<Effect> {
    let mut effect = None;
    for key in keys {
        effect = action(&state.mode, KeyEvent::from(*key)).and_then(|action| state.act(action));
    }
    effect
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn screen(state: &State, width: u16, height: u16, has_colours: bool) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
    terminal.draw(|frame| draw(frame, state, Palette::new(has_colours))).expect("in memory");
    terminal.backend().clone()
}

fn text(state: &State) -> String {
    screen(state, 120, 40, false).to_string()
}

#[test]
fn totals_sites_stack_and_keys_are_shown() {
    let state = state();
    let text = text(&state);
    for part in [
        "memleax 4321 /srv/server --port 80",
        "live 9 blocks, 1.0 KiB",
        "Pool::take(int) (server.cpp:12)",
        "serve(std::vector<int> const&)  /src/server.cpp:44",
        "8 live of 10 blocks",
        "2 not seen",
        "live bytes over 10.0 s",
        "q quit",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "names command no terminal");
}

#[test]
fn no_screen_is_too_small_for_it() {
    let mut shown = state();
    for mode in [Mode::Browse, Mode::Help, Mode::Filter(String::new()), Mode::Save("x".into())] {
        shown.mode = mode;
        for width in [1, 2, 3, 7, 12, 40, 79, 80, 300] {
            for height in (1..=6).chain([15, 16, 17, 24, 60]) {
                screen(&shown, width, height, true);
            }
        }
    }
    let empty = State::new("process 1".into());
    screen(&empty, 1, 1, true);
}

#[test]
fn without_colours_there_are_none() {
    let coloured = |has_colours| {
        let backend = screen(&state(), 120, 40, has_colours);
        backend.buffer().content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(coloured(true) && !coloured(false));
}

#[test]
fn the_chosen_call_stack_stays_chosen() {
    let mut state = state();
    assert_eq!(state.place(), Some(0));
    press(&mut state, &[KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    let chosen = state.selected;
    assert_eq!(state.place(), Some(state.rows.len() - 1), "and not beyond the last");
    state.renew(later(1, 5));
    assert_eq!(state.selected, chosen);
    press(&mut state, &[KeyCode::Home]);
    assert_eq!(state.place(), Some(0));
}

#[test]
fn growth_is_since_the_snapshot_and_rates_are_of_the_last_seconds() {
    let mut state = state();
    assert_eq!(press(&mut state, &typed("s")), Some(Effect::Snapshot));
    state.taken(3, later(1, 0));
    state.renew(later(3, 40));
    let row = |state: &State| state.rows.iter().find(|row| row.site == 0).cloned().expect("it is listed");
    assert_eq!((row(&state).growth.count, row(&state).growth.bytes), (40, 40 * 128));
    assert_eq!(row(&state).rate, Tally { count: 13, bytes: 40 * 128 / 3 });
    assert!(text(&state).contains("since #3"));
    press(&mut state, &typed("g"));
    assert_eq!((state.order, state.place()), (Order::Growth, Some(0)));
    press(&mut state, &typed("c"));
    assert_eq!(state.baseline, None);
}

#[test]
fn a_filter_lists_what_has_it_anywhere() {
    let mut state = state();
    press(&mut state, &typed("/POOL"));
    assert_eq!(state.rows.len(), 1);
    assert!(text(&state).contains("/POOL▏"));
    press(&mut state, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!((state.filter.as_str(), &state.mode), ("POO", &Mode::Browse));
    press(&mut state, &typed("/xyz"));
    assert!(state.rows.is_empty() && state.place().is_none());
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!((state.filter.as_str(), state.rows.len()), ("POO", 1));
    press(&mut state, &[KeyCode::Esc]);
    assert!(state.rows.len() > 1);
}

#[test]
fn nothing_is_renewed_in_a_pause() {
    let mut state = state();
    press(&mut state, &typed("p"));
    state.renew(later(9, 99));
    assert_eq!(state.rows[0].live.count, 8);
    assert!(text(&state).contains("PAUSED") && !state.wants_news());
    press(&mut state, &typed("p"));
    state.renew(later(9, 99));
    assert_eq!(state.rows[0].live.count, 107);
}

#[test]
fn the_format_of_a_report_is_told_by_its_name() {
    let mut state = state();
    press(&mut state, &typed("w"));
    press(&mut state, &typed("q.svg"));
    assert!(text(&state).contains("q.svg▏"), "letters are letters there");
    assert_eq!(press(&mut state, &[KeyCode::Enter]), Some(Effect::Save(Format::Svg, PathBuf::from("q.svg"))));
    press(&mut state, &typed("wq.doc"));
    assert_eq!(press(&mut state, &[KeyCode::Enter]), None);
    assert!(state.message.as_deref().is_some_and(|message| message.contains("must end in one of .folded")));
}

#[test]
fn the_end_is_told_and_nothing_is_asked_any_more() {
    let mut state = state();
    state.end("The process ended with status 3.".into());
    assert!(text(&state).contains("The process ended with status 3."));
    assert!(!state.wants_news() && press(&mut state, &typed("s")).is_none());
    assert_eq!(press(&mut state, &typed("q")), Some(Effect::Leave));
}

#[test]
fn both_ways_to_leave_work_wherever_the_keys_go() {
    let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for mode in [Mode::Browse, Mode::Help, Mode::Filter(String::new()), Mode::Save(String::new())] {
        let mut state = state();
        state.mode = mode;
        let effect = action(&state.mode, quit).and_then(|action| state.act(action));
        assert_eq!(effect, Some(Effect::Leave));
    }
}

#[test]
fn help_is_left_by_any_key() {
    for key in [KeyCode::Char('x'), KeyCode::Char('?'), KeyCode::Esc, KeyCode::Down] {
        let mut state = state();
        press(&mut state, &typed("?"));
        assert!(text(&state).contains("any key"));
        press(&mut state, &[key]);
        assert_eq!(state.mode, Mode::Browse, "{key:?}");
    }
}

#[test]
fn the_course_has_a_number_for_each_column() {
    let profile = sample::profile();
    assert_eq!(course(&profile, 5), [128, 128, 4_768, 4_768, 1_024]);
    assert!(course(&Profile { timeline: Vec::new(), ..profile }, 5).is_empty());
}
