//! Serves the metrics of a run while it goes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memleax_platform::OwnCost;

use super::exposition::Form;
use super::page::{Page, State};
use super::server::{Listener, ServerError};
use crate::filter::Filters;
use crate::profile::Profile;
use crate::session::{Attendant, Inquirer, InquiryError};

/// At most so long the end of the run is waited for at once.
const ROUND: Duration = Duration::from_secs(3600);

/// What is to be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Where; with port 0, at any that is free.
    pub address: SocketAddr,
    /// How many call stacks have series of their own.
    pub sites: usize,
}

/// Takes the address, and returns it as it is now with who serves the run's metrics there; suspects are what `filters` show.
///
/// # Errors
/// [`ServerError`]: the address cannot be had.
pub fn attend(wish: Wish, filters: Filters) -> Result<(SocketAddr, Attendant), ServerError> {
    let listener = Listener::bind(wish.address)?;
    let address = listener.address();
    let attendant = Attendant::new("metrics", move |inquirer| {
        let metrics =
            Metrics { inquirer: inquirer.clone(), filters, latest: Mutex::new((Page::new(wish.sites), None)) };
        let (server, serve) = listener.into_server(move |form| metrics.page(form));
        let serving = std::thread::Builder::new().name("metrics".into()).spawn(serve);
        if let Err(error) = &serving {
            tracing::warn!("no metrics are served: {error}");
        }
        while inquirer.wait_for_end(ROUND).is_none() {}
        drop(server);
        if let Ok(thread) = serving
            && thread.join().is_err()
        {
            tracing::warn!("the thread that serves metrics has panicked");
        }
    });
    Ok((address, attendant))
}

/// Makes pages of what the run tells.
struct Metrics {
    inquirer: Inquirer,
    filters: Filters,
    /// What makes pages, and what the last was made of.
    latest: Mutex<(Page, Option<Arc<Profile>>)>,
}

impl Metrics {
    /// The page as of now; as of the last time if the run is over, and none if there was none or if it is busy.
    fn page(&self, form: Form) -> Option<String> {
        // One at a time: who asks while an answer is made waits for the next.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (page, last) = &mut *latest;
        let (whole, observes) = match self.inquirer.profile() {
            Ok(profile) => (profile, true),
            Err(InquiryError::Over) => (last.clone()?, false),
            Err(InquiryError::Busy) => return None,
        };
        *last = Some(Arc::clone(&whole));
        let filtered = self.filters.apply(Profile::clone(&whole));
        page.write(&State { whole: &whole, filtered: &filtered, observes, cost: OwnCost::now() }, form).ok()
    }
}
