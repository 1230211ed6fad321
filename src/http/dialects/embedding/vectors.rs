//! Rows become embeddings: cut, and scaled.

use super::{Checked, input_param};
use crate::http::request::error::RequestError;
use crate::library_calls::PooledRows;

/// The embeddings, in the order of the inputs.
pub(super) fn vectors(checked: &Checked, rows: PooledRows) -> Result<Vec<Vec<f32>>, RequestError> {
    let Checked {
        model,
        is_list,
        dimensions,
        ..
    } = checked;
    rows.rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| {
            let is_cut = dimensions.is_some_and(|dimensions| dimensions < row.len());
            let has_more = is_cut && row.iter().any(|value| *value != 0.0);
            let vector = finished(row, *dimensions, model.facts.embeddings.normalize);
            vector.map_err(|reason| {
                let param = input_param(*is_list, index);
                match reason {
                    ZERO if has_more => RequestError::out_of_range(
                        "dimensions",
                        format!("leaves nothing but zeros of the embedding of `{param}`"),
                    ),
                    _ => RequestError::NoEmbedding { param, reason },
                }
            })
        })
        .collect()
}

const ZERO: &str = "are zero in every dimension";

/// A row cut to `dimensions` and, where it is to be, scaled to the length 1.
fn finished(
    mut row: Vec<f32>,
    dimensions: Option<usize>,
    normalize: bool,
) -> Result<Vec<f32>, &'static str> {
    row.truncate(dimensions.unwrap_or(usize::MAX));
    if row.is_empty() {
        return Err("are empty");
    }
    if !row.iter().all(|value| value.is_finite()) {
        return Err("hold a value that is not a finite number");
    }
    // f64, so that no square of an f32 overflows or vanishes.
    let square = |value: &f32| f64::from(*value) * f64::from(*value);
    let length = row.iter().map(square).sum::<f64>().sqrt();
    if length == 0.0 {
        return Err(ZERO);
    }
    if normalize {
        for value in &mut row {
            *value = (f64::from(*value) / length) as f32;
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_embedding_has_the_length_1_again() {
        let cut = finished(vec![3.0, 4.0, 12.0], Some(2), true);
        assert_eq!(cut, Ok(vec![0.6, 0.8]));
        let whole = finished(vec![3.0, 4.0, 12.0], None, false);
        assert_eq!(whole, Ok(vec![3.0, 4.0, 12.0]));
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        assert!(finished(vec![0.0, 0.0, 1.0], Some(2), false).is_err());
        assert!(finished(vec![1.0, f32::NAN], None, true).is_err());
        assert!(finished(vec![1.0, f32::INFINITY], None, false).is_err());
        assert!(finished(Vec::new(), None, true).is_err());
    }

    #[test]
    fn the_largest_and_the_smallest_numbers_are_scaled_exactly() {
        for value in [f32::MAX, f32::MIN_POSITIVE] {
            assert_eq!(finished(vec![value, 0.0], None, true), Ok(vec![1.0, 0.0]));
        }
    }
}
