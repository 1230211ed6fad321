//! A client's message with the charge for it: both go at once, unless its refusal takes the charge over.

use bytes::Bytes;

use crate::memory::Charge;

pub(super) struct ChargedText {
    pub text: Bytes,
    pub charge: Charge,
}
