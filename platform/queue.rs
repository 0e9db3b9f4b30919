//! Reports that came while something else was waited for.

use std::collections::VecDeque;

use crate::{Pid, Report, Stop};

/// Takes the stops of one process out; what else there is keeps its order.
pub(crate) fn take_stops(queue: &mut VecDeque<Report>, pid: Pid) -> Vec<Stop> {
    let mut stops = Vec::new();
    for report in std::mem::take(queue) {
        match report {
            Report::Stopped(stop) if stop.pid == pid => stops.push(stop),
            other => queue.push_back(other),
        }
    }
    stops
}
