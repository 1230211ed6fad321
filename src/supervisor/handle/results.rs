//! What a callback gave, as it comes from the worker, made into what a client reads.

use std::os::fd::OwnedFd;

use crate::generation::GenerationError;
use crate::ipc::{RawSlot, WireTensor, open_tensor};
use crate::library_calls::{CallState, CallbackResult, Counted, SlotResult, Tensor};
use crate::memory::{Account, Charge};

/// Takes the tensors of a result in; the large ones stay in their files. A worker keeps the limit on
/// them itself, but it is one that a library may have broken.
///
/// The files are charged to `account` before they are looked at. Where that cannot be they are closed, and
/// the inner error says so.
pub(super) fn callback_result(
    state: CallState,
    slots: Vec<RawSlot>,
    files: Vec<OwnedFd>,
    (tensor_limit_bytes, account): (u64, Option<&Account>),
) -> Result<Result<CallbackResult, GenerationError>, String> {
    let tensors = slots
        .iter()
        .flat_map(|slot| [&slot.hidden_states, &slot.logits]);
    let bytes = tensors.flatten().map(bytes_of).fold(0, u64::saturating_add);
    if bytes > tensor_limit_bytes {
        return Err(format!(
            "the worker gave tensors of {bytes} bytes, more than the limit of {tensor_limit_bytes}"
        ));
    }
    let in_files = slots
        .iter()
        .flat_map(|slot| [&slot.hidden_states, &slot.logits])
        .flatten()
        .filter(|wire| wire.data.is_none());
    let file_bytes = in_files.map(bytes_of).fold(0, u64::saturating_add);
    let charge = account.map(|account| account.charge(whole(file_bytes)));
    let mut charge = match charge.transpose() {
        Ok(charge) => charge,
        Err(over) => {
            let (whose, limit_bytes) = over.parts();
            return Ok(Err(GenerationError::TensorsHeld { whose, limit_bytes }));
        }
    };
    let mut files = files.into_iter();
    let mut results = Vec::with_capacity(slots.len());
    for (batch_slot, slot) in (0..).zip(slots) {
        // In the order in which the worker passed the files.
        let last_hidden_layer = tensor(&mut files, slot.hidden_states, &mut charge)?;
        let logits = tensor(&mut files, slot.logits, &mut charge)?;
        results.push(SlotResult {
            batch_slot,
            text: slot.text,
            token_id: slot.token_id,
            last_hidden_layer,
            logits,
            perf: slot.perf,
        });
    }
    Ok(Ok(CallbackResult { state, results }))
}

fn bytes_of(wire: &WireTensor) -> u64 {
    let values = wire.rows.saturating_mul(wire.columns);
    values.saturating_mul(size_of::<f32>() as u64)
}

impl Counted for Charge {}

fn whole(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The bytes of its file are taken from `charge`.
fn tensor(
    files: &mut impl Iterator<Item = OwnedFd>,
    wire: Option<WireTensor>,
    charge: &mut Option<Charge>,
) -> Result<Option<Tensor>, String> {
    let Some(wire) = wire else { return Ok(None) };
    let bytes = bytes_of(&wire);
    let size = |number: u64| usize::try_from(number).map_err(|error| error.to_string());
    let (rows, columns) = (size(wire.rows)?, size(wire.columns)?);
    let values = rows
        .checked_mul(columns)
        .ok_or("a tensor of impossible size")?;
    let values = match wire.data {
        Some(data) if data.len() == values => data.into(),
        Some(_) => return Err("a tensor of another size than its shape".to_owned()),
        None => {
            let file = files
                .next()
                .ok_or("a tensor's file did not arrive (out of descriptors?)")?;
            let charge = charge.as_mut().map(|charge| charge.split(whole(bytes)));
            let counted = charge.map(|charge| Box::new(charge) as Box<dyn Counted>);
            open_tensor(file, values, counted).map_err(|error| error.to_string())?
        }
    };
    Ok(Some(Tensor {
        num_tokens: size(wire.num_tokens)?,
        shape: [rows, columns],
        values,
    }))
}
