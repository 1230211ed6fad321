//! Hidden states and logits as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zerocopy::IntoBytes as _;

use crate::http::aside::aside;
use crate::library_calls::Tensor;

// A tensor's memory is written as it is; every board and machine that is supported has this order.
const _: () = assert!(cfg!(target_endian = "little"));

/// How tensors are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TensorForm {
    /// Little-endian bytes, row after row, in base64.
    #[default]
    Base64,
    /// An array of rows. What is no number (NaN, an infinity) is null.
    Json,
}

/// Hidden states or logits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JsonTensor {
    /// Always `float32`.
    dtype: &'static str,
    /// Rows and columns of `data`.
    shape: [usize; 2],
    /// Rows that the library gave.
    num_tokens: usize,
    data: TensorData,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum TensorData {
    Base64(String),
    Rows(Vec<Vec<f32>>),
}

impl JsonTensor {
    pub fn of(tensor: &Tensor, form: TensorForm) -> Self {
        aside(size_of_val(&*tensor.data), || Self::written(tensor, form))
    }

    fn written(tensor: &Tensor, form: TensorForm) -> Self {
        let data = match form {
            TensorForm::Base64 => TensorData::Base64(STANDARD.encode(tensor.data.as_bytes())),
            TensorForm::Json => {
                let columns = tensor.shape[1].max(1);
                TensorData::Rows(tensor.data.chunks(columns).map(<[f32]>::to_vec).collect())
            }
        };
        Self {
            dtype: "float32",
            shape: tensor.shape,
            num_tokens: tensor.num_tokens,
            data,
        }
    }

    /// Bytes of its data.
    pub fn size(&self) -> usize {
        match &self.data {
            TensorData::Base64(text) => text.len(),
            TensorData::Rows(rows) => rows.iter().map(|row| size_of_val(&**row)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(tensor: &Tensor, form: TensorForm) -> Value {
        serde_json::from_str(&serde_json::to_string(&JsonTensor::of(tensor, form)).unwrap())
            .unwrap()
    }

    proptest! {
        #[test]
        fn both_forms_keep_every_bit(bits in proptest::collection::vec(any::<u32>(), 0..24)) {
            let columns = 3;
            let data: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let rows = data.len() / columns;
            let data = data[..rows * columns].to_vec();
            let tensor = Tensor { num_tokens: rows, shape: [rows, columns], data: data.clone() };

            let base64 = written(&tensor, TensorForm::Base64);
            let bytes = STANDARD.decode(base64["data"].as_str().unwrap()).unwrap();
            let back: Vec<u32> = bytes.chunks(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
            prop_assert_eq!(back, data.iter().map(|v| v.to_bits()).collect::<Vec<_>>());

            let json = written(&tensor, TensorForm::Json);
            let back: Vec<&Value> = json["data"].as_array().unwrap().iter()
                .flat_map(|row| row.as_array().unwrap()).collect();
            prop_assert_eq!(back.len(), data.len());
            for (json, value) in back.iter().zip(&data) {
                match json.as_f64() {
                    Some(number) => prop_assert_eq!((number as f32).to_bits(), value.to_bits()),
                    None => prop_assert!(!value.is_finite()),
                }
            }
        }
    }
}
