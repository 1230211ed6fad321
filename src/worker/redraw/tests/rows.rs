//! Answers that are made with the row of each token in hand, and such that nothing is kept to but bans.

use super::asked::Asked;
use super::scripted::{
    END, GREEDY, MOST_WITH_ROWS, ODD_BASE, Odd, PROMPT, Rows, SAMPLED, WORDS, constraint, parsers,
    row_behind,
};
use super::{ODD, distance, regex};
use crate::constraint::Wanted;
use crate::generation::{FinishReason, RedrawLimits, RedrawRuns};
use crate::worker::redraw::Costs;

const ROWS: [Rows; 4] = [
    Rows::WithTexts,
    Rows::WithIds,
    Rows::Alone,
    Rows::AloneWithAnId,
];

/// Each library, with each way to tell rows.
fn libraries() -> impl Iterator<Item = Odd> {
    let of = |odd: Odd| ROWS.into_iter().map(move |rows| Odd { rows, ..odd });
    ODD.into_iter().flat_map(of)
}

/// The logarithm of a token's probability behind these.
fn logprob(seed: u64, before: &[i32], id: i32) -> f64 {
    let row = row_behind(seed, &[&PROMPT[..], before].concat());
    let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
    f64::from(row[id as usize]) - sum.ln()
}

#[test]
fn tokens_of_answers_say_how_likely_they_were_and_are_those_of_a_hook() {
    let parsers = parsers();
    for pattern in ["(ab|ac)*b!", "[abc]{3,9}", "! ! !"] {
        let constraint = regex(pattern);
        for odd in libraries() {
            for seed in 0..6 {
                let asked = Asked {
                    seed,
                    odd,
                    scores: Some(2),
                    ..Asked::new(&parsers, &constraint)
                };
                let made = asked.make();
                let of = (pattern, seed, odd);
                assert_eq!(made.came.not_kept, None, "{of:?}");
                assert_eq!(made.ids, asked.with_a_hook(), "{of:?}");
                assert_eq!(made.scores.len(), made.ids.len(), "{of:?}");
                for (at, scores) in made.scores.iter().enumerate() {
                    assert_eq!(scores.token.id, made.ids[at]);
                    assert_eq!(scores.token.bytes, WORDS[made.ids[at] as usize]);
                    let told = scores.token.logprob.expect("it has one");
                    let expected = logprob(seed, &made.ids[..at], made.ids[at]);
                    assert!((f64::from(told) - expected).abs() < 1e-4, "{of:?}");
                    assert_eq!(scores.top.len(), 2);
                    assert!(scores.top[0].logprob >= scores.top[1].logprob);
                }
                // A library may keep rows until their run has ended.
                let most = MOST_WITH_ROWS + odd.late;
                assert!(made.with_rows <= most, "{of:?}");
                // The prompt is evaluated first, without rows of all of it.
                assert_eq!(made.asked[0], 1, "{of:?}");
                let is_alone = matches!(odd.rows, Rows::Alone | Rows::AloneWithAnId);
                if odd.waits == 0 && !is_alone {
                    assert_eq!(made.asked[2], 0, "each row is in hand: {of:?}");
                }
            }
        }
    }
}

#[test]
fn free_answers_say_how_likely_their_tokens_were() {
    let parsers = parsers();
    let constraint = regex("a");
    let mut longest = 0;
    for odd in libraries() {
        for seed in 0..6 {
            let asked = Asked {
                seed,
                odd,
                is_free: true,
                scores: Some(0),
                most_tokens: 12,
                ..Asked::new(&parsers, &constraint)
            };
            let made = asked.make();
            assert_eq!(made.ids, without(seed, &[], 12), "{odd:?}");
            assert!(made.with_rows <= MOST_WITH_ROWS + odd.late, "{odd:?}");
            longest = longest.max(made.ids.len());
            assert_eq!(made.scores.len(), made.ids.len());
            assert!(made.scores.iter().all(|scores| scores.top.is_empty()));
        }
    }
    // One of them takes several runs.
    assert!(longest > MOST_WITH_ROWS as usize);
}

/// A greedy answer in which some tokens never come.
fn without(seed: u64, banned: &[i32], most: usize) -> Vec<i32> {
    let mut ids = Vec::new();
    while ids.len() < most {
        let row = row_behind(seed, &[&PROMPT[..], &ids].concat());
        let mut allowed = vec![0.0; row.len()];
        for &id in banned {
            allowed[id as usize] = f32::NEG_INFINITY;
        }
        let id = GREEDY.draw(&row, &allowed, 0.0).expect("one is allowed");
        if id == END {
            break;
        }
        ids.push(id);
    }
    ids
}

#[test]
fn banned_tokens_never_come() {
    let parsers = parsers();
    let constraint = regex("a");
    let mut redraws = 0;
    for banned in [&[0, 3, 11][..], &[END], &[END, 1]] {
        for odd in libraries() {
            for seed in 0..8 {
                let asked = Asked {
                    seed,
                    odd,
                    banned,
                    is_free: true,
                    most_tokens: 20,
                    ..Asked::new(&parsers, &constraint)
                };
                let made = asked.make();
                assert_eq!(made.came.not_kept, None, "{odd:?}");
                assert_eq!(made.ids, without(seed, banned, 20), "{banned:?} {odd:?}");
                let is_endless = banned.contains(&END);
                assert!(!is_endless || made.complete == Some(FinishReason::Length));
                redraws += made.came.redraws.redraws;
                let sampled = Asked {
                    free: SAMPLED,
                    again: SAMPLED,
                    ..asked
                };
                let made = sampled.make();
                assert!(made.ids.iter().all(|id| !banned.contains(id)), "{odd:?}");
            }
        }
    }
    assert!(redraws > 0);
}

#[test]
fn rows_are_in_hand_where_much_is_drawn_again_unless_they_do_not_come() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){20,30}");
    let asked = Asked {
        free: SAMPLED,
        again: SAMPLED,
        ..Asked::new(&parsers, &constraint)
    };
    let made = asked.make();
    let [_, with_rows, rows] = made.asked;
    assert!(with_rows > 0, "{:?}", made.asked);
    assert_eq!(made.came.redraws.runs_with_rows, with_rows);
    assert!(rows < made.came.redraws.redraws, "{:?}", made.asked);
    let mut costs = Costs::default();
    costs.misses_rows();
    let made = Asked { costs, ..asked }.make();
    assert_eq!(made.asked[1], 0);
    // What does not come is not asked for again.
    let alone = Odd {
        rows: Rows::Alone,
        ..ODD_BASE
    };
    let loose = regex("[abc ]{30,40}");
    let asked = Asked {
        constraint: &loose,
        odd: alone,
        ..asked
    };
    let made = asked.make();
    assert_eq!(made.came.not_kept, None);
    let again = Asked {
        costs: made.came.costs,
        ..asked
    };
    assert!(made.asked[1] > 0 && again.make().asked[1] == 0);
}

#[test]
fn an_answer_is_made_in_the_runs_that_are_set_and_is_that_of_a_hook() {
    let parsers = parsers();
    for pattern in ["(ab|ac)*b!", "(ab|bc){20,30}"] {
        let constraint = regex(pattern);
        let mut redraws = 0;
        for odd in libraries() {
            for seed in 0..6 {
                let asked = Asked {
                    seed,
                    odd,
                    ..Asked::new(&parsers, &constraint)
                };
                let made = |runs| {
                    let limits = RedrawLimits {
                        runs,
                        ..asked.limits
                    };
                    let made = Asked { limits, ..asked }.make();
                    assert_eq!(
                        made.came.not_kept, None,
                        "{pattern} {seed} {odd:?} {runs:?}"
                    );
                    assert_eq!(made.ids, asked.with_a_hook(), "{seed} {odd:?} {runs:?}");
                    made
                };
                let tokens = made(RedrawRuns::Tokens);
                assert_eq!(tokens.asked[1], 0, "{odd:?}");
                redraws += tokens.came.redraws.redraws;
                let logits = made(RedrawRuns::Logits);
                // The prompt is evaluated first, without rows of all of it.
                assert!(logits.asked[0] >= 1, "{odd:?}");
                assert!(logits.asked[1] >= 1, "{odd:?}");
                if odd.waits == 0 && matches!(odd.rows, Rows::WithTexts | Rows::WithIds) {
                    let [first, _, rows] = logits.asked;
                    assert_eq!((first, rows), (1, 0), "each row is in hand: {odd:?}");
                }
            }
        }
        assert!(redraws > 0, "{pattern}");
    }
}

#[test]
fn each_run_behind_the_first_evaluates_what_is_new_and_one_more_at_most() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){20,30}");
    for odd in libraries() {
        for runs in [RedrawRuns::Measured, RedrawRuns::Tokens, RedrawRuns::Logits] {
            let asked = Asked {
                odd,
                ..Asked::new(&parsers, &constraint)
            };
            let limits = RedrawLimits {
                runs,
                ..asked.limits
            };
            let made = Asked { limits, ..asked }.make();
            let (redraws, all) = (made.came.redraws, made.asked.iter().sum::<u32>());
            assert_eq!(redraws.restarts, all - 1, "{odd:?} {runs:?}");
            let evaluated = redraws.evaluated_tokens.expect("it was told");
            assert!(evaluated >= redraws.restarts, "{odd:?} {runs:?}");
            let most = redraws.restarts + made.ids.len() as u32;
            assert!(
                odd.forgets || evaluated <= most,
                "{odd:?} {runs:?}: {evaluated}"
            );
        }
    }
    // All of it in one run: nothing was evaluated again.
    let loose = regex("[abcé !]{1,60}");
    let made = Asked {
        is_free: true,
        ..Asked::new(&parsers, &loose)
    }
    .make();
    let redraws = made.came.redraws;
    assert_eq!((redraws.restarts, redraws.evaluated_tokens), (0, Some(0)));
}

#[test]
fn a_library_that_prints_other_texts_makes_no_answer() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){20,30}");
    for odd in libraries() {
        let prints_others = Odd {
            prints_others: true,
            // Its tokens have texts.
            rows: Rows::WithTexts,
            ..odd
        };
        for scores in [None, Some(0)] {
            let made = Asked {
                odd: prints_others,
                scores,
                ..Asked::new(&parsers, &constraint)
            }
            .make();
            let reason = made.came.not_kept.expect("they are others");
            assert!(reason.contains("`tokenizer.json`"), "{odd:?}: {reason}");
            assert!(
                made.came.tokens_are_others && made.complete.is_none(),
                "{odd:?}"
            );
            assert!(
                made.text.chars().all(|c| "abc".contains(c)),
                "{}",
                made.text
            );
        }
        let made = Asked {
            odd,
            ..Asked::new(&parsers, &constraint)
        }
        .make();
        assert!(!made.came.tokens_are_others, "{odd:?}");
    }
}

#[test]
fn answers_with_rows_in_hand_are_distributed_as_with_a_hook() {
    let parsers = parsers();
    let texts = ["ab", "ac", "b", "abc!", "bc"].map(str::to_owned);
    let constraint = constraint(&Wanted::Choice(texts.to_vec()));
    for rows in ROWS {
        let asked = Asked {
            free: SAMPLED,
            again: SAMPLED,
            scores: Some(0),
            odd: Odd { rows, ..ODD_BASE },
            ..Asked::new(&parsers, &constraint)
        };
        // Of four degrees of freedom: one in ten thousand is further than 23.5.
        let far = distance(&asked, 1500) * 4.0;
        assert!(far < 35.0, "{rows:?}: {far}");
    }
}

#[test]
fn what_is_only_wished_for_ends_no_answer() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){40}");
    let asked = Asked {
        free: SAMPLED,
        again: SAMPLED,
        is_wish: true,
        limits: RedrawLimits {
            redraws: 2,
            without_reuse: 2,
            ..RedrawLimits::default()
        },
        ..Asked::new(&parsers, &constraint)
    };
    let mut went_free = 0;
    for _ in 0..20 {
        let made = asked.make();
        assert_eq!(made.came.not_kept, None);
        assert!(made.complete.is_some());
        assert!(made.came.redraws.redraws <= 2);
        went_free += u32::from(!made.text.chars().all(|c| "abc".contains(c)));
    }
    assert!(went_free > 0);
}
