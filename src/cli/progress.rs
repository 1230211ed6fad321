//! How a pull goes, for people: a bar that is drawn anew where there is a terminal, else a line now and then.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::hub::{FileProgress, Told};
use crate::printable::printable;

/// Cells of the bar, the widest that fits its terminal's line.
const BARS: [usize; 3] = [24, 12, 4];
/// Of a terminal that does not tell.
const USUAL_COLUMNS: usize = 80;
/// Without a terminal, a line for each such part of a file.
const LINE_PERCENT: u64 = 10;
/// A rate is told of what came in this time.
const RATE_OVER: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    is_terminal: bool,
    file: String,
    /// When what was there.
    seen: Vec<(Instant, u64)>,
    told_percent: Option<u64>,
    is_line_open: bool,
}

impl Progress {
    pub fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            file: String::new(),
            seen: Vec::new(),
            told_percent: None,
            is_line_open: false,
        }
    }

    pub fn show(&mut self, told: &Told) {
        match told {
            Told::Asking => {}
            Told::Chosen { file } => self.line(&format!("pulling {}", printable(file))),
            Told::File(file) => self.advance(file, Instant::now()),
            Told::Installing => self.line("verified"),
        }
    }

    /// Leaves the line that the bar is on.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_line_open) {
            write_out("\n");
        }
    }

    fn line(&mut self, text: &str) {
        self.end();
        write_out(&format!("{text}\n"));
    }

    fn advance(&mut self, file: &FileProgress, now: Instant) {
        if self.file != file.file {
            self.end();
            self.file.clone_from(&file.file);
            self.seen.clear();
            self.told_percent = None;
        }
        self.seen.push((now, file.completed));
        let since = now.checked_sub(RATE_OVER);
        let old = self.seen.iter().take_while(|(at, _)| Some(*at) < since);
        let old = old.count().min(self.seen.len().saturating_sub(2));
        self.seen.drain(..old);
        let rate = self.seen.first().and_then(|(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            let came = file.completed.checked_sub(*before)?;
            (seconds > 0.0).then(|| came as f64 / seconds)
        });
        if self.is_terminal {
            let text = fitted(file, rate, columns());
            // What was longer is wiped out.
            write_out(&format!("\r{text}\u{1b}[K"));
            self.is_line_open = true;
            return;
        }
        let percent = percent(file) / LINE_PERCENT;
        if self.told_percent != Some(percent) {
            self.told_percent = Some(percent);
            write_out(&format!("{}\n", text(file, rate, BARS[0])));
        }
    }
}

/// How wide the terminal is by now.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0 => USUAL_COLUMNS,
        columns => columns,
    }
}

/// One that would go on in the next line could not be drawn anew.
fn fitted(file: &FileProgress, rate: Option<f64>, columns: usize) -> String {
    let texts = BARS.map(|cells| text(file, rate, cells));
    let fits = texts.iter().find(|text| text.chars().count() < columns);
    match fits {
        Some(text) => text.clone(),
        None => texts[BARS.len() - 1]
            .chars()
            .take(columns.saturating_sub(1))
            .collect(),
    }
}

fn percent(file: &FileProgress) -> u64 {
    match file.total {
        0 => 100,
        total => (u128::from(file.completed) * 100 / u128::from(total)) as u64,
    }
}

/// A file's name, bar, sizes, rate and the time that is left.
fn text(file: &FileProgress, bytes_per_second: Option<f64>, cells: usize) -> String {
    let percent = percent(file);
    let full = usize::try_from(percent).unwrap_or(100).min(100) * cells / 100;
    let bar = "#".repeat(full) + &"-".repeat(cells - full);
    let name: String = printable(&file.file).chars().take(28).collect();
    let sizes = format!("{}/{} MiB", file.completed >> 20, file.total >> 20);
    let mut text = format!("{name} [{bar}] {percent:>3}% {sizes}");
    if let Some(rate) = bytes_per_second.filter(|rate| *rate >= 1.0) {
        let left = (file.total - file.completed.min(file.total)) as f64 / rate;
        text += &format!(" {:.1} MiB/s {}", rate / 1_048_576.0, clock(left as u64));
    }
    text
}

fn clock(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// To stderr: stdout has the outcome. Where it is not read nothing is lost.
fn write_out(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(completed: u64, total: u64) -> FileProgress {
        FileProgress {
            file: "model.gguf".to_owned(),
            digest: String::new(),
            total,
            completed,
        }
    }

    #[test]
    fn a_line_tells_how_much_how_fast_and_how_long() {
        let half = at(512 << 20, 1 << 30);
        assert_eq!(
            text(&half, Some(8.0 * 1_048_576.0), 24),
            "model.gguf [############------------]  50% 512/1024 MiB 8.0 MiB/s 1:04"
        );
        assert_eq!(
            text(&at(0, 0), None, 24),
            format!("model.gguf [{}] 100% 0/0 MiB", "#".repeat(24))
        );
        assert_eq!(clock(3725), "1:02:05");
        for columns in 0..200 {
            let text = fitted(&half, Some(8.0 * 1_048_576.0), columns);
            let is_whole = text.ends_with("1:04");
            assert!(text.len() < columns.max(1), "{columns}: {text}");
            assert_eq!(is_whole, columns > 50, "{columns}: {text}");
        }
    }

    #[test]
    fn a_rate_is_of_what_came_lately() {
        let mut progress = Progress::new(false);
        let begin = Instant::now();
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            progress.advance(&at(second << 20, 1 << 30), now);
        }
        assert!(progress.seen.len() <= 8, "{}", progress.seen.len());
        progress.advance(
            &FileProgress {
                file: "other".to_owned(),
                ..at(0, 1)
            },
            begin,
        );
        assert_eq!(progress.seen.len(), 1);
    }
}
