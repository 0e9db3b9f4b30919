//! What `gprof2dot -f json` draws as a graph of callers and callees.
//!
//! The schema allows no keys but these, and gprof2dot reads the first cost only: bytes.
//! <https://github.com/jrfonseca/gprof2dot/blob/master/schema.json>

use std::collections::HashMap;
use std::io::Write;

use serde::Serialize;

use super::collapsed::left_out;
use super::format::WriteError;
use super::markup::in_one_line;
use crate::profile::{Profile, View};

#[derive(Serialize)]
struct File<'a> {
    version: u32,
    costs: [Cost; 1],
    functions: Vec<Function<'a>>,
    events: Vec<Event>,
}

#[derive(Serialize)]
struct Cost {
    description: &'static str,
    unit: &'static str,
}

#[derive(Serialize)]
struct Function<'a> {
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    module: &'a str,
}

#[derive(Serialize)]
struct Event {
    /// Indices of functions, callee first.
    callchain: Vec<usize>,
    cost: [i64; 1],
}

/// Writes the bytes of each call stack. Those without positive bytes are left out, and counted in what is returned.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    // Two modules may have the same name in different folders.
    let mut known: HashMap<(&str, String), usize> = HashMap::new();
    let mut functions = Vec::new();
    let mut events = Vec::new();
    for cost in weighed.costs.iter().filter(|cost| cost.change.bytes > 0) {
        let callchain = cost.site.stack.calls().map(|call| {
            let name = in_one_line(&call.name());
            *known.entry((&call.frame.module, name.clone())).or_insert_with(|| {
                functions.push(Function { name, module: call.module_name() });
                functions.len() - 1
            })
        });
        let callchain = callchain.collect();
        events.push(Event { callchain, cost: [cost.change.bytes] });
    }
    let costs = [Cost { description: "Memory", unit: "bytes" }];
    serde_json::to_writer(&mut *output, &File { version: 0, costs, functions, events })?;
    writeln!(output)?;
    Ok(left_out(weighed.costs.iter().map(|cost| cost.change)).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    #[test]
    fn the_callee_is_first_and_functions_are_named_once() {
        let mut output = Vec::new();
        let left_out = write(&sample::profile(), &View::Peak, &mut output).expect("the peak");
        let text = String::from_utf8(output).expect("text");
        let expected = r#"{"version":0,"costs":[{"description":"Memory","unit":"bytes"}],"functions":[{"name":"malloc","module":"libc.so.6"},{"name":"evil;�<b>\"&�[31m λ","module":"server"},{"name":"/srv/plug in.so+0x4242","module":"plug in.so"},{"name":"main","module":"server"},{"name":"Pool::take(int)","module":"server"},{"name":"serve(std::vector<int> const&)","module":"server"}],"events":[{"callchain":[0,1,2,3],"cost":[4000]},{"callchain":[0,4,5,3],"cost":[768]}]}"#;
        assert_eq!(text, format!("{expected}\n"));
        assert_eq!(left_out, ["1 call stack without positive bytes left out (0 bytes together)."]);
    }
}
