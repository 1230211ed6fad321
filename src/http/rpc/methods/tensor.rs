//! Hidden states and logits as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::rpc::tensor_text::TensorText;
use crate::library_calls::Tensor;

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
    #[schema(value_type = TensorData)]
    data: TensorText,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes")]
enum TensorData {
    Base64(String),
    Rows(Vec<Vec<f32>>),
}

impl JsonTensor {
    pub fn of(tensor: &Tensor, form: TensorForm) -> Self {
        Self {
            dtype: "float32",
            shape: tensor.shape,
            num_tokens: tensor.num_tokens,
            data: TensorText::new(tensor.values.clone(), tensor.shape[1], form),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::Value;
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::http::rpc::outbound::Outbound;

    /// What a client gets, and how many bytes were announced.
    fn text(message: Outbound) -> (Vec<u8>, Option<usize>) {
        let mut pieces = message.into_pieces();
        let announced = pieces.length();
        let mut text = Vec::new();
        while let Some(piece) = pieces.next_piece().unwrap() {
            assert!(piece.len() <= 64 * 1024, "{}", piece.len());
            text.extend_from_slice(&piece);
            if let Some(announced) = announced {
                assert_eq!(pieces.is_empty(), text.len() == announced);
            }
        }
        (text, announced)
    }

    fn written(tensor: &Tensor, form: TensorForm) -> Value {
        let (text, announced) = text(Outbound::of(&JsonTensor::of(tensor, form)));
        match form {
            TensorForm::Base64 => assert_eq!(announced, Some(text.len())),
            TensorForm::Json => assert_eq!(announced, None),
        }
        serde_json::from_slice(&text).unwrap()
    }

    /// With lengths around those of the windows.
    #[test]
    fn windows_are_joined_exactly() {
        for (rows, columns) in [
            (1, 4095),
            (4096, 1),
            (1, 4097),
            (12_287, 1),
            (3, 4096),
            (12_289, 1),
            (3, 10_000),
        ] {
            let data: Vec<f32> = (0..rows * columns).map(|n| n as f32 / 8.0).collect();
            let tensor = Tensor {
                num_tokens: rows,
                shape: [rows, columns],
                values: data.clone().into(),
            };
            let base64 = written(&tensor, TensorForm::Base64);
            assert_eq!(base64["data"], STANDARD.encode(data.as_bytes()));
            let json = written(&tensor, TensorForm::Json);
            let whole: Vec<&[f32]> = data.chunks(columns).collect();
            assert!(
                json["data"] == serde_json::to_value(whole).unwrap(),
                "{rows} x {columns}"
            );
        }
    }

    #[test]
    fn tensors_stand_where_they_belong() {
        let tensor = |first: f32| {
            let values = vec![first, first + 1.0].into();
            JsonTensor::of(
                &Tensor {
                    num_tokens: 1,
                    shape: [1, 2],
                    values,
                },
                TensorForm::Json,
            )
        };
        let mut message = Outbound::of(&("[\n]", tensor(1.0), "between", tensor(3.0)));
        message.begin_with("data: ");
        message.append(Outbound::of(&tensor(5.0)));
        message.push_str("end");
        let data = |values| {
            format!(r#"{{"dtype":"float32","shape":[1,2],"num_tokens":1,"data":[[{values}]]}}"#)
        };
        let (one, two, three) = (data("1.0,2.0"), data("3.0,4.0"), data("5.0,6.0"));
        let expected = format!(r#"data: ["[\n]",{one},"between",{two}]{three}end"#);
        assert_eq!(String::from_utf8(text(message).0).unwrap(), expected);
        assert!(
            serde_json::to_string(&tensor(1.0)).is_err(),
            "it would be a message without its tensor"
        );
    }

    proptest! {
        #[test]
        fn both_forms_keep_every_bit(bits in proptest::collection::vec(any::<u32>(), 0..24)) {
            let columns = 3;
            let data: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let rows = data.len() / columns;
            let data = data[..rows * columns].to_vec();
            let tensor = Tensor { num_tokens: rows, shape: [rows, columns], values: data.clone().into() };

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
