//! What the demo shows while it runs: a calm view that is redrawn in place, or
//! with `--plain` (and where standard output is no terminal) a line per second.

use std::io::{IsTerminal, Write, stdout};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, size};
use crossterm::{execute, queue};
use tidegate_types::error::{Error, Result};

use crate::partner::{Counts, Deed};
use crate::watch::{Line, News};

/// One moment of the demo.
#[derive(Default)]
pub struct View {
    /// Where the doors are, and how to use them.
    pub doors: Vec<String>,
    /// The machine's time since the start.
    pub seconds: u64,
    pub seconds_all: u64,
    /// The story's time, as text.
    pub story_time: String,
    pub events: u64,
    pub events_per_s: u64,
    pub lag_ms: u64,
    /// Name, severity, open findings.
    pub detections: Vec<(String, String, usize)>,
    pub services: usize,
    pub euros_per_hour: f64,
    /// States of the engine's actions, and how many are in them.
    pub actions: Vec<(String, usize)>,
    pub partner: Counts,
    pub deeds: Vec<Deed>,
    pub news: Vec<News>,
}

impl View {
    fn open(&self) -> usize {
        self.detections.iter().map(|(_, _, open)| open).sum()
    }

    /// The view as one line.
    fn line(&self) -> String {
        let Counts { holds, releases, held, .. } = self.partner;
        format!(
            "{:>3} s  {}  {} events/s  lag {} ms  {} open findings  {} services affected  {} euros/h at risk  {holds} holds, {releases} withdrawn, {held} held",
            self.seconds,
            self.story_time,
            self.events_per_s,
            self.lag_ms,
            self.open(),
            self.services,
            grouped(self.euros_per_hour as u64),
        )
    }

    /// The view as lines, and whether each is a heading.
    fn lines(&self, height: usize) -> Vec<(bool, String)> {
        let Counts { holds, updates, releases, held, duplicates } = self.partner;
        let mut lines = vec![
            (
                true,
                format!(
                    "TIDEGATE  three pilots under attack  {} of {} s  (the story's time: {})",
                    self.seconds, self.seconds_all, self.story_time
                ),
            ),
            (false, format!("{:>10} events/s   {} in all   tick lag {} ms", grouped(self.events_per_s), grouped(self.events), self.lag_ms)),
        ];
        lines.extend(self.doors.iter().map(|door| (false, door.clone())));
        lines.push((true, format!("OPEN FINDINGS  {}", self.open())));
        // Two to a line: a terminal of 24 lines still shows what follows.
        lines.extend(self.detections.chunks(2).map(|pair| {
            let shown = pair.iter().map(|(name, severity, open)| format!("{open:>6}  {name:<22} {severity:<9}"));
            (false, shown.collect::<String>().trim_end().to_string())
        }));
        lines.push((true, "CASCADE".into()));
        lines.push((
            false,
            format!("{:>6}  services affected   {} euros per hour at risk", self.services, grouped(self.euros_per_hour as u64)),
        ));
        lines.push((true, "ACTIONS".into()));
        let states: Vec<String> = self.actions.iter().map(|(state, count)| format!("{count} {state}")).collect();
        lines.push((false, format!("        engine: {}", if states.is_empty() { "none".into() } else { states.join(", ") })));
        lines.push((
            false,
            format!("        partner: {holds} holds, {updates} updates, {releases} withdrawn, {held} held now, {duplicates} repeats"),
        ));
        lines.extend(self.deeds.iter().take(2).map(|deed| (false, format!("        {:<12} by {}", deed.path, deed.action))));
        lines.push((true, "LATEST".into()));
        let left = height.saturating_sub(lines.len() + 1).max(1);
        lines.extend(self.news.iter().take(left).map(|news| {
            let what = if news.is_open { "found" } else { "withdrawn" };
            (false, format!("        {what:<10} {:<24} {}", news.detection, news.entity))
        }));
        lines
    }
}

pub struct Screen {
    is_plain: bool,
    second_shown: Option<u64>,
}

impl Screen {
    pub fn open(is_plain: bool) -> Result<Self> {
        let is_plain = is_plain || !stdout().is_terminal();
        if !is_plain {
            execute!(stdout(), EnterAlternateScreen, Hide).map_err(failed)?;
        }
        Ok(Self { is_plain, second_shown: None })
    }

    pub fn show(&mut self, view: &View) -> Result<()> {
        if !self.is_plain {
            return draw(view).map_err(failed);
        }
        if self.second_shown.replace(view.seconds) == Some(view.seconds) {
            return Ok(());
        }
        crate::output::print(&format!("{}\n", view.line()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.is_plain {
            // There is no one to tell, and nothing else to do.
            let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::engine(format!("the terminal cannot be drawn on: {error}")).hint("run with --plain")
}

fn draw(view: &View) -> std::io::Result<()> {
    let (width, height) = size()?;
    let mut out = stdout().lock();
    let lines = view.lines(height.into());
    for (row, (is_heading, line)) in (0..height).zip(&lines) {
        let kept: String = line.chars().filter(|c| !c.is_control()).take(width.into()).collect();
        let weight = if *is_heading { Attribute::Bold } else { Attribute::Reset };
        queue!(out, MoveTo(0, row), SetAttribute(weight), Print(kept), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
    }
    if lines.len() < height.into() {
        queue!(out, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
    }
    out.flush()
}

/// The table the demo ends with.
pub fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<9} {:<10} {:<22} {:>8} {:>6} {:>7} {:>6} {:>10}  {}\n",
        "scenario", "pilot", "detection", "injected", "found", "missed", "false", "withdrawn", "time to finding (median)"
    );
    for line in lines {
        let time = match (line.wall_ms, line.story_ms) {
            (Some(wall_ms), Some(story_ms)) => format!("{wall_ms} ms; in the story {}", span(story_ms)),
            _ => "-".into(),
        };
        text += &format!(
            "{:<9} {:<10} {:<22} {:>8} {:>6} {:>7} {:>6} {:>10}  {time}\n",
            line.scenario, line.pilot, line.detection, line.injected, line.found, line.missed, line.wrong, line.withdrawn
        );
    }
    text
}

/// `2 min 5 s`
fn span(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 234 567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")];
        for (number, expected) in cases {
            assert_eq!(grouped(number), expected);
        }
        let cases = [(15, "15 ms"), (59_000, "59 s"), (125_000, "2 min 5 s"), (3_780_000, "1 h 3 min")];
        for (ms, expected) in cases {
            assert_eq!(span(ms), expected);
        }
    }

    /// The pilots' detections on a terminal of the usual size.
    #[test]
    fn all_parts_fit_in_eighty_columns_and_twenty_four_lines() {
        let detections = vec![("temperature_excursion".into(), "critical".into(), 12); 19];
        let deeds = vec![Deed { path: "/quarantine".into(), action: "quarantine_lot".into(), tick: 1 }; 5];
        let news = vec![News { tick: 1, detection: "newest".into(), entity: "e".into(), is_open: true }; 5];
        let view = View { doors: vec!["  metrics  http://127.0.0.1:7470/metrics".into(); 2], detections, deeds, news, ..View::default() };
        let lines = view.lines(24);
        let shown = &lines[..24];
        assert!(shown.iter().any(|(_, line)| line.contains("newest")));
        let found = shown.iter().filter(|(_, line)| line.contains("temperature_excursion"));
        assert_eq!(found.map(|(_, line)| line.matches("critical").count()).sum::<usize>(), 19);
        assert!(shown.iter().all(|(_, line)| line.chars().count() <= 80), "{shown:#?}");
        for part in ["OPEN FINDINGS", "CASCADE", "ACTIONS", "LATEST"] {
            assert!(shown.iter().any(|(is_heading, line)| *is_heading && line.starts_with(part)), "{part} is off the screen");
        }
    }

    #[test]
    fn a_small_terminal_still_shows_the_newest() {
        let news = (0..5).map(|n| News { tick: n, detection: "d".into(), entity: format!("e{n}"), is_open: n % 2 == 0 }).collect();
        let view = View { news, ..View::default() };
        let lines = view.lines(3);
        assert!(lines.last().unwrap().1.contains("e0"));
        assert!(view.line().starts_with("  0 s"));
    }
}
