//! A line on the terminal that tells how far something is that takes more than a second.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Until then nothing is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows itself on standard error, if that is a terminal, until it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    began: std::time::Instant,
    what: String,
}

impl Progress {
    /// Something of `steps` steps begins; 0 if they cannot be counted.
    #[must_use]
    pub fn new(what: &str, steps: usize) -> Progress {
        let length = (steps > 0).then_some(steps as u64);
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        Progress { bar, began: std::time::Instant::now(), what: what.into() }
    }

    /// One step is done.
    pub fn step(&self) {
        self.bar.inc(1);
        if self.bar.is_hidden() && self.began.elapsed() >= PATIENCE {
            self.show();
        }
    }

    fn show(&self) {
        let style = match self.bar.length() {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
            None => "{msg} {spinner} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style);
        }
        self.bar.set_message(self.what.clone());
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
