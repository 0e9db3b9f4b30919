//! A run of memleax, from the program watched to what a reader sees.

use std::process::Command;

use crate::complaints_of;
use crate::devtools::Browser;

const PROGRAM: &str = r#"#include <stdlib.h>
__attribute__((noinline)) char *keep(void)
{
    char *volatile block = malloc(1000); /* line 4 */
    return block;
}
__attribute__((noinline)) void borrow(void)
{
    char *volatile block = malloc(70);
    free(block);
}
int main(void)
{
    for (int n = 0; n < 3; n++) {
        keep();
        borrow();
    }
    return 0;
}
"#;

#[test]
fn the_reports_of_a_program_show_what_it_did() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("program.c"), PROGRAM).expect("a file");
    let built = Command::new("cc").args(["-O0", "-g", "-o"]).args([path("program"), path("program.c")]).status();
    assert!(built.expect("cc runs").success());
    let output = Command::new(env!("CARGO_BIN_EXE_memleax"))
        .args(["--backend", "ptrace", "-o"])
        .arg(path("report.html"))
        .arg("-o")
        .arg(path("allocated.svg"))
        .args(["--view", "allocated", "--"])
        .arg(path("program"))
        .output()
        .expect("memleax runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    browser.open(&path("report.html"));
    let rows = "[...document.querySelectorAll('tr.site')]";
    browser.until(&format!("{rows}.length >= 2"));
    let row = |name: &str| format!("{rows}.find((row) => row.textContent.startsWith('{name}'))");
    let titles = |name: &str| format!("[...{}.cells].slice(1, 5).map((cell) => cell.title).join('|')", row(name));
    // Bytes and blocks of the view, then those that were never freed.
    assert_eq!(browser.text(&titles("keep")), "3,000 bytes|3 blocks|3,000 bytes|3 blocks");
    assert_eq!(browser.text(&titles("borrow")), "210 bytes|3 blocks|0 bytes|0 blocks");
    browser.click(&format!("{}.cells[0]", row("keep")));
    browser.until("document.querySelectorAll('tr.detail').length === 1");
    let stack = browser.text("document.querySelector('tr.detail .frames').textContent");
    assert!(stack.contains("program.c:4") && stack.contains("main"), "{stack}");
    browser.click("document.querySelector('[data-view=temporary]')");
    browser.until(&format!("{rows}.every((row) => row.textContent.startsWith('borrow'))"));

    browser.open(&path("allocated.svg"));
    let titles =
        browser.text("[...document.querySelectorAll('#frames title')].map((title) => title.textContent).join('|')");
    assert!(titles.contains("|keep\n3 blocks, 2.9 KiB (3,000 bytes), "), "{titles}");
    assert!(titles.contains("|borrow\n3 blocks, 210 bytes (210 bytes), "), "{titles}");
    assert_eq!(complaints_of(&mut browser), "");
}
