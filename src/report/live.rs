//! The report while monitoring goes on: what each of its forms can say.

use std::io::{self, Write};
use std::time::Duration;

use memleax_platform::Pid;

use super::End;
use super::format::WriteError;
use crate::event::{Notice, StackId, Tally};
use crate::profile::{Profile, View};
use crate::symbol::NamedStack;
use crate::tracker::{Finding, Statistics};

/// A form of the live report. Everything fails as the output does.
pub trait Live {
    /// The start.
    ///
    /// # Errors
    /// When the output fails.
    fn begin(&mut self, target: Pid, backend: &str, expire: Duration) -> io::Result<()>;

    /// A remark of the source.
    ///
    /// # Errors
    /// When the output fails.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;

    /// Something worth knowing.
    ///
    /// # Errors
    /// When the output fails.
    fn remark(&mut self, text: &str) -> io::Result<()>;

    /// Something that makes the numbers wrong, or the target.
    ///
    /// # Errors
    /// When the output fails.
    fn warning(&mut self, text: &str) -> io::Result<()>;

    /// What the tracker found; with [`Finding::Expired`] comes its call stack.
    ///
    /// # Errors
    /// When the output fails.
    fn finding(&mut self, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()>;

    /// The same of objects of the type `of`, whose call stacks have numbers of their own.
    ///
    /// # Errors
    /// When the output fails.
    fn object_finding(&mut self, of: &str, finding: &Finding, stack: Option<&NamedStack>) -> io::Result<()>;

    /// Why monitoring ended.
    ///
    /// # Errors
    /// When the output fails.
    fn end(&mut self, end: End) -> io::Result<()>;

    /// The final statistics, and what they lack. `name` is asked for each call stack, in order.
    ///
    /// # Errors
    /// When the output fails.
    fn statistics(&mut self, statistics: &Statistics, name: &mut dyn FnMut(StackId) -> NamedStack) -> io::Result<()>;

    /// What a target that has ended never freed.
    ///
    /// # Errors
    /// When the output fails.
    fn never_freed(&mut self, blocks: Tally) -> io::Result<()>;

    /// The final statistics of objects of the type `of`.
    ///
    /// # Errors
    /// When the output fails.
    fn object_statistics(
        &mut self,
        of: &str,
        statistics: &Statistics,
        name: &mut dyn FnMut(StackId) -> NamedStack,
    ) -> io::Result<()>;

    /// How many objects of the type `of` a target that has ended never freed.
    ///
    /// # Errors
    /// When the output fails.
    fn objects_never_freed(&mut self, of: &str, objects: Tally) -> io::Result<()>;

    /// A snapshot that was just taken, the last of `profile`, and what is known until now as `view` sees it.
    ///
    /// # Errors
    /// When the output fails.
    fn snapshot(&mut self, profile: &Profile, view: &View) -> io::Result<()>;

    /// The trends of a run whose work was counted.
    ///
    /// # Errors
    /// When the output fails.
    fn trends(&mut self, profile: &Profile) -> io::Result<()>;

    /// Where it goes.
    fn output(&mut self) -> &mut dyn Write;
}

/// What writing a profile into the live report came to. What the view lacks is for those who asked for it, and nobody asked.
pub(super) fn written(result: Result<Vec<String>, WriteError>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(WriteError::Output(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}
