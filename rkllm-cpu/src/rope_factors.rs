//! Models with two sets of rope factors: those for contexts up to the length that the model was first
//! trained with, and those for longer ones. llama.cpp chooses by the cells that one sequence may have,
//! which in a shared context are all of them; keys that were rotated by one set are wrong for the other.

use crate::fingerprint::Fingerprint;

/// The longest context that has the factors for short ones. None: there is one set, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortContexts(Option<u32>);

impl ShortContexts {
    /// From what the model's file says of rope scaling. The other kinds have one set of factors.
    pub(crate) fn of(kind: Option<&str>, original_length: Option<&str>) -> ShortContexts {
        let has_two = !matches!(kind, Some("yarn" | "linear"));
        ShortContexts(
            original_length
                .filter(|_| has_two)
                .and_then(|n| n.parse().ok()),
        )
    }

    /// So many of `cells` for contexts of `length` tokens that those compute as one alone does.
    pub(crate) fn cells(self, length: u32, cells: u32) -> u32 {
        match self.0 {
            Some(most) if length <= most => cells.min(most),
            _ => cells,
        }
    }

    /// What saved cells of contexts of `length` tokens are told apart by.
    pub(crate) fn fingerprint(self, model: u64, length: usize) -> u64 {
        match self.0 {
            Some(most) if length > most as usize => {
                let mut long = Fingerprint::new();
                long.add(&model.to_le_bytes());
                long.add(b"long rope factors");
                long.value()
            }
            _ => model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_that_share_cells_have_the_factors_of_one_alone() {
        let two = ShortContexts::of(None, Some("4096"));
        assert_eq!(two.cells(4096, 8192), 4096);
        assert_eq!(two.cells(2048, 3000), 3000);
        assert_eq!(two.cells(4128, 8256), 8256, "long ones already");
        for (kind, length) in [
            (Some("yarn"), Some("4096")),
            (None, None),
            (None, Some("?")),
        ] {
            assert_eq!(ShortContexts::of(kind, length).cells(4096, 8192), 8192);
        }
    }

    #[test]
    fn saved_cells_of_one_set_are_not_for_the_other() {
        let two = ShortContexts::of(Some("longrope"), Some("4096"));
        assert_eq!(two.fingerprint(7, 4096), 7);
        assert_ne!(two.fingerprint(7, 4128), 7);
        assert_eq!(two.fingerprint(7, 4128), two.fingerprint(7, 8192));
        assert_eq!(ShortContexts::of(None, None).fingerprint(7, 8192), 7);
    }
}
