//! A writer through which no event can look like two: line breaks inside an event are escaped, and
//! only the last one ends the line.

use std::io::{self, Write};

/// Wraps the log's destination. Each call of `write` is taken as one whole event.
pub struct LogLine<W> {
    destination: W,
}

impl<W: Write> LogLine<W> {
    pub fn new(destination: W) -> Self {
        Self { destination }
    }
}

impl<W: Write> Write for LogLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        if body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let mut line = Vec::with_capacity(event.len() + 16);
            for byte in body {
                match byte {
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    other => line.push(*other),
                }
            }
            line.extend_from_slice(&event[body.len()..]);
            self.destination.write_all(&line)?;
        } else {
            self.destination.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.destination.flush()
    }
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
    fn an_event_with_line_breaks_is_one_line() {
        let captured = Captured::default();
        let destination = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || LogLine::new(destination.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(text = %"a\r\n2030-01-01 ERROR forged", "printed\nby a library");
            tracing::info!("next");
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.split_terminator('\n').collect();
        assert_eq!(lines.len(), 2, "{log:?}");
        assert!(lines[0].contains("printed\\nby a library"), "{log:?}");
        assert!(
            lines[0].contains("a\\r\\n2030-01-01 ERROR forged"),
            "{log:?}"
        );
        assert!(lines[1].ends_with("next"), "{log:?}");
    }
}
