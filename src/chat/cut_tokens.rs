//! What of a conversation in tokens goes where all of it does not fit: its oldest turns, whole, where it shows where
//! turns begin; else its oldest tokens. What is before the first turn stays, above all what a system says.
//!
//! As with messages, they go in steps, so that the next turns lose the same ones.

/// Tokens that stay of what shows no turns: as many as Ollama keeps by default.
const KEPT_TOKENS: usize = 4;
/// A question and its answer.
const MESSAGES_OF_TURN: usize = 2;

/// The tokens between stay out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub from: usize,
    pub to: usize,
    /// Messages in them; none where it is not known.
    pub messages: usize,
}

impl Cut {
    /// What leaves no more than `room` of `tokens`, or the least that can be. Turns begin with `opening`; so large a
    /// part as `step` goes at once. So many as `kept` stay, but no more than half of the room.
    pub fn of(
        tokens: &[i32],
        opening: &[i32],
        room: usize,
        step: usize,
        kept: Option<usize>,
    ) -> Self {
        let step = step.max(1);
        let kept = kept.map(|kept| kept.min(room / 2));
        let starts: Vec<usize> = match opening {
            [] => Vec::new(),
            opening => {
                let windows = tokens.windows(opening.len()).enumerate();
                let starts = windows.filter(|(_, window)| *window == opening);
                starts.map(|(at, _)| at).collect()
            }
        };
        // With what is before it there is room for turns.
        let has_room = |from: &usize| *from <= room / 2;
        let is_behind = |from: &usize| *from >= kept.unwrap_or_default() && has_room(from);
        // Of a turn that would end too late no part stays.
        let first = starts.iter().position(is_behind);
        match &starts[first.unwrap_or_default()..] {
            // What a system says stays, however much of the room it takes.
            [from, ends @ ..] if *from < room => {
                let ends = ends.iter().copied().chain([tokens.len()]);
                Self::of_turns(tokens.len(), *from, ends, room, step)
            }
            _ => {
                let from = kept.unwrap_or(KEPT_TOKENS).min(tokens.len());
                let least = tokens.len().saturating_sub(room);
                let steps = least.div_ceil(step).saturating_mul(step);
                let is_all = from.saturating_add(steps) >= tokens.len();
                let gone = if is_all { least } else { steps };
                Self {
                    from,
                    to: from.saturating_add(gone).min(tokens.len()),
                    messages: 0,
                }
            }
        }
    }

    fn of_turns(
        length: usize,
        from: usize,
        ends: impl Iterator<Item = usize>,
        room: usize,
        step: usize,
    ) -> Self {
        let mut filled = 0;
        let mut least = None;
        for (turns, to) in (1..).zip(ends) {
            let cut = Self {
                from,
                to,
                messages: turns * MESSAGES_OF_TURN,
            };
            let is_step = (to - from) / step > filled;
            filled = (to - from) / step;
            if from + (length - to) > room {
                continue;
            }
            if is_step && to < length {
                return cut;
            }
            least = least.or(Some(cut));
        }
        // Rather out of step than without a turn.
        least.unwrap_or(Self {
            from,
            to: length,
            messages: 0,
        })
    }

    pub fn tokens(&self) -> usize {
        self.to - self.from
    }

    /// What stays.
    pub fn apply(&self, tokens: &[i32]) -> Vec<i32> {
        [&tokens[..self.from], &tokens[self.to..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is before a first turn, and turns of an opening and so many tokens.
    fn turns(before: usize, sizes: &[usize]) -> Vec<i32> {
        let mut tokens = vec![9; before];
        for (nth, size) in (10..).zip(sizes) {
            tokens.extend([1, 2]);
            tokens.extend(vec![nth; size - 2]);
        }
        tokens
    }

    #[test]
    fn the_oldest_turns_go_and_what_is_before_them_stays() {
        let tokens = turns(3, &[10, 10, 10, 10]);
        let cut = |room, step| {
            let cut = Cut::of(&tokens, &[1, 2], room, step, None);
            (cut.from, cut.to, cut.messages)
        };
        assert_eq!(cut(33, 1), (3, 13, 2));
        assert_eq!(cut(32, 1), (3, 23, 4));
        // Two of them are a step.
        assert_eq!(cut(33, 20), (3, 23, 4));
        // None is left.
        assert_eq!(cut(6, 1), (3, 43, 8));
        // A step would leave none, and less is enough.
        assert_eq!(cut(26, 38), (3, 23, 4));
        assert_eq!(Cut::of(&[7; 50], &[], 20, 100, None).to, 34);
        // What a system says stays where it takes more than half.
        let long = Cut::of(&turns(20, &[10, 10]), &[1, 2], 30, 1, None);
        assert_eq!((long.from, long.to), (20, 30));
        let kept = Cut::of(&tokens, &[1, 2], 23, 1, None).apply(&tokens);
        assert_eq!(kept, [&turns(3, &[])[..], &tokens[23..]].concat());
    }

    /// Of a conversation that grows the same tokens are gone several times in a row.
    #[test]
    fn the_next_turn_loses_the_same() {
        let mut ends: Vec<usize> = (10..40)
            .map(|count| Cut::of(&turns(3, &vec![10; count]), &[1, 2], 100, 25, None).to)
            .collect();
        ends.dedup();
        assert!(ends.len() <= 15, "{ends:?}");
        let mut ends: Vec<usize> = (200..260)
            .map(|count| Cut::of(&vec![7; count], &[], 100, 25, None).to)
            .collect();
        ends.dedup();
        assert_eq!(ends, [104, 129, 154, 179]);
    }

    #[test]
    fn what_shows_no_turns_loses_its_oldest_tokens() {
        let tokens: Vec<i32> = (0..50).collect();
        for opening in [&[][..], &[77]] {
            let cut = Cut::of(&tokens, opening, 30, 1, None);
            assert_eq!((cut.from, cut.to, cut.messages), (4, 24, 0));
        }
        // Nor does it help that a turn is known of which all that is before is too much.
        assert_eq!(Cut::of(&tokens, &[40], 30, 1, None).to, 24);
        assert_eq!(Cut::of(&tokens, &[], 0, 1, None).to, 50);
        assert_eq!(Cut::of(&[], &[], 0, 1, None).tokens(), 0);
    }

    #[test]
    fn so_many_stay_as_are_asked_for() {
        let tokens = turns(3, &[10, 10, 10, 10]);
        let cut = |room, kept| {
            let cut = Cut::of(&tokens, &[1, 2], room, 1, Some(kept));
            (cut.from, cut.to, cut.messages)
        };
        // What is before the first turn stays anyway, and a turn is not cut.
        assert_eq!(cut(33, 0), (3, 13, 2));
        assert_eq!(cut(33, 3), (3, 13, 2));
        assert_eq!(cut(33, 4), (13, 23, 2));
        assert_eq!(cut(24, 4), (3, 23, 4));
        // Half of the room at the most.
        assert_eq!(cut(26, 100), (13, 33, 4));
        let flat = |kept| Cut::of(&[7; 50], &[], 30, 1, Some(kept));
        assert_eq!((flat(0).from, flat(0).to), (0, 20));
        assert_eq!((flat(9).from, flat(9).to), (9, 29));
        assert_eq!((flat(40).from, flat(40).to), (15, 35));
    }

    proptest! {
        #[test]
        fn what_stays_fits_or_is_the_least(
            tokens in prop::collection::vec(0..4, 0..200), opening in prop::collection::vec(0..4, 0..3),
            room in 0..250_usize, step in 0..60_usize, kept in prop::option::of(0..250_usize),
        ) {
            let cut = Cut::of(&tokens, &opening, room, step, kept);
            prop_assert!(cut.from <= cut.to && cut.to <= tokens.len());
            let kept = cut.apply(&tokens);
            prop_assert_eq!(kept.len() + cut.tokens(), tokens.len());
            prop_assert!(kept.len() <= room.max(cut.from) || cut.to == tokens.len());
        }
    }
}
