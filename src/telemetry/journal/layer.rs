use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::entry;
use crate::telemetry::log_writer::LogWriter;

/// Gives every event to the journal, once.
#[derive(Debug)]
pub struct JournalLayer {
    writer: LogWriter,
}

impl JournalLayer {
    pub fn new(writer: LogWriter) -> Self {
        Self { writer }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.writer.submit(entry::of_event(event));
    }
}
