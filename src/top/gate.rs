//! An output that waits: what is written while the display has the terminal comes after it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many bytes wait at the most; the report of a run comes after it is over, when it is waited for anyway.
const LIMIT: usize = 16 << 20;

/// Its clones lead to the same output.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<State>>);

struct State {
    output: Box<dyn Write + Send>,
    is_open: bool,
    waiting: Vec<u8>,
    left_out: usize,
}

impl Gate {
    /// One that is closed, before `output`.
    pub fn new(output: impl Write + Send + 'static) -> Gate {
        Gate(Arc::new(Mutex::new(State { output: Box::new(output), is_open: false, waiting: Vec::new(), left_out: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets through what waits, and from now on all.
    ///
    /// # Errors
    /// Those of the output.
    pub fn open(&self) -> io::Result<()> {
        let mut state = self.state();
        state.is_open = true;
        let waiting = std::mem::take(&mut state.waiting);
        state.output.write_all(&waiting)?;
        let left_out = std::mem::take(&mut state.left_out);
        if left_out > 0 {
            writeln!(state.output, "-- {left_out} bytes are left out here, which did not fit behind the display.")?;
        }
        state.output.flush()
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.is_open {
            return state.output.write(bytes);
        }
        if state.waiting.len() + bytes.len() > LIMIT {
            state.left_out += bytes.len();
        } else {
            state.waiting.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.state();
        if state.is_open { state.output.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_before_it_opens_comes_then_and_in_order() {
        let (tell, told) = channel();
        let mut gate = Gate::new(Told(tell));
        write!(gate, "one ").expect("kept");
        write!(gate.clone(), "two ").expect("kept");
        assert!(told.try_recv().is_err());
        gate.open().expect("let through");
        write!(gate, "three").expect("let through");
        drop(gate);
        assert_eq!(told.iter().flatten().collect::<Vec<u8>>(), b"one two three");
    }

    #[test]
    fn it_does_not_keep_without_end() {
        let (tell, told) = channel();
        let mut gate = Gate::new(Told(tell));
        let block = vec![b'x'; LIMIT / 2];
        for _ in 0..3 {
            gate.write_all(&block).expect("kept or left out");
        }
        gate.open().expect("let through");
        drop(gate);
        let text: Vec<u8> = told.iter().flatten().collect();
        assert!(String::from_utf8_lossy(&text[LIMIT..]).contains("8388608 bytes are left out"));
    }
}
