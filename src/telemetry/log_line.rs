//! A writer through which no event can look like two, and no name in an event steers a terminal. Such
//! characters are escaped, and only the last line break ends the line.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::printable::printable;

/// Wraps the log's destination. Each call of `write` is taken as one whole event.
pub struct LogLine<W> {
    destination: W,
    coloured: bool,
}

impl<W: Write> LogLine<W> {
    pub fn new(destination: W) -> Self {
        Self {
            destination,
            coloured: false,
        }
    }

    /// The formatter writes colours. They stay.
    pub fn coloured(self, coloured: bool) -> Self {
        Self { coloured, ..self }
    }
}

impl<W: Write> Write for LogLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let text = String::from_utf8_lossy(body);
        match without_steering(&text, self.coloured) {
            Cow::Borrowed(_) => self.destination.write_all(event)?,
            Cow::Owned(line) => {
                let mut line = line.into_bytes();
                line.extend_from_slice(&event[body.len()..]);
                self.destination.write_all(&line)?;
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.destination.flush()
    }
}

/// The event's text with everything escaped that steers a terminal, but for colours where there are
/// any: `ESC [ digits m`.
fn without_steering(text: &str, coloured: bool) -> Cow<'_, str> {
    if !coloured {
        return printable(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    shown.push_str(&printable(parts.next().unwrap_or_default()));
    for part in parts {
        let after = part
            .strip_prefix('[')
            .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        let is_colour = after.is_some_and(|rest| rest.starts_with('m'));
        shown.push_str(if is_colour { "\u{1b}" } else { "\\u{1b}" });
        shown.push_str(&printable(part));
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn colours_are_all_that_steers() {
        let text = "\u{1b}[32m INFO\u{1b}[0m a\u{1b}]0;title\u{7}b\u{1b}[2Jc";
        let shown = without_steering(text, true);
        assert_eq!(
            shown,
            "\u{1b}[32m INFO\u{1b}[0m a\\u{1b}]0;title\\u{7}b\\u{1b}[2Jc"
        );
        assert!(!without_steering(text, false).contains('\u{1b}'));
    }

    #[test]
    fn an_event_with_line_breaks_is_one_line() {
        let captured = Captured::default();
        let destination = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || LogLine::new(destination.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(text = %"a\r\n2030-01-01 ERROR forged", "printed\nby a library");
            tracing::info!(path = %"a\u{1b}[2Jb\u{202e}c", "\u{9b}named");
            tracing::info!("next");
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.split_terminator('\n').collect();
        assert_eq!(lines.len(), 3, "{log:?}");
        let steers = |c: char| c != '\n' && printable(c.encode_utf8(&mut [0; 4])).len() > 4;
        assert!(!log.contains(steers), "{log:?}");
        assert!(lines[0].contains("printed\\nby a library"), "{log:?}");
        assert!(
            lines[0].contains("a\\r\\n2030-01-01 ERROR forged"),
            "{log:?}"
        );
        assert!(lines[2].ends_with("next"), "{log:?}");
    }
}
