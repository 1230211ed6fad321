//! The events of one slot on their way to the daemon.

use std::os::fd::OwnedFd;

use super::event_writer::EventWriter;
use super::run_progress::RunProgress;
use crate::ipc::{Event, SlotEvent};

/// The slot's sending end; cloned freely.
#[derive(Clone)]
pub struct SlotEvents {
    slot: u8,
    writer: EventWriter,
}

impl SlotEvents {
    pub fn new(slot: u8, writer: EventWriter) -> Self {
        Self { slot, writer }
    }

    /// Queues an event.
    pub fn send(&self, event: SlotEvent) {
        self.writer.send(self.of_slot(event));
    }

    /// Says which adapter is being loaded, or that none is any more. It is on its way to the daemon then,
    /// whatever becomes of this process.
    pub fn loads_adapter(&self, name: Option<&str>) {
        let name = name.map(str::to_owned);
        self.writer.send(Event::LoadsAdapter { name });
        self.writer.flush();
    }

    /// Queues an event if there is room. Returns whether there was.
    pub fn try_send(&self, event: SlotEvent) -> bool {
        self.writer.try_send(self.of_slot(event)).is_ok()
    }

    /// Queues what a callback leads to, once the daemon has room for it. To wait for that is not the
    /// library's fault: its deadlines rest.
    pub fn deliver(&self, progress: &RunProgress, event: SlotEvent, files: Vec<OwnedFd>) {
        let event = self.of_slot(event);
        let has_credit = progress.credit.try_take();
        let unsent = match has_credit {
            true => self.writer.try_send_with_files(event, files),
            false => Err((event, files)),
        };
        let Err((event, files)) = unsent else { return };
        progress.set_waiting_for_reader(true);
        if !has_credit {
            progress.credit.take();
        }
        self.writer.send_with_files(event, files);
        progress.set_waiting_for_reader(false);
    }

    fn of_slot(&self, event: SlotEvent) -> Event {
        let slot = self.slot;
        Event::Slot { slot, event }
    }
}
