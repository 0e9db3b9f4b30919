//! The display as a thread that attends a run.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::draw::{Palette, draw};
use super::fetch::{self, Errand, News};
use super::gate::Gate;
use super::keys::action;
use super::state::{Effect, State};
use super::terminal::Taken;
use super::watchdog::Watchdog;
use crate::filter::Filters;
use crate::session::{Attendant, Inquirer, InquiryError};

/// Between two looks at keys and news.
const TICK: Duration = Duration::from_millis(100);

/// Between two looks at the run.
const PERIOD: Duration = Duration::from_secs(1);

/// Why there can be no display.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Standard input or output is none.
    #[error(
        "cannot show a display: standard input and output are no terminal; `memleax --interval 5 PID` prints lists instead"
    )]
    NoTerminal,
    /// It can do nothing but lines.
    #[error(
        "cannot show a display: this terminal moves no cursor (TERM={0}); `memleax --interval 5 PID` prints lists instead"
    )]
    Dumb(String),
    /// It cannot be used.
    #[error("cannot show a display: {0}; `memleax --interval 5 PID` prints lists instead")]
    Failed(#[from] io::Error),
}

/// A terminal that a display can be shown on.
#[derive(Debug)]
pub struct Display {
    device: File,
    watchdog: Option<Watchdog>,
}

impl Display {
    /// Looks at the terminal. To be called before anything is traced.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn prepare(output: &(impl AsFd + IsTerminal)) -> Result<Display, Unusable> {
        if !io::stdin().is_terminal() || !output.is_terminal() {
            return Err(Unusable::NoTerminal);
        }
        match std::env::var("TERM") {
            Ok(name) if name == "dumb" => return Err(Unusable::Dumb(name)),
            _ => {}
        }
        let device = File::from(output.as_fd().try_clone_to_owned()?);
        let watchdog = Watchdog::start(&device)
            .inspect_err(|error| tracing::info!("should memleax be killed, `reset` puts the terminal right: {error}"));
        Ok(Display { device, watchdog: watchdog.ok() })
    }

    /// The terminal, for what is to be written after the display.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn device(&self) -> io::Result<File> {
        self.device.try_clone()
    }

    /// Shows a run, as `filters` leave it; then opens `gates`. Who leaves the display ends the run.
    #[must_use]
    pub fn attendant(self, filters: Filters, has_colours: bool, gates: Vec<Gate>) -> Attendant {
        let attendant = Attendant::new("top", move |inquirer| {
            let _at_the_end = Leaving { inquirer: inquirer.clone(), gates };
            let Display { device, watchdog } = self;
            let shown = Taken::new(device, watchdog)
                .and_then(|taken| show(taken, &inquirer, filters, Palette::new(has_colours)));
            if let Err(error) = shown {
                tracing::warn!("the display ends: {error}");
            }
        });
        attendant.that_stays()
    }
}

/// However the display ends, the report is let through and the run is ended.
struct Leaving {
    inquirer: Inquirer,
    gates: Vec<Gate>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.inquirer.stop();
        for gate in &self.gates {
            // Whoever prints next learns of it.
            _ = gate.open();
        }
    }
}

fn show(mut taken: Taken, inquirer: &Inquirer, filters: Filters, palette: Palette) -> io::Result<()> {
    let (errands, news) = fetch::start(inquirer.clone(), filters)?;
    let mut state = State::new(format!("process {}", inquirer.target()));
    let mut asked: Option<Instant> = None;
    let mut is_waiting = false;
    let mut drawn = None;
    let mut has_changed = true;
    while Taken::is_taken() && !inquirer.is_dismissed() {
        let is_due = |since: Option<Instant>| since.is_none_or(|since| since.elapsed() >= PERIOD);
        if has_changed || is_due(drawn) {
            taken.terminal.draw(|frame| draw(frame, &state, palette))?;
            drawn = Some(Instant::now());
            has_changed = false;
        }
        if state.wants_news() && !is_waiting && is_due(asked) {
            is_waiting = errands.send(Errand::Profile).is_ok();
            asked = Some(Instant::now());
        }
        taken.wait_for_keys(TICK)?;
        while event::poll(Duration::ZERO)? {
            has_changed = true;
            if handle(&event::read()?, &mut state, &errands) {
                return Ok(());
            }
        }
        has_changed |= take_news(&news, &mut state, &mut is_waiting)?;
        if state.ending.is_none()
            && let Some(ending) = inquirer.wait_for_end(Duration::ZERO)
        {
            // Who has asked for an end wants no display any more.
            if !inquirer.has_target_ended() {
                return Ok(());
            }
            state.end(ending);
            has_changed = true;
        }
    }
    Ok(())
}

/// True if the display is to be left.
fn handle(event: &Event, state: &mut State, errands: &Sender<Errand>) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match action(&state.mode, *key).and_then(|action| state.act(action)) {
        Some(Effect::Leave) => return true,
        Some(Effect::Snapshot) => _ = errands.send(Errand::Snapshot),
        Some(Effect::Save(format, path)) => _ = errands.send(Errand::Save(format, path, state.profile.clone())),
        None => {}
    }
    false
}

/// True if there is something new.
fn take_news(news: &Receiver<News>, state: &mut State, is_waiting: &mut bool) -> io::Result<bool> {
    let mut has_news = false;
    loop {
        match news.try_recv() {
            Ok(News::Profile(profile)) => {
                *is_waiting = false;
                if state.message.as_deref() == Some(&InquiryError::Busy.to_string()) {
                    state.message = None;
                }
                state.renew(profile);
            }
            Ok(News::Taken(number, profile)) => state.taken(number, profile),
            Ok(News::Said(text)) => state.message = Some(text),
            Ok(News::Nothing(why)) => {
                *is_waiting = false;
                // How the run ended is told otherwise.
                if why == InquiryError::Busy {
                    state.message = Some(why.to_string());
                }
            }
            Err(TryRecvError::Empty) => return Ok(has_news),
            Err(TryRecvError::Disconnected) => return Err(io::Error::other("the thread that asks the run has ended")),
        }
        has_news = true;
    }
}
