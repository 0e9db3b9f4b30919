//! The HTML report.

use memleax::profile::View;
use memleax::report::Format;

use crate::devtools::Browser;
use crate::{complaints_of, file_of, program};

const ROWS: &str = "[...document.querySelectorAll('tr.site')]";

/// The box of a function, by the beginning of its label.
fn a_box(label: &str) -> String {
    format!("[...document.querySelectorAll('#graph g')].find((g) => g.textContent.startsWith('{label}'))")
}

fn width(browser: &mut Browser, label: &str) -> f64 {
    browser.number(&format!("{}.querySelector('rect').getBoundingClientRect().width", a_box(label)))
}

fn tab(view: &str) -> String {
    format!("document.querySelector('[data-view={view}]')")
}

/// The title of a cell of the first row: the exact number.
fn exact(browser: &mut Browser, column: &str) -> String {
    browser.text(&format!("document.querySelector('tr.site').cells[{}].title", place(column)))
}

/// The place of a column among those that are shown.
fn place(column: &str) -> String {
    format!("[...document.querySelectorAll('th')].findIndex((th) => th.dataset.column === '{column}')")
}

/// A browser with the report of some sites.
fn report(sites: usize, view: &View) -> Option<Browser> {
    let mut browser = Browser::start()?;
    browser.open(&file_of(&program::profile(sites, 6), Format::Html, view));
    browser.until("document.querySelectorAll('#graph g').length > 5");
    Some(browser)
}

fn grouped(number: u64) -> String {
    memleax::report::human::grouped(number)
}

#[test]
fn the_page_runs_the_script_whose_hash_it_names() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(5, 2), Format::Html, &View::Leaks));
    assert_eq!(complaints_of(&mut browser), "");
    assert_eq!(browser.text("getComputedStyle(document.getElementById('report')).display"), "block");
}

#[test]
fn each_view_shows_its_own_numbers() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    let profile = program::profile(200, 6);
    let leak = &profile.sites[0];
    let dearest = [
        ("allocated", leak.allocated),
        ("expired", leak.expired),
        ("peak", leak.at_peak),
        ("snapshot", profile.snapshots[0].live[0].1),
        ("leaks", leak.live),
    ];
    for (view, tally) in dearest {
        browser.click(&tab(view));
        assert_eq!(browser.text(&format!("{}.getAttribute('aria-selected')", tab(view))), "true");
        browser.until(&format!("{ROWS}[0].textContent.startsWith('leak_session')"));
        assert_eq!(exact(&mut browser, "cost"), format!("{} bytes", grouped(tally.bytes)), "{view}");
        assert_eq!(exact(&mut browser, "blocks"), format!("{} blocks", grouped(tally.count)), "{view}");
    }
    browser.click(&tab("growth"));
    let growth = leak.live.bytes - profile.snapshots[0].live[0].1.bytes;
    assert_eq!(exact(&mut browser, "cost"), format!("+{} bytes", grouped(growth)));
    let fill = "getComputedStyle({}.querySelector('rect')).fill".replace("{}", &a_box("leak_session"));
    assert_eq!(browser.text(&fill), "rgb(247, 133, 119)");
    // Another moment, by the keyboard.
    browser.value("document.querySelector('#moments select').focus()");
    browser.press("ArrowDown", 40, false);
    let growth = leak.live.bytes - profile.snapshots[1].live[0].1.bytes;
    browser.until(&format!("{ROWS}[0].cells[1].title === '+{} bytes'", grouped(growth)));
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn the_view_that_was_asked_for_comes_first() {
    let Some(mut browser) = report(50, &View::Growth { from: None, to: Some(2) }) else { return };
    assert_eq!(browser.text(&format!("{}.getAttribute('aria-selected')", tab("growth"))), "true");
    assert_eq!(browser.text("[...document.querySelectorAll('#moments select')].map((s) => s.value).join()"), "0,2");
}

#[test]
fn a_click_on_a_box_zooms_and_narrows_the_table() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    let (all, leak) = (width(&mut browser, "all"), width(&mut browser, "leak_session"));
    let rows = browser.number(&format!("{ROWS}.length"));
    assert!(rows > 50.0 && leak < 0.95 * all);
    browser.click(&a_box("leak_session"));
    assert!((width(&mut browser, "leak_session") - all).abs() < 1.0);
    assert_eq!(browser.number(&format!("{ROWS}.length")), 1.0);
    assert!(browser.text("document.getElementById('selected').textContent").starts_with("1 of "));
    browser.click("document.getElementById('reset')");
    assert!((width(&mut browser, "leak_session") - leak).abs() < 1.0);
    browser.click(&a_box("leak_session"));
    browser.press("Escape", 27, false);
    assert_eq!(browser.number(&format!("{ROWS}.length")), rows);
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn a_search_filters_table_and_flame_graph_alike() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    browser.press("/", 191, false);
    browser.until("document.activeElement.id === 'query'");
    browser.type_text("LEAK_sess");
    browser.until(&format!("{ROWS}.length === 1"));
    assert_eq!(browser.number("document.querySelectorAll('#graph g').length"), 6.0);
    assert_eq!(browser.number("document.querySelectorAll('#graph .hit').length"), 1.0);
    let told = browser.text("document.getElementById('selected').textContent");
    assert!(told.starts_with("1 of 1") && told.contains(" of 6.") && told.ends_with("%)"), "{told}");

    // By file, by module, by expression; and what is no expression.
    for (query, rows) in [("/src/leak.cpp", 1), ("plug in.so", 1), ("/^(leak_|<.script)/", 2)] {
        browser.value("document.getElementById('query').select()");
        browser.type_text(query);
        browser.until(&format!("{ROWS}.length === {rows}"));
    }
    browser.value("document.getElementById('query').select()");
    browser.type_text("/(/");
    browser.until("document.getElementById('query').getAttribute('aria-invalid') === 'true'");
    assert_eq!(browser.text("document.getElementById('selected').textContent"), "no such expression");
    browser.value("document.getElementById('query').select()");
    browser.type_text("there is no such function");
    browser.until(&format!("{ROWS}.length === 0"));
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn a_click_on_a_heading_sorts() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    let head = |id: &str| format!("document.querySelector('th[data-column={id}]')");
    let numbers = |browser: &mut Browser, column: &str| -> Vec<f64> {
        let at = place(column);
        let titles = format!("{ROWS}.map((row) => parseFloat(row.cells[{at}].title.replace(/,/g, '')))");
        browser.value(&titles).as_array().expect("a list").iter().filter_map(serde_json::Value::as_f64).collect()
    };
    assert!(numbers(&mut browser, "cost").is_sorted_by(|one, other| one >= other));
    browser.click(&format!("{}.querySelector('button')", head("allocatedBlocks")));
    assert_eq!(browser.text(&format!("{}.getAttribute('aria-sort')", head("allocatedBlocks"))), "descending");
    let blocks = numbers(&mut browser, "allocatedBlocks");
    assert!(blocks.len() > 50 && blocks.is_sorted_by(|one, other| one >= other), "{blocks:?}");
    browser.click(&format!("{}.querySelector('button')", head("allocatedBlocks")));
    assert!(numbers(&mut browser, "allocatedBlocks").is_sorted());
    browser.click(&format!("{}.querySelector('button')", head("stack")));
    let names = browser.value(&format!("{ROWS}.map((row) => row.querySelector('button').textContent)"));
    let names: Vec<&str> = names.as_array().expect("a list").iter().filter_map(|name| name.as_str()).collect();
    assert!(names.len() > 50 && names.is_sorted(), "{names:?}");
    // What is not known is last, either way.
    for _ in 0..2 {
        browser.click(&format!("{}.querySelector('button')", head("meanLife")));
        browser.click("document.getElementById('more')");
        assert_eq!(browser.text(&format!("{ROWS}.at(-1).cells[{}].textContent", place("meanLife"))), "–");
    }
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn a_click_on_a_row_shows_all_that_is_known_of_it() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    let profile = program::profile(200, 6);
    browser.click(&format!("{ROWS}[0].cells[0]"));
    browser.until("document.querySelectorAll('tr.detail').length === 1");
    let frames = browser.text("[...document.querySelectorAll('.frames li')].map((li) => li.textContent).join('|')");
    assert!(frames.starts_with("malloc  libc.so.6|operator new(unsigned long)  libstdc++.so.6|leak_session(Connection&) /src/leak.cpp:25  server|"), "{frames}");
    let detail = browser.text("document.querySelector('tr.detail').textContent");
    let exact = format!("({} bytes)", grouped(profile.sites[0].allocated.bytes));
    for told in ["5,000 blocks", &exact, "Sizes", "Live bytes over time, at most"] {
        assert!(detail.contains(told), "{told}: {detail}");
    }
    assert_eq!(browser.number("document.querySelectorAll('tr.detail .spark polyline').length"), 1.0);
    browser.click(&format!("{ROWS}[0].cells[0]"));
    browser.until("document.querySelectorAll('tr.detail').length === 0");

    // By the keyboard, a stack that was cut off; its life times.
    browser.value("document.getElementById('query').focus()");
    browser.type_text("/_/");
    browser.click("document.getElementById('more')");
    browser.value(&format!("{ROWS}.find((row) => row.dataset.site === '3').querySelector('button').focus()"));
    browser.press("Enter", 13, false);
    browser.until("document.querySelectorAll('tr.detail').length === 1");
    let detail = browser.text("document.querySelector('tr.detail').textContent");
    assert!(detail.contains("Backtrace cut off here by the depth limit"), "{detail}");
    assert!(detail.contains("Life times of the freed blocks"), "{detail}");
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn the_time_line_reads_out_and_its_marks_lead_to_snapshots() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    browser.hover("document.querySelector('.mark.peak')");
    browser.hover("document.querySelector('.over')");
    browser.until("!document.getElementById('tip').hidden");
    let told = browser.text("document.getElementById('tip').textContent");
    assert!(told.contains(" live after 30.0 s") && told.contains(" allocated until then"), "{told}");
    browser.click("document.querySelector('button.mark[data-snapshot=\"2\"] span')");
    browser.until(&format!("{}.getAttribute('aria-selected') === 'true'", tab("snapshot")));
    assert_eq!(browser.text("document.querySelector('#moments select').value"), "2");
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn snapshots_that_are_not_in_the_file_lead_nowhere() {
    let Some(mut browser) = Browser::start() else { return };
    let mut profile = program::profile(1_000, 4);
    let snapshot = profile.snapshots[1].clone();
    profile.snapshots = vec![snapshot; 600];
    browser.open(&file_of(&profile, Format::Html, &View::Snapshot(3)));
    browser.until("document.querySelectorAll('#graph g').length > 5");
    assert!(
        browser.text("document.querySelector('#moments select').selectedOptions[0].textContent").starts_with("3: ")
    );
    let marks = "[...document.querySelectorAll('button.mark')]";
    assert!(browser.number(&format!("{marks}.length")) <= 40.0);
    assert!(browser.number(&format!("{marks}.filter((mark) => mark.disabled).length")) > 0.0);
    browser.value(&format!("{marks}.find((mark) => !mark.disabled).id = 'there'"));
    let number = browser.text("document.getElementById('there').dataset.snapshot");
    browser.value("document.getElementById('there').click()");
    let shown = "document.querySelector('#moments select').selectedOptions[0].textContent";
    assert!(browser.text(shown).starts_with(&format!("{number}: ")), "{number}");
    assert!(browser.text("document.querySelector('.warnings').innerText").contains(" snapshots are not in this file"));
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn hovering_over_a_box_tells_its_exact_numbers() {
    let Some(mut browser) = report(200, &View::Leaks) else { return };
    let profile = program::profile(200, 6);
    browser.hover(&a_box("leak_session"));
    browser.until("!document.getElementById('tip').hidden");
    let told = browser.text("document.getElementById('tip').textContent");
    assert!(told.starts_with("leak_session(Connection&)"), "{told}");
    assert!(told.contains(&format!("({} bytes) in 5,000 blocks, ", grouped(profile.sites[0].live.bytes))), "{told}");
    assert!(told.ends_with("%/srv/bin/server"), "{told}");
}

#[test]
fn names_do_not_run() {
    let Some(mut browser) = report(50, &View::Allocated) else { return };
    browser.value("document.getElementById('query').focus()");
    browser.type_text("</script>");
    browser.until(&format!("{ROWS}.length === 1"));
    browser.click(&format!("{ROWS}[0].cells[0]"));
    browser.until("document.querySelectorAll('tr.detail').length === 1");
    assert!(browser.text("document.querySelector('.frames').textContent").contains("<img src=x onerror="));
    assert!(browser.text("document.title").starts_with("memleax: /srv/bin/server --name <b>&\""));
    assert_eq!(browser.number("document.querySelectorAll('img, i > b, li > i').length"), 0.0);
    assert_eq!(browser.number("document.querySelectorAll('script').length"), 2.0);
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn what_the_numbers_lack_is_in_sight() {
    let Some(mut browser) = report(50, &View::Leaks) else { return };
    let warnings = browser.text("document.querySelector('.warnings').innerText");
    for told in ["2 allocator calls never returned", "<i>no debug file</i>", "3 frees of memory not known"] {
        assert!(warnings.contains(told), "{told}: {warnings}");
    }
    assert!(browser.number("document.querySelector('.warnings').getBoundingClientRect().bottom") < 600.0);
    assert!(browser.text("document.getElementById('flame-left').textContent").starts_with("1 call stack with "));
}

#[test]
fn it_fits_small_windows_and_is_legible_in_both_lights() {
    let Some(mut browser) = report(100, &View::Leaks) else { return };
    for (width, dark) in [(360, false), (360, true), (800, false), (1400, true), (2200, false)] {
        browser.look(width, dark);
        browser.until(&format!("innerWidth === {width} && document.getElementById('flame').clientWidth - document.getElementById('graph').clientWidth < 13"));
        assert!(browser.number("document.documentElement.scrollWidth") <= f64::from(width), "{width}");
        // WCAG's contrast of texts and what is behind them.
        let least = browser.number(
            "(() => {
                const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
                const luminance = (colour) => channels(colour).slice(0, 3).map((c) => c / 255)
                    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
                    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
                const behind = (element) => {
                    const own = getComputedStyle(element).backgroundColor;
                    return (channels(own)[3] === 0 ? behind(element.parentElement) : own);
                };
                const contrasts = [...document.querySelectorAll('p, dt, dd, h1, h2, td, th, li, .trail, .x, .y, .mark span, #views button')].map((element) => {
                    const [one, other] = [getComputedStyle(element).color, behind(element)].map(luminance);
                    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
                });
                return Math.min(...contrasts);
            })()",
        );
        assert!(least >= 4.5, "{least} in {width}, dark: {dark}");
    }
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn without_scripts_there_are_a_flame_graph_and_a_table() {
    let Some(mut browser) = Browser::start() else { return };
    browser.disable_scripts();
    browser.open(&file_of(&program::profile(200, 6), Format::Html, &View::Peak));
    let shown = "document.querySelector('noscript').innerText";
    let text = browser.text(shown);
    assert!(
        text.contains("live at the peak") && text.contains("leak_session(Connection&) [/src/leak.cpp:25]"),
        "{text}"
    );
    assert!(browser.number("document.querySelectorAll('.static svg g').length") > 5.0);
    assert!(browser.number("document.querySelectorAll('noscript tbody tr').length") >= 100.0);
    assert!(browser.number("document.querySelector('.curve').getBoundingClientRect().height") > 20.0);
    assert_eq!(browser.text("getComputedStyle(document.getElementById('report')).display"), "none");
}

#[test]
fn a_report_of_65_000_call_stacks_works() {
    let Some(mut browser) = Browser::start() else { return };
    let file = file_of(&program::profile(65_000, 12), Format::Html, &View::Leaks);
    let size = std::fs::metadata(&file).expect("a file").len();
    assert!(size < 64 << 20, "{size} bytes");
    browser.open(&file);
    browser.until("document.querySelectorAll('#graph g').length > 5");
    assert_eq!(browser.number(&format!("{ROWS}.length")), 100.0);
    browser.click("document.getElementById('more')");
    assert_eq!(browser.number(&format!("{ROWS}.length")), 200.0);
    browser.value("document.getElementById('query').focus()");
    browser.type_text("leak_session");
    browser.until(&format!("{ROWS}.length === 1"));
    assert_eq!(complaints_of(&mut browser), "");
}

#[test]
fn a_stack_of_a_thousand_functions_and_a_run_of_nothing_are_shown() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&file_of(&program::profile(20, 1000), Format::Html, &View::Allocated));
    browser.until("document.querySelectorAll('#graph g').length > 1000");
    // The root is in sight.
    assert!(browser.number("document.getElementById('flame').scrollTop") > 10_000.0);
    let mut nothing = program::profile(3, 1);
    nothing.sites.clear();
    nothing.timeline.clear();
    nothing.peak = None;
    nothing.snapshots.clear();
    nothing.blocks.clear();
    browser.open(&file_of(&nothing, Format::Html, &View::Leaks));
    browser.until("document.querySelectorAll('#graph g').length === 1");
    assert_eq!(browser.text("document.querySelector('#sites tbody').textContent"), "No call stack.");
    assert_eq!(complaints_of(&mut browser), "");
}
