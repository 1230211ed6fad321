//! The newest events of the log, in memory, bounded in bytes. They are written down where they are logged, under a
//! lock that no thread holds for longer than it takes to copy some pointers; no reader and no disk is waited for.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::printable::printable;

/// Longest value of a field, in bytes.
const VALUE_BYTES: usize = 8 * 1024;
/// What an event takes beside its texts, and a field likewise.
const EVENT_BYTES: usize = 160;
const FIELD_BYTES: usize = 48;

/// The log of this process.
static RECENT: RecentLog = RecentLog::new();

pub fn recent_log() -> &'static RecentLog {
    &RECENT
}

/// An event as the log has it, with everything escaped that steers a terminal.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    /// One more than that of the event before it.
    pub number: u64,
    pub time: Timestamp,
    pub level: Level,
    pub target: &'static str,
    pub message: String,
    pub fields: Vec<(&'static str, String)>,
}

impl LoggedEvent {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|(_, value)| FIELD_BYTES + value.len());
        EVENT_BYTES + self.message.len() + fields.sum::<usize>()
    }
}

/// What is asked of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogQuery {
    /// This level and what is graver.
    pub level: Level,
    /// Later ones, the first of them; `None`: the newest.
    pub after: Option<u64>,
    pub most: usize,
}

/// What there is of it.
#[derive(Debug)]
pub struct LogExtract {
    /// In their order.
    pub events: Vec<Arc<LoggedEvent>>,
    /// The number of the last event there was; 0: there was none.
    pub last: u64,
    /// How many behind `after` are not kept any more.
    pub gone: u64,
}

#[derive(Debug)]
pub struct RecentLog {
    limit_bytes: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<LoggedEvent>>,
    bytes: usize,
    last: u64,
}

impl RecentLog {
    pub(super) const fn new() -> Self {
        Self {
            limit_bytes: AtomicUsize::new(0),
            kept: Mutex::new(Kept {
                events: VecDeque::new(),
                bytes: 0,
                last: 0,
            }),
        }
    }

    /// Keeps so many bytes of what is logged from now on.
    pub fn keep(&self, limit_bytes: usize) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    pub fn extract(&self, query: LogQuery) -> LogExtract {
        let kept = self.lock();
        let wanted = |event: &&Arc<LoggedEvent>| {
            event.level <= query.level && query.after.is_none_or(|after| event.number > after)
        };
        let events = kept.events.iter();
        let events: Vec<_> = match query.after {
            Some(_) => events.filter(wanted).take(query.most).cloned().collect(),
            None => {
                let newest = events.rev().filter(wanted).take(query.most);
                let mut newest: Vec<_> = newest.cloned().collect();
                newest.reverse();
                newest
            }
        };
        let first = kept.events.front().map_or(kept.last + 1, |it| it.number);
        let gone = |after: u64| first.saturating_sub(after.saturating_add(1));
        LogExtract {
            events,
            last: kept.last,
            gone: query.after.map_or(0, gone),
        }
    }

    fn add(&self, mut event: LoggedEvent) {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let mut kept = self.lock();
        kept.last += 1;
        if limit == 0 {
            return;
        }
        event.number = kept.last;
        kept.bytes += event.bytes();
        kept.events.push_back(Arc::new(event));
        while kept.bytes > limit
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.bytes -= oldest.bytes();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whole after every statement.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps every event that the log has.
#[derive(Debug)]
pub(super) struct RecentLayer(pub &'static RecentLog);

impl<S: Subscriber> Layer<S> for RecentLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut texts = Texts::default();
        event.record(&mut texts);
        let metadata = event.metadata();
        self.0.add(LoggedEvent {
            number: 0,
            time: Timestamp::now(),
            level: *metadata.level(),
            target: metadata.target(),
            message: texts.message,
            fields: texts.fields,
        });
    }
}

#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Texts {
    fn add(&mut self, field: &Field, value: &str) {
        let value = printable(shortened(value)).into_owned();
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
        self.add(field, &text);
    }
}

fn shortened(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_BYTES)]
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(limit_bytes: usize, log: impl FnOnce()) -> &'static RecentLog {
        let recent: &'static RecentLog = Box::leak(Box::new(RecentLog::new()));
        recent.keep(limit_bytes);
        let subscriber = tracing_subscriber::registry().with(RecentLayer(recent));
        tracing::subscriber::with_default(subscriber, log);
        recent
    }

    fn query(level: Level, after: Option<u64>, most: usize) -> LogQuery {
        LogQuery { level, after, most }
    }

    #[test]
    fn the_newest_are_kept_within_their_bytes() {
        const LIMIT: usize = 16 * 1024;
        let recent = logged(LIMIT, || {
            for count in 0..1000 {
                tracing::info!(count, long = %"x".repeat(20_000 * (count % 2)), "said");
            }
            tracing::info!("last");
        });
        let kept = recent.lock();
        assert!(kept.bytes <= LIMIT && kept.bytes > LIMIT / 4);
        let bytes: usize = kept.events.iter().map(|event| event.bytes()).sum();
        assert_eq!(bytes, kept.bytes);
        drop(kept);
        let all = recent.extract(query(Level::TRACE, Some(0), usize::MAX));
        assert_eq!(all.last, 1001);
        assert_eq!(all.gone + all.events.len() as u64, 1001);
        let numbers = all.events.iter().map(|event| event.number);
        assert!(numbers.eq(all.gone + 1..=1001));
        assert_eq!(all.events.last().unwrap().message, "last");
    }

    #[test]
    fn what_is_asked_for_is_told_and_nothing_steers() {
        let recent = logged(1 << 20, || {
            tracing::info!(model = "m", "first");
            tracing::warn!(path = %"a\u{1b}[2Jb", "second\nline");
            tracing::debug!("third");
            tracing::error!("fourth");
        });
        let numbers = |query| {
            let events = recent.extract(query).events;
            events.iter().map(|event| event.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(query(Level::TRACE, None, 9)), [1, 2, 3, 4]);
        assert_eq!(numbers(query(Level::TRACE, None, 2)), [3, 4]);
        assert_eq!(numbers(query(Level::TRACE, Some(1), 2)), [2, 3]);
        assert_eq!(numbers(query(Level::WARN, None, 9)), [2, 4]);
        assert_eq!(numbers(query(Level::ERROR, Some(4), 9)), [0; 0]);
        let all = recent.extract(query(Level::TRACE, None, 9)).events;
        assert_eq!(all[0].fields, [("model", "m".to_owned())]);
        assert_eq!(all[1].message, "second\\nline");
        assert!(!all[1].fields[0].1.contains('\u{1b}'));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let recent = logged(0, || tracing::error!("said"));
        let all = recent.extract(query(Level::TRACE, None, 9));
        assert!(all.events.is_empty());
        assert_eq!((all.last, all.gone), (1, 0));
    }
}
