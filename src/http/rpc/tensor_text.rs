//! The values of a tensor as JSON, made a window at a time. When a message is serialised only a place
//! is left for them, so that their text is nowhere whole.

use std::cell::RefCell;
use std::io;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use zerocopy::IntoBytes as _;

use super::methods::TensorForm;
use crate::library_calls::TensorValues;

// A tensor's memory is written as it is; every board and machine that is supported has this order.
const _: () = assert!(cfg!(target_endian = "little"));

/// Values of a window in base64: whole groups of three bytes become 64 KiB of text.
const BASE64_WINDOW: usize = 48 * 1024 / size_of::<f32>();
/// Values of a window as numbers: at most 18 characters each, of which 15 are the number and the others its
/// comma and the brackets of a row of its own, so that a window is at most 63 KiB of text.
const JSON_WINDOW: usize = 3584;
const _: () = assert!((BASE64_WINDOW * size_of::<f32>()).is_multiple_of(3));

/// Where a tensor belongs. serde_json writes no line end of its own, and one in a text as `\n`, so
/// that no other text of a message is this.
const PLACE: &str = "[\n]";
static PLACE_VALUE: LazyLock<Box<RawValue>> =
    LazyLock::new(|| RawValue::from_string(PLACE.to_owned()).expect("an empty array is JSON"));

thread_local! {
    /// The tensors of the message that is being serialised, in the order of their places.
    static FOUND: RefCell<Option<Vec<TensorText>>> = const { RefCell::new(None) };
}

/// The rest of a tensor's text.
#[derive(Clone, Debug)]
pub(crate) struct TensorText {
    values: TensorValues,
    columns: usize,
    form: TensorForm,
    /// The first value that is not yet text.
    next: usize,
}

/// The JSON of `value` cut at its tensors: the text before the first, then each with the text behind it.
pub(super) fn cut<T: Serialize + ?Sized>(value: &T) -> (String, Vec<(TensorText, String)>) {
    FOUND.set(Some(Vec::new()));
    // Only a map with keys that are no texts has no JSON form, and none is sent.
    let text = serde_json::to_string(value).unwrap_or_default();
    let found = FOUND.take().unwrap_or_default();
    if found.is_empty() {
        return (text, Vec::new());
    }
    let mut texts = text.split(PLACE);
    let mut before = texts.next().unwrap_or_default().to_owned();
    let mut tensors: Vec<(TensorText, String)> = Vec::with_capacity(found.len());
    for (tensor, behind) in found.into_iter().zip(texts) {
        let (opening, closing) = tensor.marks();
        let text = tensors.last_mut().map_or(&mut before, |(_, text)| text);
        text.push_str(opening);
        tensors.push((tensor, format!("{closing}{behind}")));
    }
    (before, tensors)
}

impl TensorText {
    pub fn new(values: TensorValues, columns: usize, form: TensorForm) -> Self {
        Self {
            values,
            columns: columns.max(1),
            form,
            next: 0,
        }
    }

    /// Bytes of its values, in memory or in a file.
    pub fn value_bytes(&self) -> usize {
        self.values.len().saturating_mul(size_of::<f32>())
    }

    /// Bytes of its text; `None`: not known before it is made.
    pub fn text_bytes(&self) -> Option<usize> {
        match self.form {
            TensorForm::Base64 => self.value_bytes().div_ceil(3).checked_mul(4),
            TensorForm::Json => None,
        }
    }

    /// What stands around the windows.
    fn marks(&self) -> (&'static str, &'static str) {
        match self.form {
            TensorForm::Base64 => ("\"", "\""),
            TensorForm::Json => ("[", "]"),
        }
    }

    /// The text of the next values; `None`: all of it was given.
    pub fn next_window(&mut self) -> io::Result<Option<Bytes>> {
        let most = match self.form {
            TensorForm::Base64 => BASE64_WINDOW,
            TensorForm::Json => JSON_WINDOW,
        };
        let count = most.min(self.values.len() - self.next);
        if count == 0 {
            return Ok(None);
        }
        let mut window = vec![0_f32; count];
        self.values.read(self.next, &mut window)?;
        let text = match self.form {
            TensorForm::Base64 => STANDARD.encode(window.as_bytes()).into(),
            TensorForm::Json => self.rows(&window)?.into(),
        };
        self.next += count;
        Ok(Some(text))
    }

    fn rows(&self, window: &[f32]) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(window.len() * 12);
        for (place, value) in (self.next..).zip(window) {
            if place > 0 {
                text.push(b',');
            }
            let column = place % self.columns;
            if column == 0 {
                text.push(b'[');
            }
            // What is no number becomes null.
            serde_json::to_writer(&mut text, value)?;
            if column == self.columns - 1 {
                text.push(b']');
            }
        }
        Ok(text)
    }
}

/// Leaves its place in a message that is being [cut](self::cut).
impl Serialize for TensorText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_found = FOUND.with_borrow_mut(|found| {
            let found = found.as_mut()?;
            found.push(self.clone());
            Some(())
        });
        is_found.ok_or_else(|| S::Error::custom("a tensor outside of a message"))?;
        PLACE_VALUE.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_no_longer_than_it_is_said_to_be() {
        // Among the longest texts that a number has, each in a row of its own.
        let longest = -1.000_000_75e-36_f32;
        assert_eq!(serde_json::to_string(&longest).unwrap().len(), 15);
        let values = vec![longest; BASE64_WINDOW + JSON_WINDOW];
        for form in [TensorForm::Json, TensorForm::Base64] {
            let mut tensor = TensorText::new(TensorValues::from(values.clone()), 1, form);
            while let Some(window) = tensor.next_window().unwrap() {
                assert!(window.len() <= 64 * 1024, "{form:?}: {}", window.len());
            }
        }
    }
}
