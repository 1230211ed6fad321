//! Whose turn it is: the runs that share a step, or the one that is next of those that need one alone. A
//! decision only. The two sorts alternate, but a run that gets its first token by its step goes before
//! those that have theirs, for a while: when several come at once, the last one waits for the others'
//! prompts only, as if all were read together.

use std::time::Duration;

/// How long the runs that share steps wait in a row for others' first tokens.
const FIRST_TOKENS: Duration = Duration::from_millis(400);

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What the steps of runs alone took since one was shared. None: the last one was.
    alone_for: Option<Duration>,
}

/// What a run's next step alone does for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brings {
    FirstToken,
    Less,
}

impl Turns {
    /// Of both sorts there are some that are ready.
    pub(super) fn is_alones(&self, brings: Brings) -> bool {
        match (self.alone_for, brings) {
            (None, _) => true,
            (Some(taken), Brings::FirstToken) => taken < FIRST_TOKENS,
            (Some(_), Brings::Less) => false,
        }
    }

    pub(super) fn was_shared(&mut self) {
        self.alone_for = None;
    }

    pub(super) fn was_alones(&mut self, wall: Duration) {
        *self.alone_for.get_or_insert_default() += wall;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sorts_alternate() {
        let mut turns = Turns::default();
        assert!(turns.is_alones(Brings::Less));
        turns.was_alones(Duration::from_millis(1));
        assert!(!turns.is_alones(Brings::Less));
        turns.was_shared();
        assert!(turns.is_alones(Brings::Less));
    }

    #[test]
    fn first_tokens_come_before_others_for_a_while() {
        let mut turns = Turns::default();
        for _ in 0..4 {
            assert!(turns.is_alones(Brings::FirstToken));
            turns.was_alones(FIRST_TOKENS / 4);
        }
        assert!(!turns.is_alones(Brings::FirstToken));
        turns.was_shared();
        assert!(turns.is_alones(Brings::FirstToken));
    }
}
