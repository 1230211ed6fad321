//! The order in which one client's responses get in line for their models: the one in which they were begun. Each has a
//! ticket until it is in line or has ended, and none knows of another's, so that one that goes cannot take the order of
//! those behind it along.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// Those of one client that are not in line yet.
#[derive(Debug, Default)]
pub(super) struct Line {
    tickets: watch::Sender<Tickets>,
}

#[derive(Debug, Default)]
struct Tickets {
    /// The number of the next one.
    next: u64,
    out: BTreeSet<u64>,
}

/// That of one response. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Ticket {
    line: Arc<Line>,
    number: u64,
}

impl Line {
    /// A ticket behind all that were drawn before.
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        let mut number = 0;
        // Who waits has a lower number.
        self.tickets.send_if_modified(|tickets| {
            number = tickets.next;
            tickets.next += 1;
            tickets.out.insert(number);
            false
        });
        Ticket {
            line: Arc::clone(self),
            number,
        }
    }
}

impl Ticket {
    /// Waits until no lower number is out.
    pub async fn comes(&self) {
        let mut tickets = self.line.tickets.subscribe();
        let is_lowest = |tickets: &Tickets| {
            let lowest = tickets.out.first();
            lowest.is_none_or(|lowest| *lowest >= self.number)
        };
        // Its sender is here.
        let _ = tickets.wait_for(is_lowest).await;
    }

    /// Lets the next one come. Again it changes nothing.
    pub fn give_back(&self) {
        let tickets = &self.line.tickets;
        tickets.send_if_modified(|tickets| tickets.out.remove(&self.number));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_back();
    }
}
