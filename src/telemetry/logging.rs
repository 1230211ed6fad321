//! The process-wide subscriber: entries for the journal where standard error is the journal's, else
//! compact text on stderr, coloured only for a person at a terminal. Each event goes one way.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::journal::{JOURNAL_SOCKET, JournalLayer, JournalWriter, stderr_is_the_journal};
use super::log_line::LogLine;
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
    #[error("log.filter cannot be changed: {0}")]
    Unchangeable(#[from] reload::Error),
}

/// Sees to it that what was logged is written before the process ends: to be dropped last.
#[derive(Debug)]
#[must_use]
pub struct LogFlush(Option<JournalWriter>);

impl Drop for LogFlush {
    fn drop(&mut self) {
        if let Some(journal) = &self.0 {
            journal.flush(LAST_ENTRIES);
        }
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
        .then(|| JournalWriter::start(Path::new(JOURNAL_SOCKET)))
        .transpose();
    let (journal, unreachable) = match journal {
        Ok(journal) => (journal, None),
        Err(error) => (None, Some(error)),
    };
    let text = journal.is_none().then(text_on_stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(journal.clone().map(JournalLayer::new))
        .with(text)
        .try_init()?;
    let _ = FILTER.set(handle);
    if let Some(error) = unreachable {
        tracing::warn!(%error, "{JOURNAL_SOCKET} does not answer; logging text to stderr");
    }
    Ok(LogFlush(journal))
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
        // A test's daemon without a log of its own.
        None => Ok(()),
    }
}

fn text_on_stderr<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        // The formatter hands over each event in one call, so a line is one write(2) and lines of
        // two threads never mix.
        .with_writer(|| LogLine::new(io::stderr()))
        // Its way of telling that stderr is gone is to panic on stderr.
        .log_internal_errors(false)
}
