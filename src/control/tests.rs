//! Requests and answers as bytes, and what may not be trusted in the file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use memleax_platform::Pid;

use super::folder::{self, Watched};
use super::request::{Request, read_answer, write_answer};

#[test]
fn requests_are_read_as_they_are_written() {
    for line in ["stats", "show 0a1b2c3d", "snapshot", "report svg peak", "report text growth:1..2", "stop"] {
        let request: Request = line.parse().expect(line);
        assert_eq!(request.to_string(), line);
    }
    assert_eq!("report html".parse::<Request>().expect("a request").to_string(), "report html leaks");
    for (line, problem) in [
        ("", "the requests are: stats"),
        ("stats now", "the requests are"),
        ("show 12", "an id is eight"),
        ("report excel", "the formats are collapsed"),
        ("report svg leak", "the views are"),
    ] {
        let error = line.parse::<Request>().expect_err(line);
        assert!(error.starts_with(problem), "{line}: {error}");
    }
}

#[test]
fn answers_are_binary_safe_and_known_to_be_whole() {
    let all: Vec<u8> = (0..=255).collect();
    for answer in [Ok(all), Ok(Vec::new()), Err("no".to_owned())] {
        let mut bytes = Vec::new();
        write_answer(&answer, &mut bytes).expect("written to memory");
        assert_eq!(read_answer(&mut &bytes[..]).expect("whole"), answer);
        for cut in 0..bytes.len() {
            assert!(read_answer(&mut &bytes[..cut]).is_err(), "{cut} of {}", bytes.len());
        }
    }
    assert!(read_answer(&mut &b"ok 99999999999999999999\n"[..]).is_err());
}

#[test]
fn processes_are_named_with_or_without_who_watches() {
    let watched = |target, by: Option<i32>| Watched { target: Pid(target), by: by.map(Pid) };
    assert_eq!("12".parse(), Ok(watched(12, None)));
    assert_eq!("12.7".parse(), Ok(watched(12, Some(7))));
    for text in ["", "0", "-1", "12.", "x", "1.2.3"] {
        assert!(text.parse::<Watched>().is_err(), "{text}");
    }
}

#[test]
fn only_a_folder_that_is_ones_own_is_trusted() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("memleax");
    folder::create(&folder).expect("made");
    folder::create(&folder).expect("there already");
    assert!(folder::is_safe(&folder));
    let link = outer.path().join("link");
    symlink(&folder, &link).expect("a link");
    assert!(folder::create(&link).is_err(), "a link");
    let file = outer.path().join("file");
    fs::write(&file, "").expect("a file");
    assert!(folder::create(&file).is_err(), "a file");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("mine");
    assert!(folder::create(&folder).is_err(), "open to all");
}

#[test]
fn sockets_are_found_by_target_and_by_who_watches() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["12.7", "12.8", "123.7", "12", "other", "12.x"] {
        fs::write(folder.path().join(name), "").expect("a file");
    }
    let found = |asked: &str| -> Vec<String> {
        let asked = asked.parse().expect("a process");
        let names = folder::sockets(folder.path(), asked).into_iter().map(|(_, path)| path);
        names.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    };
    assert_eq!(found("12"), ["12", "12.7", "12.8"]);
    assert_eq!(found("12.8"), ["12.8"]);
    assert!(found("1").is_empty());
}
