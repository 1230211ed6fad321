//! Where a run's callbacks go: to a client one by one, or into one result.

use crate::http::rpc::methods::result::{ResultNotification, RunResult};
use crate::http::rpc::methods::tensor::TensorForm;
use crate::http::rpc::notifications::Notifications;
use crate::http::rpc::protocol::RpcError;
use crate::library_calls::CallbackResult;
use crate::memory::Charge;

/// A result that is collected is charged in steps of this size.
const COLLECTED_STEP_BYTES: usize = 64 * 1024;

/// What becomes of a run's callbacks.
pub(super) struct Taker<'a> {
    pub handle: &'a str,
    pub run: u64,
    pub form: TensorForm,
    /// Where each is sent.
    pub notifications: Option<Notifications>,
    /// Where they are collected.
    pub collected: Option<Collected<'a>>,
}

/// A result that grows, with what is charged for it.
pub(super) struct Collected<'a> {
    pub result: RunResult,
    pub charge: &'a mut Charge,
}

impl Collected<'_> {
    fn add(
        &mut self,
        callback: &CallbackResult,
        form: TensorForm,
        tensors: bool,
    ) -> Result<(), RpcError> {
        let steps = self.result.size() / COLLECTED_STEP_BYTES;
        self.result.add(callback, form, tensors)?;
        // In steps, that no token pays for.
        let more = self.result.size() / COLLECTED_STEP_BYTES - steps;
        if more > 0 {
            let grown = self.charge.grow(more * COLLECTED_STEP_BYTES);
            grown.map_err(RpcError::of_budget)?;
        }
        Ok(())
    }
}

impl Taker<'_> {
    pub async fn take(&mut self, callback: CallbackResult) -> Result<(), RpcError> {
        let (run, form) = (self.run, self.form);
        if let Some(collected) = &mut self.collected {
            collected.add(&callback, form, self.notifications.is_none())?;
        }
        let Some(notifications) = &self.notifications else {
            return Ok(());
        };
        for slot in callback.results {
            let result = ResultNotification::of(self.handle, run, callback.state, slot, form);
            notifications.send("rkllm.result", &result).await?;
        }
        Ok(())
    }
}
