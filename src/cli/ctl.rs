//! Questions to a memleax that runs.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Subcommand, ValueHint};

use crate::control::{Request, Watched};
use crate::profile::{SiteId, Topic};
use crate::report::Format;

#[derive(Args, Clone, Debug)]
pub(super) struct CtlArguments {
    /// The process that is watched; or TARGET.MEMLEAX, two process ids, if several watch it
    #[arg(value_name = "PID")]
    watched: Watched,

    #[command(subcommand)]
    request: RequestArgument,
}

#[derive(Subcommand, Clone, Debug)]
enum RequestArgument {
    /// Print totals, rates, losses, and the call stacks with the most live bytes, with their ids
    Stats,
    /// Print all that is known of one call stack
    Show {
        /// Its id, as `stats` prints it
        #[arg(value_name = "ID")]
        id: SiteId,
    },
    /// Take a snapshot, which the recording keeps and views can name
    Snapshot,
    /// Write a report of what is known now
    Report {
        /// In this format; that of FILE's name if it is left out
        #[arg(value_name = "FORMAT", value_parser = super::documents::parse_format, required_unless_present = "output")]
        format: Option<Format>,

        /// Write it to FILE
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,

        /// Report this view, as elsewhere
        #[arg(long, value_name = "VIEW", default_value = "leaks")]
        view: Topic,
    },
    /// End that memleax as Ctrl-C does: it leaves the process as it was found, and reports
    Stop,
}

impl CtlArguments {
    /// Whom to ask what, and where the answer goes, if not to standard output.
    pub(super) fn into_question(self) -> Result<(Watched, Request, Option<PathBuf>), clap::Error> {
        let (request, output) = match self.request {
            RequestArgument::Stats => (Request::Stats, None),
            RequestArgument::Show { id } => (Request::Show(id), None),
            RequestArgument::Snapshot => (Request::Snapshot, None),
            RequestArgument::Stop => (Request::Stop, None),
            RequestArgument::Report { format, output, view } => {
                let by_name = || output.as_deref().and_then(Format::of_path);
                let Some(format) = format.or_else(by_name) else {
                    let text = "cannot tell the format by the file's name; give it before -o\n";
                    return Err(clap::Error::raw(ErrorKind::InvalidValue, text));
                };
                (Request::Report { format, topic: view }, output)
            }
        };
        Ok((self.watched, request, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn question(arguments: &[&str]) -> Result<(String, Option<PathBuf>), ErrorKind> {
        match parse(["memleax", "ctl"].iter().chain(arguments)) {
            Ok(Command::Ctl { request, output, .. }) => Ok((request.to_string(), output)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn questions_are_told_as_the_socket_has_them() {
        assert_eq!(question(&["7", "stats"]), Ok(("stats".into(), None)));
        assert_eq!(question(&["7.9", "show", "0a1b2c3d"]), Ok(("show 0a1b2c3d".into(), None)));
        assert_eq!(question(&["7", "report", "svg", "--view", "peak"]), Ok(("report svg peak".into(), None)));
        let to_file = question(&["7", "report", "-o", "x.html"]);
        assert_eq!(to_file, Ok(("report html leaks".into(), Some("x.html".into()))));
        assert_eq!(question(&["7", "report", "-o", "x.doc"]), Err(ErrorKind::InvalidValue));
        assert_eq!(question(&["7", "report"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(question(&["x", "stats"]), Err(ErrorKind::ValueValidation));
    }
}
