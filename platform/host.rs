//! What a machine, and the rights that we have on it, allow.

/// The machine as far as it matters to tracing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The kernel, its release and architecture.
    pub system: String,
    /// Who we are, and what that allows.
    pub rights: Vec<Remark>,
    /// What concerns tracing by breakpoints.
    pub tracing: Vec<Remark>,
    /// What concerns programs inside the kernel; nothing where the kernel has no such thing.
    pub programs: Vec<Remark>,
}

/// Something found out, good or bad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// True if it is in nobody's way.
    pub fine: bool,
    /// The finding.
    pub text: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Remark {
    /// A good one.
    pub fn fine(text: impl Into<String>) -> Self {
        Remark { fine: true, text: text.into(), remedy: None }
    }

    /// A bad one.
    pub fn bad(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Remark { fine: false, text: text.into(), remedy: Some(remedy.into()) }
    }
}
