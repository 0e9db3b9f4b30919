//! The display: totals, their course, the table, the chosen call stack, keys. Whatever does not fit is left out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row as Cells, Sparkline, Table, TableState, Wrap};

use super::keys::HELP;
use super::rows::{Order, RECENTLY, Row};
use super::state::{Mode, State};
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Profile, Site};
use crate::report::{answers, human};

/// Lines that the course of live bytes takes, if there is room.
const COURSE: u16 = 3;

/// Columns that the ages take, if there is room.
const AGES: u16 = 32;

/// How things look; without colours, by weight only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    has_colours: bool,
}

impl Palette {
    pub(super) fn new(has_colours: bool) -> Palette {
        Palette { has_colours }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn title(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn warning(self) -> Style {
        self.coloured(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn growth(self, change: i64) -> Style {
        match change {
            0 => Style::new(),
            1.. => self.coloured(Color::Red),
            _ => self.coloured(Color::Green),
        }
    }
}

/// Draws all.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, palette: Palette) {
    let area = frame.area();
    let has_room = area.height >= 16;
    let course = if has_room { COURSE } else { 0 };
    let detail = if has_room { area.height.saturating_sub(4 + course) / 2 } else { 0 };
    let [head, sparkline, table, stack, foot] = Layout::vertical([
        Constraint::Length(2.min(area.height)),
        Constraint::Length(course),
        Constraint::Min(1),
        Constraint::Length(detail),
        Constraint::Length(u16::from(area.height > 3)),
    ])
    .areas(area);
    draw_head(frame, state, palette, head);
    if let Some(profile) = &state.profile {
        draw_course(frame, profile, palette, sparkline);
        draw_table(frame, state, palette, table);
        let site = state.place().and_then(|place| profile.sites.get(state.rows[place].site));
        draw_site(frame, site, state, palette, stack);
    } else {
        let text = "Waiting for the first answer: names are being looked up…";
        frame.render_widget(Paragraph::new(text).style(palette.faint()), table);
    }
    draw_foot(frame, state, palette, foot);
    if state.mode == Mode::Help {
        draw_help(frame, palette, area);
    }
}

fn draw_head(frame: &mut Frame<'_>, state: &State, palette: Palette, area: Rect) {
    let mut first = vec![Span::styled("memleax ", palette.title())];
    let mut second = Vec::new();
    match &state.profile {
        Some(profile) => {
            let run = &profile.run;
            first.push(Span::raw(format!("{} {}  ", run.pid, run.command.join(" "))));
            let backend = run.backend.split(',').next().unwrap_or_default();
            first.push(Span::styled(format!("{backend}, {}  ", human::time(run.monitored)), palette.faint()));
            let now = profile.timeline.last().map(|moment| moment.live).unwrap_or_default();
            second.push(Span::styled(format!("live {}", human::tally(now)), Style::new().add_modifier(Modifier::BOLD)));
            if let Some(peak) = profile.peak {
                second.push(Span::raw(format!("  peak {}", human::bytes(peak.live.bytes))));
            }
            if let Some((rate, growth)) = answers::rates(profile) {
                second.push(Span::raw("  "));
                second.push(Span::styled(format!("{}/s", human::signed_bytes(growth)), palette.growth(growth)));
                second.push(Span::raw(format!("  {} allocations/s", human::grouped(rate.count))));
            }
            let lost: u64 = profile.losses.values().sum();
            if lost > 0 {
                second.push(Span::styled(format!("  {} not seen", human::grouped(lost)), palette.warning()));
            }
        }
        None => first.push(Span::raw(state.title.clone())),
    }
    if let Some(ending) = &state.ending {
        first.insert(1, Span::styled(format!("{ending}  "), palette.warning()));
    } else if state.is_paused {
        first.insert(1, Span::styled("PAUSED  ", palette.warning()));
    }
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

fn draw_course(frame: &mut Frame<'_>, profile: &Profile, palette: Palette, area: Rect) {
    if area.height == 0 {
        return;
    }
    let span = profile.timeline.last().map_or(Duration::ZERO, |last| Duration::from_nanos(last.at.0));
    let title = format!(" live bytes over {} ", human::time(span));
    let block = Block::new().borders(Borders::TOP).title(title).border_style(palette.faint());
    let numbers = course(profile, usize::from(area.width));
    frame.render_widget(Sparkline::default().block(block).data(numbers).style(palette.coloured(Color::Blue)), area);
}

/// Live bytes in `columns` equal stretches of time: the last of each.
pub(super) fn course(profile: &Profile, columns: usize) -> Vec<u64> {
    let timeline = &profile.timeline;
    let Some(last) = timeline.last() else { return Vec::new() };
    let columns = columns.max(1) as u128;
    (1..=columns)
        .map(|column| {
            let until = u128::from(last.at.0) * column / columns;
            let behind = timeline.partition_point(|moment| u128::from(moment.at.0) <= until);
            behind.checked_sub(1).map_or(0, |index| timeline[index].live.bytes)
        })
        .collect()
}

fn draw_table(frame: &mut Frame<'_>, state: &State, palette: Palette, area: Rect) {
    let heading = |text: &str, order: Option<Order>| {
        let style = if order == Some(state.order) { palette.title() } else { palette.faint() };
        let mark = if order == Some(state.order) { "▼" } else { "" };
        Line::styled(format!("{text}{mark}"), style).right_aligned()
    };
    let growth = match &state.baseline {
        Some(baseline) => format!("since #{}", baseline.number),
        None => format!("in {} s", RECENTLY.as_secs()),
    };
    let header = Cells::new([
        heading("live", Some(Order::Live)),
        heading("blocks", None),
        heading(&growth, Some(Order::Growth)),
        heading("a second", Some(Order::Rate)),
        Line::styled(format!("call stacks: {}", state.rows.len()), palette.faint()),
    ]);
    let rate = |rate: Tally| if rate.count == 0 { String::new() } else { human::bytes(rate.bytes) };
    let cells = |row: &Row| {
        Cells::new([
            Line::from(human::bytes(row.live.bytes)).right_aligned(),
            Line::from(human::grouped(row.live.count)).right_aligned(),
            Line::styled(human::signed_bytes(row.growth.bytes), palette.growth(row.growth.bytes)).right_aligned(),
            Line::from(rate(row.rate)).right_aligned(),
            Line::from(row.place.clone()),
        ])
    };
    let widths = [10, 10, 11, 10].map(Constraint::Length).into_iter().chain([Constraint::Min(5)]);
    let table = Table::new(state.rows.iter().map(cells), widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(state.place()));
}

fn draw_site(frame: &mut Frame<'_>, site: Option<&Site>, state: &State, palette: Palette, area: Rect) {
    let Some(site) = site.filter(|_| area.height > 1) else { return };
    let ages = if area.width >= 80 { AGES } else { 0 };
    let [left, right] = Layout::horizontal([Constraint::Min(1), Constraint::Length(ages)]).areas(area);
    let age = site.oldest.map(|age| format!(", oldest {}", human::time(age))).unwrap_or_default();
    let title =
        format!(" {}: {} live of {}{age} ", site.id(), human::grouped(site.live.count), human::tally(site.allocated));
    let block = Block::new().borders(Borders::TOP).title(title).border_style(palette.faint());
    let calls = site.stack.calls().map(|call| {
        let mut line = vec![Span::styled(call.name(), Style::new().add_modifier(Modifier::BOLD))];
        match (call.file(), call.line()) {
            (Some(file), Some(number)) => line.push(Span::raw(format!("  {file}:{number}"))),
            (Some(file), None) => line.push(Span::raw(format!("  {file}"))),
            (None, _) => line.push(Span::styled(format!("  {}", call.module_name()), palette.faint())),
        }
        Line::from(line)
    });
    frame.render_widget(Paragraph::new(calls.collect::<Vec<_>>()).block(block).scroll((state.scroll, 0)), left);
    if ages > 0 {
        let block = Block::new().borders(Borders::TOP | Borders::LEFT).title(" ages ").border_style(palette.faint());
        let lines = site.ages.as_ref().map(|ages| histogram(ages, palette)).unwrap_or_default();
        frame.render_widget(Paragraph::new(lines).block(block), right);
    }
}

/// A bar for each power of two of seconds that has any.
fn histogram(ages: &Histogram, palette: Palette) -> Vec<Line<'static>> {
    const WIDTH: u64 = 10;
    let largest = ages.buckets().iter().copied().max().unwrap_or(0).max(1);
    let line = |(bucket, &count): (usize, &u64)| {
        let from =
            if bucket == 0 { "< 1 s".into() } else { human::time(Duration::from_secs(Histogram::lower_bound(bucket))) };
        let length = u128::from(count) * u128::from(WIDTH) / u128::from(largest);
        let bar = "█".repeat(usize::try_from(length).unwrap_or(0).max(usize::from(count > 0)));
        Line::from(vec![
            Span::raw(format!("{from:>11} ")),
            Span::styled(format!("{bar:<10}"), palette.coloured(Color::Blue)),
            Span::raw(format!(" {}", human::grouped(count))),
        ])
    };
    let first = ages.buckets().iter().position(|count| *count > 0).unwrap_or(0);
    ages.buckets().iter().enumerate().skip(first).map(line).collect()
}

fn draw_foot(frame: &mut Frame<'_>, state: &State, palette: Palette, area: Rect) {
    let line = match (&state.mode, &state.message) {
        (Mode::Filter(_), _) => Line::from(format!("/{}▏", state.filter)),
        (Mode::Save(name), _) => Line::from(format!("Write to (report.html, leaks.svg, …): {name}▏")),
        (_, Some(message)) => Line::styled(message.clone(), palette.warning()),
        _ if state.ending.is_some() => Line::styled("q leaves; w writes a report", palette.warning()),
        _ => {
            let filter = if state.filter.is_empty() { String::new() } else { format!("  [/{}]", state.filter) };
            let keys = "q quit  ↑↓ choose  b g r order  / filter  p pause  s snapshot  w write  ? help";
            Line::styled(format!("{keys}{filter}"), palette.faint())
        }
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_help(frame: &mut Frame<'_>, palette: Palette, area: Rect) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, what)| Line::from(vec![Span::styled(format!("{keys:<24}"), palette.title()), Span::raw(*what)]))
        .collect();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let width = 100.min(area.width);
    let window = Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height);
    frame.render_widget(Clear, window);
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(lines).block(block).wrap(Wrap { trim: false }), window);
}
