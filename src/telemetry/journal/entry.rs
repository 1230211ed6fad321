//! One entry in the journal's native format: `NAME=value` lines, or, for a value with line breaks,
//! the name, a line break, the length as 64 bits little-endian, the value.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use crate::printable::printable;

/// Longest value, in bytes: a datagram must hold the entry, and a queue of them is kept in memory.
const VALUE_BYTES: usize = 8 * 1024;
/// Before the names of the daemon's own fields, so that they are no other program's.
const PREFIX: &str = "RKLLMD_";

/// An entry that tells an event.
pub(super) fn of_event(event: &Event<'_>) -> Vec<u8> {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut entry = head(event.metadata());
    let message = fields.message + &fields.others;
    // For people. The fields keep the values as they were.
    push(&mut entry, "MESSAGE", &printable(&message));
    entry.extend_from_slice(&fields.entry);
    entry
}

/// An entry that tells of others that were lost.
pub(super) fn of_dropped(count: u64) -> Vec<u8> {
    let mut entry = b"PRIORITY=4\nSYSLOG_IDENTIFIER=rkllmd\n".to_vec();
    let message = format!("{count} log entries were dropped while the journal took none");
    push(&mut entry, "MESSAGE", &message);
    push(&mut entry, "RKLLMD_DROPPED", &count.to_string());
    entry
}

fn head(metadata: &Metadata<'_>) -> Vec<u8> {
    // syslog's numbers.
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut entry = Vec::with_capacity(512);
    push(&mut entry, "PRIORITY", priority);
    push(&mut entry, "SYSLOG_IDENTIFIER", "rkllmd");
    push(&mut entry, "TARGET", metadata.target());
    if let Some(file) = metadata.file() {
        push(&mut entry, "CODE_FILE", file);
    }
    if let Some(line) = metadata.line() {
        push(&mut entry, "CODE_LINE", &line.to_string());
    }
    entry
}

fn push(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = shortened(value);
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

fn shortened(value: &str) -> &str {
    let end = (0..=VALUE_BYTES.min(value.len()))
        .rev()
        .find(|&end| value.is_char_boundary(end));
    &value[..end.unwrap_or(0)]
}

/// An event's fields, twice: as fields, and as text behind the message, which is all that most people
/// look at.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    entry: Vec<u8>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str, shown: std::fmt::Arguments<'_>) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        let _ = write!(self.others, " {}={shown}", field.name());
        push(&mut self.entry, &name(field.name()), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value, format_args!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.add(field, &value, format_args!("{value}"));
    }
}

/// The journal's name of a field: capitals, digits and underscores.
fn name(field: &str) -> String {
    let name = match field {
        // The process that the event is about. The journal's own _PID is the daemon's.
        "pid" => "worker_pid",
        other => other,
    };
    let valid = |c: char| match c.to_ascii_uppercase() {
        c @ ('A'..='Z' | '0'..='9') => c,
        _ => '_',
    };
    PREFIX.chars().chain(name.chars().map(valid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_line_breaks_is_framed_by_its_length() {
        let mut entry = Vec::new();
        push(&mut entry, "A", "one");
        push(&mut entry, "B", "two\nC=forged");
        assert_eq!(entry, b"A=one\nB\n\x0c\0\0\0\0\0\0\0two\nC=forged\n");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "ä".repeat(VALUE_BYTES);
        assert_eq!(shortened(&long).len(), VALUE_BYTES);
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), VALUE_BYTES - 1);
        assert_eq!(shortened("short"), "short");
    }

    #[test]
    fn names_are_the_journals() {
        assert_eq!(name("model"), "RKLLMD_MODEL");
        assert_eq!(name("pid"), "RKLLMD_WORKER_PID");
        assert_eq!(name("a.b-c"), "RKLLMD_A_B_C");
    }
}
