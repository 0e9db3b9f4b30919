//! Asks the run, in a thread of its own: keys are answered while frames are being named.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use crate::filter::Filters;
use crate::profile::{Profile, View};
use crate::report::{Detail, Format};
use crate::session::{Inquirer, InquiryError};

/// What is to be fetched or done.
pub(super) enum Errand {
    Profile,
    Snapshot,
    /// With what is known if the run is over.
    Save(Format, PathBuf, Option<Arc<Profile>>),
}

/// What came of it.
pub(super) enum News {
    Profile(Arc<Profile>),
    Taken(usize, Arc<Profile>),
    /// To be shown.
    Said(String),
    /// There is nothing new, for this reason.
    Nothing(InquiryError),
}

/// Starts the thread. It ends when nobody sends errands any more.
pub(super) fn start(inquirer: Inquirer, filters: Filters) -> io::Result<(Sender<Errand>, Receiver<News>)> {
    let (errands, inbox) = mpsc::channel();
    let (tell, news) = mpsc::channel();
    thread::Builder::new().name("fetch".into()).spawn(move || {
        for errand in inbox {
            if tell.send(run(errand, &inquirer, &filters)).is_err() {
                break;
            }
        }
    })?;
    Ok((errands, news))
}

fn run(errand: Errand, inquirer: &Inquirer, filters: &Filters) -> News {
    let filtered = |profile: &Profile| Arc::new(filters.apply(profile.clone()));
    match errand {
        Errand::Profile => match inquirer.profile() {
            Ok(profile) => News::Profile(filtered(&profile)),
            Err(error) => News::Nothing(error),
        },
        Errand::Snapshot => match inquirer.snapshot("request") {
            Ok(taken) => News::Taken(taken.number, filtered(&taken.profile)),
            Err(error) => News::Nothing(error),
        },
        Errand::Save(format, path, known) => {
            let profile = inquirer.profile().map(|profile| filtered(&profile)).ok().or(known);
            let Some(profile) = profile else { return News::Said("Nothing is known yet.".into()) };
            match format.write_file_detail(&profile, &View::Leaks, &Detail::default(), &path) {
                Ok(_) => News::Said(format!("Written: {}", path.display())),
                Err(error) => News::Said(format!("Nothing is written: {error}")),
            }
        }
    }
}
