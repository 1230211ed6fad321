mod asked;
mod rows;
mod scripted;

use std::collections::BTreeMap;

use super::*;
use crate::constraint::{Next, Wanted};
use crate::generation::FinishReason;
use crate::ipc::RunConstraint;
use crate::worker::token_sink::EndedBy;
use asked::Asked;
use scripted::{
    END, GREEDY, ODD_BASE, Odd, PROMPT, SAMPLED, WORDS, constraint, parsers, row_behind,
};

const ODD: [Odd; 6] = [
    ODD_BASE,
    Odd {
        late: 3,
        ..ODD_BASE
    },
    Odd {
        swallows_end: true,
        ..ODD_BASE
    },
    Odd {
        announces: true,
        late: 1,
        ..ODD_BASE
    },
    Odd {
        waits: 2,
        ..ODD_BASE
    },
    Odd {
        forgets: true,
        swallows_end: true,
        late: 2,
        ..ODD_BASE
    },
];

fn regex(text: &str) -> RunConstraint {
    constraint(&Wanted::Regex(text.to_owned()))
}

#[test]
fn a_greedy_answer_is_that_of_a_hook_token_by_token() {
    let parsers = parsers();
    for pattern in ["(ab|ac)*b!", "[abc]{3,9}", "(é|a ){2,6}c", "abc ?a+"] {
        let constraint = regex(pattern);
        for odd in ODD {
            for seed in 0..12 {
                let asked = Asked {
                    seed,
                    odd,
                    ..Asked::new(&parsers, &constraint)
                };
                let made = asked.make();
                assert_eq!(made.came.not_kept, None, "{pattern} {seed} {odd:?}");
                assert_eq!(made.ids, asked.with_a_hook(), "{pattern} {seed} {odd:?}");
                let reason = made.complete.expect("it is complete");
                let ended_by = Some(EndedBy::Reason(reason));
                assert_eq!(made.came.record.ended_by, ended_by);
            }
        }
    }
}

/// How likely each text is, by the definition.
fn expected(asked: &Asked<'_>, texts: &mut BTreeMap<String, f64>) {
    let mut open = vec![(Vec::<i32>::new(), 1.0)];
    while let Some((drawn, share)) = open.pop() {
        let before = [&PROMPT[..], &drawn].concat();
        let row = row_behind(asked.seed, &before);
        let mut allowed = vec![0.0; row.len()];
        let next = asked
            .follower()
            .row(&drawn, &mut allowed)
            .expect("it goes on");
        let weights = row.iter().zip(&allowed).map(|(logit, mark)| match *mark {
            f32::NEG_INFINITY => 0.0,
            _ => f64::from(*logit / asked.free.temperature).exp(),
        });
        let weights: Vec<f64> = weights.collect();
        let all: f64 = weights.iter().sum();
        for (id, weight) in (0..).zip(weights) {
            if next == Next::Token && id != END && weight > 0.0 {
                let drawn = [&drawn[..], &[id]].concat();
                open.push((drawn, share * weight / all));
            }
        }
        let ends = match next {
            Next::End => 1.0,
            Next::Token if allowed[END as usize] == 0.0 => {
                f64::from(row[END as usize] / asked.free.temperature).exp() / all
            }
            Next::Token => 0.0,
        };
        if ends > 0.0 {
            let said = drawn.iter().flat_map(|&id| WORDS[id as usize]).copied();
            let text = String::from_utf8(said.collect()).expect("whole characters");
            *texts.entry(text).or_default() += share * ends;
        }
    }
}

/// How far so many answers are from what is expected, by what one degree of freedom is worth.
fn distance(asked: &Asked<'_>, answers: u32) -> f64 {
    let mut texts = BTreeMap::new();
    expected(asked, &mut texts);
    let sum: f64 = texts.values().sum();
    assert!((sum - 1.0).abs() < 1e-6, "{texts:?}");
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..answers {
        let made = asked.make();
        assert!(texts.contains_key(&made.text), "{:?}", made.text);
        *counts.entry(made.text).or_default() += 1;
    }
    let far = texts.iter().map(|(text, share)| {
        let expected = share * f64::from(answers);
        let counted = f64::from(counts.get(text).copied().unwrap_or(0));
        (counted - expected).powi(2) / expected
    });
    far.sum::<f64>() / (texts.len() - 1) as f64
}

#[test]
fn answers_are_distributed_as_with_a_hook() {
    let parsers = parsers();
    let texts = ["ab", "ac", "b", "abc!", "bc"].map(str::to_owned);
    let constraint = constraint(&Wanted::Choice(texts.to_vec()));
    for odd in [ODD_BASE, ODD[5]] {
        let asked = Asked {
            free: SAMPLED,
            again: SAMPLED,
            odd,
            ..Asked::new(&parsers, &constraint)
        };
        // Of four degrees of freedom: one in ten thousand is further than 23.5.
        let far = distance(&asked, 1500) * 4.0;
        assert!(far < 35.0, "{far}");
        // Who takes the likeliest in the place of what may not come makes others.
        let wrong = Asked {
            again: GREEDY,
            ..asked
        };
        let far = distance(&wrong, 1500) * 4.0;
        assert!(far > 60.0, "{far}");
    }
}

#[test]
fn characters_are_whole_wherever_the_library_goes_back() {
    let parsers = parsers();
    let constraint = regex("(é){4,12}");
    for seed in 0..40 {
        let asked = Asked {
            seed,
            free: SAMPLED,
            again: SAMPLED,
            ..Asked::new(&parsers, &constraint)
        };
        let made = asked.make();
        assert_eq!(made.complete, Some(FinishReason::Stop));
        assert!(made.text.chars().all(|c| c == 'é'), "{}", made.text);
        assert!((4..=12).contains(&made.text.chars().count()));
    }
    // As of a library that waits for the rest of a character, also where none comes.
    let mut cuts = 0;
    for (seed, most_tokens) in (0..40).flat_map(|seed| [1, 2, 3].map(|most| (seed, most))) {
        let cut = Asked {
            seed,
            free: SAMPLED,
            again: SAMPLED,
            most_tokens,
            ..Asked::new(&parsers, &constraint)
        };
        let made = cut.make();
        assert_eq!(made.complete, Some(FinishReason::Length));
        assert_eq!(made.ids.len(), most_tokens as usize);
        let bytes = made.ids.iter().map(|&id| WORDS[id as usize].len());
        let bytes: usize = bytes.sum();
        assert_eq!(made.text, "é".repeat(bytes / 2));
        cuts += bytes % 2;
    }
    assert!(cuts > 0, "no character was cut");
}

#[test]
fn a_budget_ends_an_answer_where_it_is() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){20}");
    let whole = Asked {
        free: SAMPLED,
        again: SAMPLED,
        ..Asked::new(&parsers, &constraint)
    };
    let made = whole.make();
    assert_eq!(made.complete, Some(FinishReason::Stop));
    let cut = Asked {
        most_tokens: 9,
        ..whole
    };
    let made = cut.make();
    assert_eq!(
        (made.complete, made.ids.len()),
        (Some(FinishReason::Length), 9)
    );
}

#[test]
fn what_is_forced_takes_no_draw_and_comes_behind_the_first_evaluation() {
    let parsers = parsers();
    // No word but these goes on with it.
    let constraint = regex("! ! !");
    let made = Asked::new(&parsers, &constraint).make();
    assert_eq!(made.text, "! ! !");
    assert_eq!(made.complete, Some(FinishReason::Stop));
    assert_eq!(made.came.redraws.redraws, 0);
    let perf = made.came.record.perf.expect("the prompt was evaluated");
    // What is forced is of the answer.
    assert_eq!(perf.prefill_tokens, PROMPT.len() as i32);
    assert!(perf.prefill_time_ms < 1.0 && perf.generate_time_ms > 1.0);
}

#[test]
fn an_answer_that_was_whole_before_says_nothing_more() {
    let parsers = parsers();
    for (pattern, begun) in [("ab", [3]), ("!", [7])] {
        let constraint = regex(pattern);
        let asked = Asked {
            begun: &begun,
            free: SAMPLED,
            again: SAMPLED,
            ..Asked::new(&parsers, &constraint)
        };
        let made = asked.make();
        assert_eq!((&*made.text, made.ids.len()), ("", 0));
        assert_eq!(made.complete, Some(FinishReason::Stop));
        assert_eq!(made.came.not_kept, None);
        assert!(!made.came.asked_runtime, "there is nothing to make");
    }
}

#[test]
fn an_answer_goes_on_where_another_worker_left_it() {
    let parsers = parsers();
    let constraint = regex("(ab|ac)*b!");
    let whole = Asked::new(&parsers, &constraint);
    let ids = whole.make().ids;
    for at in 0..ids.len() {
        let rest = Asked {
            begun: &ids[..at],
            most_tokens: whole.most_tokens - at as u32,
            ..Asked::new(&parsers, &constraint)
        };
        assert_eq!(rest.make().ids, ids[at..], "{ids:?} behind {at}");
    }
}

#[test]
fn no_abort_comes_to_a_run_that_ends_with_its_token() {
    let parsers = parsers();
    // The model wants to end from the beginning on.
    let constraint = regex("(ab|bc){6,9}");
    let mut met = 0;
    for seed in 0..60 {
        let asked = Asked {
            seed,
            ..Asked::new(&parsers, &constraint)
        };
        let made = asked.make();
        assert_eq!(made.came.not_kept, None);
        let wants_to_end = |at: usize| {
            let before = [&PROMPT[..], &made.ids[..at]].concat();
            let row = row_behind(seed, &before);
            GREEDY.draw(&row, &vec![0.0; row.len()], 0.0) == Some(END)
        };
        // Behind the last one the answer is complete, and what comes of it is dropped.
        met += (0..made.ids.len()).filter(|&at| wants_to_end(at)).count();
        assert_eq!(made.aborts_at_ends, 0, "{seed}");
    }
    assert!(met > 0);
}

#[test]
fn more_redraws_than_there_may_be_end_the_answer_with_what_there_is() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){40}");
    for (forgets, limits, setting) in [
        (false, (5, 3), "`constraints.max-redraws`"),
        (true, (5, 3), "`constraints.max-redraws-without-reuse`"),
    ] {
        let asked = Asked {
            free: SAMPLED,
            again: SAMPLED,
            odd: Odd {
                forgets,
                ..ODD_BASE
            },
            limits: RedrawLimits {
                redraws: limits.0,
                without_reuse: limits.1,
                runs: RedrawRuns::Measured,
            },
            ..Asked::new(&parsers, &constraint)
        };
        let made = asked.make();
        let reason = made.came.not_kept.expect("it needs more");
        assert!(reason.contains(setting), "{reason}");
        assert_eq!((made.complete, made.came.record.ended_by), (None, None));
        let most = if forgets { limits.1 } else { limits.0 };
        assert_eq!(made.came.redraws.redraws, most);
        assert!(
            !made.text.is_empty() && !made.text.contains('!'),
            "{}",
            made.text
        );
        assert!(made.came.redraws.wasted_tokens > most);
        let evaluated = made.came.redraws.evaluated_tokens.expect("it was told");
        let runs = 2 * most;
        match forgets {
            true => assert!(evaluated > most * PROMPT.len() as u32),
            // One that is new, or none and the last one again.
            false => assert!(evaluated <= 2 * runs, "{evaluated}"),
        }
    }
}

#[test]
fn a_library_without_logits_draws_nothing_again() {
    let parsers = parsers();
    let constraint = regex("(ab|bc){40}");
    let asked = Asked {
        free: SAMPLED,
        again: SAMPLED,
        odd: Odd {
            waits: 1_000,
            ..ODD_BASE
        },
        ..Asked::new(&parsers, &constraint)
    };
    let made = asked.make();
    let reason = made.came.not_kept.expect("it cannot go on");
    assert!(reason.contains("no logits"), "{reason}");
}

#[test]
fn whatever_happens_nothing_is_told_that_may_not_come() {
    let parsers = parsers();
    let constraint = regex("(ab|bc|é){6,30}");
    let mut random = fastrand::Rng::with_seed(7);
    let mut ends = BTreeMap::<&str, u32>::new();
    for seed in 0..300 {
        let odd = Odd {
            fails_at: random.bool().then(|| random.u32(1..20)),
            cancelled_at: random.bool().then(|| random.u32(1..60)),
            ..ODD[random.usize(..ODD.len())]
        };
        let asked = Asked {
            seed,
            free: SAMPLED,
            again: SAMPLED,
            odd,
            ..Asked::new(&parsers, &constraint)
        };
        let made = asked.make();
        let mut follower = asked.follower();
        for (at, &id) in made.ids.iter().enumerate() {
            let mut allowed = vec![0.0; WORDS.len() + 1];
            let next = follower.row(&made.ids[..at], &mut allowed);
            assert_eq!(next.expect("it goes on"), Next::Token, "{:?}", made.ids);
            assert_eq!(allowed[id as usize], 0.0, "{:?}", made.ids);
        }
        let how = match (&made.came.result, made.came.record.ended_by) {
            (Err(_), None) => "failed",
            (Ok(()), Some(EndedBy::Abort)) => "aborted",
            (_, Some(EndedBy::Reason(_))) => "complete",
            other => panic!("{other:?}"),
        };
        if how == "failed" {
            let is_first = odd.fails_at == Some(1);
            assert_eq!(made.came.record.reported_error, !is_first, "{odd:?}");
        }
        assert_eq!(how == "complete", made.complete.is_some());
        *ends.entry(how).or_default() += 1;
    }
    assert_eq!(ends.len(), 3, "{ends:?}");
}
