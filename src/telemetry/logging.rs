//! The process-wide subscriber: compact text on stderr, coloured only for a person at a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::log_line::LogLine;
use crate::settings::LogSettings;

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    #[error("logging was started twice: {0}")]
    AlreadyStarted(#[from] TryInitError),
}

/// Starts logging for the whole process. To be called once, before any other thread starts.
///
/// # Errors
///
/// A filter that does not parse (validated settings hold none), or a second call.
pub fn init_logging(settings: &LogSettings) -> Result<(), LoggingError> {
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(&settings.filter)?)
        .with_ansi(colour)
        // The formatter hands over each event in one call, so a line is one write(2) and lines of
        // two threads never mix.
        .with_writer(|| LogLine::new(io::stderr()))
        // Its way of telling that stderr is gone is to panic on stderr.
        .log_internal_errors(false)
        .finish()
        .try_init()?;
    Ok(())
}
