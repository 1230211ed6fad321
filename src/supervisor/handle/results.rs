//! What a callback gave, as it comes from the worker, made into what a client reads.

use crate::ipc::{RawSlot, WireTensor, read_tensor};
use crate::library_calls::{CallState, CallbackResult, SlotResult, Tensor};
use crate::supervisor::connection::Connection;

/// Takes the tensors of a result in; the large ones are read from their files. A worker keeps the
/// limit on them itself, but it is one that a library may have broken.
pub(super) async fn callback_result(
    connection: &mut Connection,
    state: CallState,
    slots: Vec<RawSlot>,
    tensor_limit_bytes: u64,
) -> Result<CallbackResult, String> {
    let tensors = slots
        .iter()
        .flat_map(|slot| [&slot.hidden_states, &slot.logits]);
    let bytes = tensors.flatten().map(bytes_of).fold(0, u64::saturating_add);
    if bytes > tensor_limit_bytes {
        return Err(format!(
            "the worker gave tensors of {bytes} bytes, more than the limit of {tensor_limit_bytes}"
        ));
    }
    let mut results = Vec::with_capacity(slots.len());
    for (batch_slot, slot) in (0..).zip(slots) {
        // In the order in which the worker passed the files.
        let last_hidden_layer = tensor(connection, slot.hidden_states).await?;
        let logits = tensor(connection, slot.logits).await?;
        results.push(SlotResult {
            batch_slot,
            text: slot.text,
            token_id: slot.token_id,
            last_hidden_layer,
            logits,
            perf: slot.perf,
        });
    }
    Ok(CallbackResult { state, results })
}

fn bytes_of(wire: &WireTensor) -> u64 {
    let values = wire.rows.saturating_mul(wire.columns);
    values.saturating_mul(size_of::<f32>() as u64)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a copy of memory, no larger than the tensor limit"
)]
async fn tensor(
    connection: &mut Connection,
    wire: Option<WireTensor>,
) -> Result<Option<Tensor>, String> {
    let Some(wire) = wire else { return Ok(None) };
    let size = |number: u64| usize::try_from(number).map_err(|error| error.to_string());
    let (rows, columns) = (size(wire.rows)?, size(wire.columns)?);
    let values = rows
        .checked_mul(columns)
        .ok_or("a tensor of impossible size")?;
    let data = match wire.data {
        Some(data) if data.len() == values => data,
        Some(_) => return Err("a tensor of another size than its shape".to_owned()),
        None => {
            let file = connection
                .take_file()
                .ok_or("a tensor's file did not arrive (out of descriptors?)")?;
            tokio::task::spawn_blocking(move || read_tensor(file, values))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?
        }
    };
    Ok(Some(Tensor {
        num_tokens: size(wire.num_tokens)?,
        shape: [rows, columns],
        data,
    }))
}
