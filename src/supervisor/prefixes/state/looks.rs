//! What a plan looks at: how much of a prompt its slot holds, and which texts by their marks.

use super::wanted::Named;
use super::{Held, Now, OfModel, State, Turn};
use crate::supervisor::prefixes::marks::Text;
use crate::supervisor::prefixes::policy::tokens_of;
use crate::supervisor::prefixes::record::Identity;

impl State {
    /// The texts whose marks a plan for this looks at: they can be made before, while no other turn waits.
    pub fn to_mark<'t, 'a>(
        &self,
        now: Now<'_>,
        held: Option<&'t Held<'a>>,
        turn: &'t Turn<'a>,
    ) -> Vec<&'t Text<'a>> {
        let model = self.models.get(&now.of.key());
        if model.is_some_and(|model| model.of == *now.of && !model.may_swap(now.is_alone)) {
            return Vec::new();
        }
        let kept = kept_bytes(now.of, held, turn);
        let prompt = self.looks_at_prompt(now, held, kept, turn);
        let held = held.filter(|held| self.loses(held, kept));
        let prompt = prompt.then_some(&turn.prompt);
        prompt
            .into_iter()
            .chain(held.map(|held| &held.text))
            .collect()
    }

    /// Whose slot has all of it, or who is the only one, asks for nothing else.
    pub(super) fn looks_at_prompt(
        &self,
        now: Now<'_>,
        held: Option<&Held<'_>>,
        kept: usize,
        turn: &Turn<'_>,
    ) -> bool {
        let is_held = held.is_some_and(|held| held.text.len() == kept);
        let model = self.models.get(&now.of.key());
        let has_lost = model.is_some_and(OfModel::has_lost);
        let has_any = has_lost || self.index.files() > 0;
        !is_held && (has_any || self.shared_by(now.of, turn).is_some())
    }

    /// Whether the slot loses what may be worth keeping.
    pub(super) fn loses(&self, held: &Held<'_>, kept: usize) -> bool {
        !held.owner.is_shared && tokens_of(held.text.len() - kept) >= self.bounds.least_tokens
    }

    /// What its model names of what the prompt begins with.
    pub(super) fn shared_by(&self, of: &Identity, turn: &Turn<'_>) -> Option<Named> {
        let installed = self.installed_as(&of.model);
        installed.and_then(|model| model.shared_by(&turn.prompt))
    }
}

/// How many bytes of the turn's prompt the slot holds.
pub(super) fn kept_bytes(of: &Identity, held: Option<&Held<'_>>, turn: &Turn<'_>) -> usize {
    let is_its_own = |held: &&Held<'_>| held.owner.lets(&turn.owner.tenant) && held.of == *of;
    let held = held.filter(is_its_own);
    held.map_or(0, |held| shared_bytes(&held.text, &turn.prompt))
}

fn shared_bytes(a: &str, b: &str) -> usize {
    /// Compared at once.
    const BLOCK: usize = 256;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let blocks = blocks.take_while(|(a, b)| a == b).count();
    let same = blocks * BLOCK;
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}
