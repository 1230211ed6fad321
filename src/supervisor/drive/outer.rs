//! What ends a request whichever worker it is on, or while it waits for one.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::generation::{Deadline, GenerationError};

/// A request's deadline as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    pub at: Instant,
    pub limit: Duration,
}

/// The limits that a request brings along, whichever worker it is on.
#[derive(Debug, Default)]
pub struct Outer<'a> {
    pub total: Option<Total>,
    /// Becomes true when the daemon stops waiting for running answers.
    pub cut_off: Option<&'a mut watch::Receiver<bool>>,
}

impl Outer<'_> {
    /// Why the request must end now.
    pub fn passed(&self) -> Option<GenerationError> {
        if self
            .cut_off
            .as_ref()
            .is_some_and(|cut_off| *cut_off.borrow())
        {
            return Some(GenerationError::ShuttingDown);
        }
        let total = self.total.filter(|total| total.at <= Instant::now())?;
        Some(total.error())
    }

    /// Waits until it must; for ever where nothing limits it.
    pub async fn pass(&mut self) -> GenerationError {
        let total = self.total;
        let cut_off = async {
            match &mut self.cut_off {
                // An error is the end of what says so.
                Some(cut_off) => drop(cut_off.wait_for(|cut_off| *cut_off).await),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cut_off => GenerationError::ShuttingDown,
            error = total_passed(total) => error,
        }
    }
}

impl Total {
    fn error(self) -> GenerationError {
        GenerationError::DeadlineExceeded {
            deadline: Deadline::Total,
            limit: self.limit,
        }
    }
}

async fn total_passed(total: Option<Total>) -> GenerationError {
    match total {
        Some(total) => {
            sleep_until(total.at.into()).await;
            total.error()
        }
        None => pending().await,
    }
}
