//! The process-wide subscriber: entries for the journal where standard error is the journal's, else
//! compact text on stderr, coloured only for a person at a terminal. Each event goes one way.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::journal::{self, JOURNAL_SOCKET, JournalLayer, stderr_is_the_journal};
use super::log_line::LogLine;
use super::log_writer::LogWriter;
use super::recent_log::{RecentLayer, recent_log};
use super::stderr::{Entries, Stderr};
use crate::settings::LogSettings;

/// Time for the last entries to reach the journal.
const LAST_ENTRIES: Duration = Duration::from_secs(1);

/// The filter in force; set once.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    #[error("logging was started twice: {0}")]
    AlreadyStarted(#[from] TryInitError),
    #[error("the thread that writes it cannot be started: {0}")]
    NoThread(io::Error),
    #[error("log.filter cannot be changed: {0}")]
    Unchangeable(#[from] reload::Error),
}

/// Writes out what was logged before the process ends. It must be dropped last.
#[derive(Debug)]
#[must_use]
pub struct LogFlush(LogWriter);

impl Drop for LogFlush {
    fn drop(&mut self) {
        self.0.flush(LAST_ENTRIES);
    }
}

/// Starts logging for the whole process. To be called once, before any other thread starts.
///
/// # Errors
///
/// A filter that does not parse (validated settings hold none), or a second call.
pub fn init_logging(settings: &LogSettings) -> Result<LogFlush, LoggingError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(&settings.filter)?);
    let journal = stderr_is_the_journal()
        .then(|| journal::start(Path::new(JOURNAL_SOCKET)))
        .transpose();
    let (journal, unreachable) = match journal {
        Ok(journal) => (journal, None),
        Err(error) => (None, Some(error)),
    };
    let is_journal = journal.is_some();
    let writer = match journal {
        Some(writer) => writer,
        None => LogWriter::start(Stderr).map_err(LoggingError::NoThread)?,
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(RecentLayer(recent_log()))
        .with(is_journal.then(|| JournalLayer::new(writer.clone())))
        .with((!is_journal).then(|| text(writer.clone())))
        .try_init()?;
    let _ = FILTER.set(handle);
    if let Some(error) = unreachable {
        tracing::warn!(%error, "{JOURNAL_SOCKET} does not answer; logging text to stderr");
    }
    log_panics();
    Ok(LogFlush(writer))
}

/// Changes what is logged from now on.
///
/// # Errors
///
/// A filter that does not parse; the one in force stays.
pub fn set_log_filter(settings: &LogSettings) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    match FILTER.get() {
        Some(handle) => Ok(handle.reload(filter)?),
        // A test's daemon has no log of its own.
        None => Ok(()),
    }
}

/// A panic is logged as everything else is. The standard library's way waits for stderr's reader.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        tracing::error!(
            thread = thread.name(),
            at = panic.location().map(tracing::field::display),
            backtrace = (backtrace.status() == BacktraceStatus::Captured)
                .then(|| tracing::field::display(&backtrace)),
            "panicked: {}",
            panic.payload_as_str().unwrap_or("no message")
        );
    }));
}

fn text<S>(writer: LogWriter) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        // The formatter hands over each event in one call, so a line is one write(2) and lines of
        // two threads never mix.
        .with_writer(Lines { writer, colour })
        // It would panic on stderr to tell that stderr is gone.
        .log_internal_errors(false)
}

struct Lines {
    writer: LogWriter,
    colour: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LogLine<Entries<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine::new(Entries(&self.writer)).coloured(self.colour)
    }
}
