//! What a watched program says of its own call sites.

/// One call site that plants leaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Blocks not freed.
    pub blocks: u64,
    /// Their bytes, as the program asked.
    pub bytes: u64,
    /// Blocks obtained with this call stack.
    pub allocations: u64,
    /// Blocks of this call stack that were freed.
    pub frees: u64,
    /// The expected call stack, innermost first.
    pub chain: Vec<Step>,
}

/// One element of an expected call stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Any number of frames that are not the program's own.
    Library,
    /// Frames of one function.
    Function {
        /// Its name, or the names that will do.
        names: Vec<String>,
        /// The line that the (innermost) frame stands at.
        line: Option<u32>,
        /// How many.
        frames: usize,
        /// The function is inlined into the next: it shows only with debug information.
        inlined: bool,
    },
}

/// All that a program says of its call sites.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Truth {
    /// The call sites that leak or might.
    pub sites: Vec<Site>,
    /// Functions whose allocations are not the program's planting (the dynamic linker's).
    pub ignored: Vec<String>,
}

impl Truth {
    /// Reads the `site` and `ignore` lines of a program's answer.
    ///
    /// # Panics
    /// If one is not of the form.
    #[must_use]
    pub fn parse(lines: &[String]) -> Self {
        let mut truth = Truth::default();
        for line in lines {
            if let Some(rest) = line.strip_prefix("site ") {
                truth.sites.push(Site::parse(rest).unwrap_or_else(|| panic!("not a site: {line:?}")));
            } else if let Some(name) = line.strip_prefix("ignore ") {
                truth.ignored.push(name.to_owned());
            }
        }
        truth
    }

    /// The number of blocks that were planted in all.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.sites.iter().map(|site| site.blocks).sum()
    }

    /// The program's own functions that stand in chains; a library frame has none of these names.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        let steps = self.sites.iter().flat_map(|site| site.chain.iter().skip(1));
        steps
            .flat_map(|step| match step {
                Step::Library => [].iter(),
                Step::Function { names, .. } => names.iter(),
            })
            .map(String::as_str)
    }
}

impl Site {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(7, ' ');
        let name = fields.next()?.to_owned();
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (blocks, bytes, allocations, frees) = (number()?, number()?, number()?, number()?);
        let line = u32::try_from(number()?).ok()?;
        let chain = fields.next()?.split("<-").map(|step| Step::parse(step, line)).collect();
        Some(Site { name, blocks, bytes, allocations, frees, chain })
    }
}

impl Step {
    fn parse(text: &str, call_line: u32) -> Self {
        if text == "*" {
            return Step::Library;
        }
        let (text, inlined) = text.strip_prefix('~').map_or((text, false), |rest| (rest, true));
        let (text, line) = text.strip_suffix(":@").map_or((text, None), |rest| (rest, Some(call_line)));
        let repeated = text.strip_suffix('}').and_then(|rest| rest.split_once('{'));
        let (text, frames) = repeated.map_or((text, 1), |(name, n)| (name, n.parse().expect("a number of frames")));
        Step::Function { names: text.split('|').map(str::to_owned).collect(), line, frames, inlined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_chain() {
        let lines = ["site x 1 2 3 4 55 malloc|operator new<-*<-~Deep<0>::leak:@<-f{3}<-main".to_owned()];
        let truth = Truth::parse(&lines);
        let function = |names: &[&str], line, frames, inlined| Step::Function {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            line,
            frames,
            inlined,
        };
        assert_eq!(
            truth.sites[0].chain,
            [
                function(&["malloc", "operator new"], None, 1, false),
                Step::Library,
                function(&["Deep<0>::leak"], Some(55), 1, true),
                function(&["f"], None, 3, false),
                function(&["main"], None, 1, false),
            ]
        );
        assert_eq!((truth.blocks(), truth.functions().next()), (1, Some("Deep<0>::leak")));
    }
}
