//! The flame graph, an SVG file.

use memleax::profile::View;
use memleax::report::Format;

use crate::devtools::Browser;
use crate::{complaints_of, file_of, program};

/// The box of a function, by the beginning of its name.
fn a_box(name: &str) -> String {
    format!("[...document.querySelectorAll('#frames > g')].find((g) => g.firstChild.textContent.startsWith('{name}'))")
}

fn width(browser: &mut Browser, name: &str) -> f64 {
    browser.number(&format!("{}.querySelector('rect').getBoundingClientRect().width", a_box(name)))
}

#[test]
fn a_click_zooms_and_escape_goes_back() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(200, 6), Format::Svg, &View::Leaks));
    let (all, leak) = (width(&mut browser, "all"), width(&mut browser, "leak_session"));
    assert!(all > 1200.0, "as wide as the window: {all}");
    assert!(leak > 0.05 * all && leak < 0.95 * all, "{leak} of {all}");

    browser.click(&a_box("leak_session"));
    assert!((width(&mut browser, "leak_session") - all).abs() < 1.0);
    // What bears it is shown, what does not is not.
    assert!((width(&mut browser, "serve") - all).abs() < 1.0);
    assert_eq!(browser.text(&format!("getComputedStyle({}).display", a_box("plug in.so"))), "none");
    assert_eq!(
        browser.text(&format!("{}.querySelector('text').textContent", a_box("leak_session"))),
        "leak_session(Connection&)"
    );
    let upon = browser.number(&format!("{}.querySelector('rect').getBoundingClientRect().top", a_box("operator new")));
    let below = browser.number(&format!("{}.querySelector('rect').getBoundingClientRect().top", a_box("leak_session")));
    assert!(upon < below, "the root is at the bottom");

    browser.press("Escape", 27, false);
    assert!((width(&mut browser, "leak_session") - leak).abs() < 1.0);
    browser.click(&a_box("leak_session"));
    browser.click("document.getElementById('reset')");
    assert!((width(&mut browser, "leak_session") - leak).abs() < 1.0);
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn control_f_searches() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(200, 6), Format::Svg, &View::Leaks));
    browser.press("f", 70, true);
    browser.until("document.activeElement.tagName === 'input'");
    browser.type_text("LEAK_sess");
    browser.until("document.querySelectorAll('#frames .hit').length === 1");
    let part = width(&mut browser, "leak_session") / width(&mut browser, "all");
    assert_eq!(
        browser.text("document.getElementById('matched').textContent"),
        format!("1 matched, {:.1}%", 100.0 * part)
    );
    browser.press("Escape", 27, false);
    browser.until("document.querySelectorAll('#frames .hit').length === 0");

    browser.click("document.getElementById('search')");
    browser.until("document.activeElement.tagName === 'input'");
    browser.type_text("/^(leak|plug)/");
    browser.until("document.querySelectorAll('#frames .hit').length === 2");
    browser.type_text("(");
    browser.until("document.getElementById('matched').textContent.startsWith('0 matched')");
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn hovering_tells_bytes_blocks_and_percent() {
    let Some(mut browser) = Browser::start() else { return };
    let profile = program::profile(200, 6);
    browser.open(&file_of(&profile, Format::Svg, &View::Leaks));
    browser.hover(&a_box("leak_session"));
    let bytes = profile.sites[0].live.bytes;
    let all: u64 = profile.sites.iter().map(|site| site.live.bytes).sum();
    browser.until("document.getElementById('details').textContent.trim() !== ''");
    let told = browser.text("document.getElementById('details').textContent");
    assert!(told.starts_with("leak_session(Connection&) · 5,000 blocks, "), "{told}");
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let percent = format!("{:.2}%", 100.0 * bytes as f64 / all as f64);
    assert!(told.contains(&percent) && told.ends_with(" · /srv/bin/server"), "{told}, {percent}");
}

#[test]
fn names_do_not_run() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(50, 3), Format::Svg, &View::Leaks));
    assert_eq!(browser.number("document.querySelectorAll('script').length"), 1.0);
    assert_eq!(browser.number("document.querySelectorAll('img, image').length"), 0.0);
    assert_eq!(browser.number(&format!("[{}].filter(Boolean).length", a_box("</script></title><script>"))), 1.0);
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn a_thousand_functions_deep_and_65_000_call_stacks_are_drawn() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(60, 1000), Format::Svg, &View::Allocated));
    assert!(browser.number("document.querySelectorAll('#frames > g').length") > 1000.0);
    let file = file_of(&program::profile(65_000, 12), Format::Svg, &View::Allocated);
    assert!(std::fs::metadata(&file).expect("a file").len() < 12 << 20);
    browser.open(&file);
    browser.click(&a_box("leak_session"));
    let (all, leak) = (width(&mut browser, "all"), width(&mut browser, "leak_session"));
    assert!((all - leak).abs() < 1.0);
    assert!(browser.text("document.querySelector('svg').textContent").contains("too narrow to be seen are left out"));
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn growth_is_red_and_shrinking_blue() {
    let Some(mut browser) = Browser::start() else { return };
    let growth = View::Growth { from: Some(2), to: None };
    browser.open(&file_of(&program::profile(200, 6), Format::Svg, &growth));
    let mut fill = |name: &str| browser.text(&format!("getComputedStyle({}.querySelector('rect')).fill", a_box(name)));
    // By half of what was live at the peak.
    assert_eq!(fill("leak_session"), "rgb(247, 133, 119)");
    assert!(fill("all").starts_with("rgb(2"), "on the whole it grew");
}

#[test]
fn it_fills_the_window_and_goes_dark() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(200, 6), Format::Svg, &View::Leaks));
    let mut text_on_paper = |width, dark| {
        browser.look(width, dark);
        browser.until(&format!(
            "Math.abs({}.querySelector('rect').getBoundingClientRect().width - {}) < 1",
            a_box("all"),
            width - 20
        ));
        browser.text("getComputedStyle(document.querySelector('.head')).fill + getComputedStyle(document.querySelector('.paper')).fill")
    };
    assert_eq!(text_on_paper(600, false), "rgb(27, 27, 27)rgb(255, 255, 255)");
    assert_eq!(text_on_paper(1800, true), "rgb(244, 244, 244)rgb(23, 24, 26)");
    assert_eq!(complaints_of(&mut browser), "");
}
