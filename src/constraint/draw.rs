//! Draws a token of a row of logits by the definition that holds for every runtime, without penalties: top-k
//! and top-p leave some of all tokens, as if nothing were forbidden; of these the allowed ones share all of the
//! probability, at the temperature; if none is among them, all allowed ones do. Pure.
//!
//! Where a library draws freely, and another token is drawn so in the place of each one that may not come, an
//! answer is distributed as if it had been drawn so from the beginning: of an allowed token's probability p a
//! part p comes at once, and of the forbidden part 1 - A, A being that of all allowed ones, a share p/A.

/// What a run draws with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draws {
    /// 0: the likeliest.
    pub temperature: f32,
    /// 0 or less: all; 1: the likeliest.
    pub top_k: i32,
    pub top_p: f32,
}

impl Draws {
    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 || self.top_k == 1
    }

    /// One of the tokens that `allowed` does not forbid by -inf; `None`: none can be drawn. `chance` is from 0
    /// to below 1, evenly.
    pub fn draw(&self, row: &[f32], allowed: &[f32], chance: f64) -> Option<i32> {
        let may = |id: usize| {
            allowed
                .get(id)
                .is_some_and(|mark| *mark != f32::NEG_INFINITY)
        };
        let all = row.iter().copied().enumerate();
        let all = all.filter(|(_, logit)| logit.is_finite());
        let id = if self.is_greedy() {
            likeliest(all.filter(|(id, _)| may(*id)))?
        } else {
            let mut left = self.truncated(all.clone().collect());
            left.retain(|(id, _)| may(*id));
            if left.is_empty() {
                left = all.filter(|(id, _)| may(*id)).collect();
            }
            self.one_of(&left, chance)?
        };
        i32::try_from(id).ok()
    }

    fn truncated(&self, mut tokens: Vec<(usize, f32)>) -> Vec<(usize, f32)> {
        let by_logit = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1);
        let most = usize::try_from(self.top_k).unwrap_or(0);
        if most > 0 && most < tokens.len() {
            tokens.select_nth_unstable_by(most, by_logit);
            tokens.truncate(most);
        }
        if self.top_p < 1.0 {
            tokens.sort_unstable_by(by_logit);
            let weights = weights(&tokens, 1.0);
            let enough = f64::from(self.top_p) * weights.iter().sum::<f64>();
            let mut so_far = 0.0;
            let below = weights.iter().take_while(|weight| {
                so_far += **weight;
                so_far < enough
            });
            // The one that reaches it is the last.
            let left = below.count() + 1;
            tokens.truncate(left);
        }
        tokens
    }

    fn one_of(&self, tokens: &[(usize, f32)], chance: f64) -> Option<usize> {
        let weights = weights(tokens, f64::from(self.temperature));
        let mut rest = chance * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            rest -= weight;
            rest < 0.0
        });
        // Sums are rounded: what is left over is the last one's.
        let drawn = drawn.or_else(|| weights.iter().rposition(|weight| *weight > 0.0))?;
        tokens.get(drawn).map(|(id, _)| *id)
    }
}

/// The first one of equals.
fn likeliest(tokens: impl Iterator<Item = (usize, f32)>) -> Option<usize> {
    let highest = tokens.reduce(|best, next| match next.1 > best.1 {
        true => next,
        false => best,
    });
    highest.map(|(id, _)| id)
}

/// In proportion to their probabilities.
fn weights(tokens: &[(usize, f32)], temperature: f64) -> Vec<f64> {
    let highest = tokens.iter().map(|(_, logit)| *logit);
    let highest = f64::from(highest.fold(f32::NEG_INFINITY, f32::max));
    let weight = |logit: f32| ((f64::from(logit) - highest) / temperature).exp();
    tokens.iter().map(|(_, logit)| weight(*logit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLED: Draws = Draws {
        temperature: 1.3,
        top_k: 0,
        top_p: 1.0,
    };
    const NO: f32 = f32::NEG_INFINITY;

    /// How often each is drawn, of chances that lie evenly.
    fn shares(draws: Draws, row: &[f32], allowed: &[f32]) -> Vec<f64> {
        const OF: u32 = 4_000;
        let mut counts = vec![0_u32; row.len()];
        for at in 0..OF {
            let chance = (f64::from(at) + 0.5) / f64::from(OF);
            let id = draws.draw(row, allowed, chance).expect("one is allowed");
            counts[id as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| f64::from(count) / f64::from(OF))
            .collect()
    }

    #[test]
    fn what_is_allowed_of_what_is_left_shares_all() {
        // Probabilities of 1/2, 1/4, 1/8, 1/8.
        let row = [3.0, 2.0, 1.0, 1.0].map(|power: f32| power * std::f32::consts::LN_2);
        let draws = Draws {
            temperature: 1.0,
            ..SAMPLED
        };
        let near = |shares: Vec<f64>, expected: [f64; 4]| {
            let far = shares.iter().zip(expected);
            assert!(
                far.map(|(a, b)| (a - b).abs()).all(|far| far < 1e-3),
                "{shares:?}"
            );
        };
        near(shares(draws, &row, &[0.0; 4]), [0.5, 0.25, 0.125, 0.125]);
        near(
            shares(draws, &row, &[NO, 0.0, 0.0, 0.0]),
            [0.0, 0.5, 0.25, 0.25],
        );
        let cut = Draws { top_k: 2, ..draws };
        near(
            shares(cut, &row, &[NO, 0.0, 0.0, 0.0]),
            [0.0, 1.0, 0.0, 0.0],
        );
        near(shares(cut, &row, &[NO, NO, 0.0, 0.0]), [0.0, 0.0, 0.5, 0.5]);
        let cut = Draws {
            top_p: 0.6,
            ..draws
        };
        near(
            shares(cut, &row, &[0.0; 4]),
            [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0],
        );
        let one = Draws {
            top_p: 0.0,
            ..draws
        };
        near(shares(one, &row, &[0.0; 4]), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn rows_that_are_no_rows_draw_nothing() {
        assert_eq!(SAMPLED.draw(&[], &[], 0.5), None);
        assert_eq!(SAMPLED.draw(&[1.0, 2.0], &[NO, NO], 0.5), None);
        assert_eq!(SAMPLED.draw(&[f32::NAN, NO], &[0.0, 0.0], 0.5), None);
        assert_eq!(
            SAMPLED.draw(&[1.0; 4], &[NO], 0.5),
            None,
            "nobody knows them"
        );
        assert_eq!(SAMPLED.draw(&[f32::NAN, 1.0], &[0.0, 0.0], 0.5), Some(1));
    }

    proptest! {
        #[test]
        fn nothing_is_drawn_that_is_not_allowed(
            row in prop::collection::vec(-20.0..20.0_f32, 1..40),
            marks in prop::collection::vec(any::<bool>(), 40),
            temperature in 0.0..3.0_f32, top_k in -1..45, top_p in 0.0..1.1_f32, chance in 0.0..1.0_f64,
        ) {
            let allowed: Vec<f32> = marks.iter().map(|may| if *may { 0.0 } else { NO }).collect();
            let draws = Draws { temperature, top_k, top_p };
            let may: Vec<usize> = (0..row.len()).filter(|&id| marks[id]).collect();
            match draws.draw(&row, &allowed, chance) {
                None => prop_assert!(may.is_empty()),
                Some(id) => {
                    let id = id as usize;
                    prop_assert!(may.contains(&id));
                    if draws.is_greedy() {
                        prop_assert!(may.iter().all(|&other| row[other] <= row[id]));
                    }
                }
            }
        }

        /// Draws freely, and once more where that may not come: as if it were drawn at once.
        #[test]
        fn what_is_drawn_again_is_distributed_as_if_drawn_at_once(
            row in prop::collection::vec(-2.0..2.0_f32, 5), top_k in 0..6, top_p in 0.3..1.0_f32,
        ) {
            let allowed = [0.0, NO, 0.0, NO, 0.0];
            let draws = Draws { top_k: if top_k == 1 { 0 } else { top_k }, top_p, ..SAMPLED };
            let free = shares(draws, &row, &[0.0; 5]);
            let again = shares(draws, &row, &allowed);
            let forbidden = free[1] + free[3];
            for ((mark, free), again) in allowed.iter().zip(&free).zip(&again) {
                let at_once = match *mark == NO {
                    true => 0.0,
                    false => *free,
                };
                let both = at_once + forbidden * again;
                prop_assert!((both - again).abs() < 2e-3, "{both} {again}");
            }
        }
    }
}
