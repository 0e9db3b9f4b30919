//! The tables of a thread in the processed format, a vector a column.
//!
//! <https://github.com/firefox-devtools/profiler/blob/main/src/types/profile.ts>: names and meanings are taken from there, as they were in
//! version 55 of the format. Where a column's name is not Rust's, it is given.

use serde::Serialize;

/// Every function, frame and call stack, for all threads.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tables {
    pub(super) frame_table: FrameTable,
    pub(super) func_table: FuncTable,
    pub(super) native_symbols: NativeSymbols,
    pub(super) resource_table: ResourceTable,
    pub(super) stack_table: StackTable,
    pub(super) string_array: Vec<String>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTable {
    pub(super) length: usize,
    /// Relative to the library's first byte, within the call where the frame is a caller; -1 for code in no file.
    pub(super) address: Vec<i64>,
    /// 0 for the function that was called, and 1 more for each that is inlined into it.
    pub(super) inline_depth: Vec<usize>,
    pub(super) category: Vec<usize>,
    pub(super) subcategory: Vec<usize>,
    pub(super) func: Vec<usize>,
    pub(super) native_symbol: Vec<Option<usize>>,
    #[serde(rename = "innerWindowID")]
    pub(super) inner_window_id: Vec<u8>,
    pub(super) line: Vec<Option<u32>>,
    pub(super) column: Vec<Option<u32>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct FuncTable {
    pub(super) length: usize,
    /// A string.
    pub(super) name: Vec<usize>,
    #[serde(rename = "isJS")]
    pub(super) is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    pub(super) relevant_for_js: Vec<bool>,
    /// -1 for code in no file.
    pub(super) resource: Vec<i64>,
    /// A string.
    pub(super) file_name: Vec<Option<usize>>,
    pub(super) line_number: Vec<Option<u32>>,
    pub(super) column_number: Vec<Option<u32>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct NativeSymbols {
    pub(super) length: usize,
    pub(super) lib_index: Vec<usize>,
    /// Where the function begins, relative to the library's first byte.
    pub(super) address: Vec<i64>,
    /// A string.
    pub(super) name: Vec<usize>,
    pub(super) function_size: Vec<Option<u64>>,
}

/// A library a row.
#[derive(Serialize, Default)]
pub(super) struct ResourceTable {
    pub(super) length: usize,
    pub(super) lib: Vec<usize>,
    /// A string.
    pub(super) name: Vec<usize>,
    pub(super) host: Vec<Option<usize>>,
    /// 1: a library.
    #[serde(rename = "type")]
    pub(super) kind: Vec<u8>,
}

#[derive(Serialize, Default)]
pub(super) struct StackTable {
    pub(super) length: usize,
    /// The caller's row.
    pub(super) prefix: Vec<Option<usize>>,
    pub(super) frame: Vec<usize>,
}

/// Bytes that were allocated (or, negative, freed) by a call stack at a moment.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct NativeAllocations {
    pub(super) length: usize,
    /// Milliseconds since the beginning.
    pub(super) time: Vec<f64>,
    pub(super) weight: Vec<i64>,
    pub(super) weight_type: &'static str,
    pub(super) stack: Vec<Option<usize>>,
    /// What is freed has the number that it was allocated with. Absent if nothing is told of what was freed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_address: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread_id: Option<Vec<u32>>,
}

impl NativeAllocations {
    /// With `numbered`, what is freed can be told by its number.
    pub(super) fn new(numbered: bool) -> NativeAllocations {
        NativeAllocations {
            weight_type: "bytes",
            memory_address: numbered.then(Vec::new),
            thread_id: numbered.then(Vec::new),
            ..NativeAllocations::default()
        }
    }

    pub(super) fn add(&mut self, time: f64, weight: i64, stack: Option<usize>, number: u64) {
        self.length += 1;
        self.time.push(time);
        self.weight.push(weight);
        self.stack.push(stack);
        if let (Some(numbers), Some(threads)) = (&mut self.memory_address, &mut self.thread_id) {
            numbers.push(number);
            threads.push(0);
        }
    }
}
