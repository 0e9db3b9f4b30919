//! A file that a report is appended to for days, while logrotate renames it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file by its name: what is written goes to the end of whatever file has the name when a line begins. If none has, it is made anew.
///
/// So who renames the file need not tell, as by a signal, and each line is in one file.
#[derive(Debug)]
pub struct LastingFile {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    is_amid_line: bool,
    /// It could not be opened anew; this was said.
    has_warned: bool,
}

impl LastingFile {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<LastingFile> {
        let (file, identity) = open(path)?;
        Ok(LastingFile { path: path.to_owned(), file, identity, is_amid_line: false, has_warned: false })
    }

    /// Opens the file anew if another has its name now, or none.
    fn follow(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|found| identify(&found) == self.identity) {
            return;
        }
        match open(&self.path) {
            Ok((file, identity)) => {
                self.file = file;
                self.identity = identity;
                self.has_warned = false;
            }
            // Better in the renamed file than nowhere.
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                tracing::warn!(
                    "cannot open {} anew: {error}; the report goes on in the file of before",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }
}

fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let identity = identify(&file.metadata()?);
    Ok((file, identity))
}

fn identify(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Write for LastingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_amid_line {
            self.follow();
        }
        // At most a line, so that the next one can go elsewhere.
        let line = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes, |end| &bytes[..=end]);
        let written = self.file.write(line)?;
        if let Some(&last) = line[..written].last() {
            self.is_amid_line = last != b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log {
        folder: tempfile::TempDir,
        file: LastingFile,
    }

    impl Log {
        fn new() -> Log {
            let folder = tempfile::tempdir().expect("a folder");
            let file = LastingFile::open(&folder.path().join("log")).expect("a file");
            Log { folder, file }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&mut self, text: &str) {
            self.file.write_all(text.as_bytes()).expect("it is written");
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).expect("it is renamed");
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).expect("a file")
        }
    }

    #[test]
    fn a_renamed_file_gets_no_more_lines_but_the_rest_of_one() {
        let mut log = Log::new();
        log.write("one\ntwo, ");
        log.rename("log", "log.1");
        log.write("still two\nthree\nfour\n");
        assert_eq!(log.read("log.1"), "one\ntwo, still two\n");
        assert_eq!(log.read("log"), "three\nfour\n");
        log.rename("log.1", "log.2");
        log.rename("log", "log.1");
        fs::write(log.path("log"), "made by logrotate\n").expect("a file");
        log.write("five\n");
        assert_eq!(log.read("log"), "made by logrotate\nfive\n");
    }

    #[test]
    fn what_is_there_stays_and_what_is_cut_off_does_no_harm() {
        let mut log = Log::new();
        log.write("one\n");
        let mut again = LastingFile::open(&log.path("log")).expect("a file");
        again.write_all(b"two\n").expect("it is written");
        assert_eq!(log.read("log"), "one\ntwo\n");
        // As `copytruncate` does.
        OpenOptions::new().write(true).truncate(true).open(log.path("log")).expect("a file");
        log.write("three\n");
        assert_eq!(log.read("log"), "three\n");
    }

    #[test]
    fn a_folder_that_is_gone_ends_nothing() {
        let mut log = Log::new();
        log.write("one\n");
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::rename(log.path("log"), elsewhere.path().join("log")).expect("one file system");
        fs::remove_dir(log.folder.path()).expect("it is empty");
        log.write("two\n");
        assert_eq!(fs::read_to_string(elsewhere.path().join("log")).expect("a file"), "one\ntwo\n");
        fs::create_dir(log.folder.path()).expect("a folder");
        log.write("three\n");
        assert_eq!(log.read("log"), "three\n");
    }
}
