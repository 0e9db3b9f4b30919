//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::Order;
use super::state::{Action, Mode};

/// Lines of a page.
const PAGE: usize = 10;

/// What help shows.
pub(super) const HELP: [(&str, &str); 12] = [
    ("↑ ↓ PgUp PgDn Home End", "choose a call stack (also k j)"),
    ("← →", "scroll its frames"),
    ("b g r, Tab", "order by live bytes, growth, rate; the next of them"),
    ("/", "show those only that have this in a function, file or module; Esc: all"),
    ("p, Space", "pause, and go on"),
    ("s", "take a snapshot: growth is told since then"),
    ("c", "forget it: growth is of the last minute"),
    ("w", "write a report of what is known now; its format is told by the file's name"),
    ("?", "this"),
    ("q, Ctrl-C", "leave the process as it was found, and print the final statistics"),
    ("", ""),
    ("any key", "go back"),
];

/// What a key asks for; `None` if it means nothing.
pub(super) fn action(mode: &Mode, key: KeyEvent) -> Option<Action> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is_writing = matches!(mode, Mode::Filter(_) | Mode::Save(_));
    Some(match key.code {
        KeyCode::Char('c') if is_control => Action::Quit,
        KeyCode::Char('u') if is_control && is_writing => Action::Erase,
        KeyCode::Char(character) if is_writing && !is_control => Action::Type(character),
        KeyCode::Backspace if is_writing => Action::Erase,
        KeyCode::Enter => Action::Accept,
        KeyCode::Esc => Action::Cancel,
        _ if is_writing || is_control => return None,
        // Any other key leaves help.
        _ if *mode == Mode::Help => Action::Help,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Up | KeyCode::Char('k') => Action::Up(1),
        KeyCode::Down | KeyCode::Char('j') => Action::Down(1),
        KeyCode::PageUp => Action::Up(PAGE),
        KeyCode::PageDown => Action::Down(PAGE),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Left => Action::StackUp,
        KeyCode::Right => Action::StackDown,
        KeyCode::Char('b') => Action::Order(Order::Live),
        KeyCode::Char('g') => Action::Order(Order::Growth),
        KeyCode::Char('r') => Action::Order(Order::Rate),
        KeyCode::Tab => Action::NextOrder,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('s') => Action::Snapshot,
        KeyCode::Char('c') => Action::ForgetSnapshot,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('w') => Action::Save,
        KeyCode::Char('?' | 'h') => Action::Help,
        _ => return None,
    })
}
