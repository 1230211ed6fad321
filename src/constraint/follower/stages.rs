//! What may come where an answer is not kept to its grammar: before a thought, in it, and around calls.

use super::{Follower, Next, Said, Stage, Watch};
use crate::constraint::UniqueIn;
use crate::constraint::unique_keys::{Beginning, UniqueKeys};

impl Follower {
    /// The opener of a thought, or the answer.
    pub(super) fn restrict_before(&mut self, row: &mut [f32]) -> anyhow::Result<Next> {
        let Stage::Before {
            said,
            may_be_answer,
        } = &self.stage
        else {
            return Ok(Next::Token);
        };
        let may_be_answer = *may_be_answer;
        let thought = self.thought.as_ref();
        let opener = thought.map_or("", |thought| &thought.open);
        let open_id = thought.and_then(|thought| thought.open_id);
        let rest = &opener.as_bytes()[said.len()..];
        let opens = |id: usize| {
            if let Some(open_id) = open_id {
                return usize::try_from(open_id) == Ok(id);
            }
            let piece = self.tokens.piece(id as i32);
            !piece.is_empty() && (rest.starts_with(piece) || piece.starts_with(rest))
        };
        let kept: Vec<(usize, f32)> = (row.iter().copied().enumerate())
            .filter(|&(id, _)| opens(id))
            .collect();
        let next = match may_be_answer {
            true => self.restrict(row)?,
            false => {
                row.fill(f32::NEG_INFINITY);
                Next::Token
            }
        };
        for (id, logit) in kept {
            row[id] = logit;
        }
        Ok(next)
    }

    pub(super) fn says_before(&mut self, bytes: &[u8], id: Option<i32>) -> anyhow::Result<()> {
        let Stage::Before {
            said,
            may_be_answer,
        } = &mut self.stage
        else {
            return Ok(());
        };
        let thought = self.thought.as_ref();
        if let (Some(opens), Some(id)) = (thought.and_then(|it| it.open_id), id) {
            if id == opens {
                self.stage = Stage::Thought(Vec::new());
                return Ok(());
            }
            self.stage = Stage::Answer;
            return self.answers(bytes, Some(id));
        }
        let opener = thought.map_or("", |thought| &thought.open);
        let opener = opener.as_bytes();
        said.extend_from_slice(bytes);
        if said.starts_with(opener) && !opener.is_empty() {
            let rest = said[opener.len()..].to_vec();
            self.stage = Stage::Thought(Vec::new());
            self.begin_anew();
            return self.says(&rest, None);
        }
        if !opener.starts_with(said) {
            if !*may_be_answer {
                anyhow::bail!("what was said is neither a thought nor the answer");
            }
            self.stage = Stage::Answer;
            return self.answers(bytes, id);
        }
        // It is the beginning of the opener, and may be one of the answer.
        if *may_be_answer {
            let tokens = match id.and_then(|id| u32::try_from(id).ok()) {
                Some(id) => vec![id],
                None => self.tokens.spell(bytes),
            };
            let goes_on = !self.matcher.is_stopped()
                && self
                    .matcher
                    .validate_tokens(&tokens)
                    .is_ok_and(|count| count == tokens.len());
            match goes_on {
                true => {
                    self.matcher.consume_tokens(&tokens)?;
                    self.says_keys(bytes, false);
                }
                false => *may_be_answer = false,
            }
        }
        Ok(())
    }

    /// At the beginning of the grammar.
    fn begin_anew(&mut self) {
        self.matcher = self.start.clone();
        self.keys = (self.unique_keys != UniqueIn::None).then(UniqueKeys::default);
        self.keys_if = Beginning::of(&self.unique_keys);
    }

    /// Takes in what was said of the answer, for the keys in it.
    pub(super) fn says_keys(&mut self, bytes: &[u8], is_special: bool) {
        let beginning = self.keys_if.as_mut();
        let is_said = beginning.and_then(|it| it.is_said(bytes, is_special));
        if let Some(is_said) = is_said {
            self.keys_if = None;
            self.keys = self.keys.take().filter(|_| is_said);
        }
        if let Some(keys) = &mut self.keys {
            match is_special {
                true => *keys = UniqueKeys::default(),
                false => keys.says(bytes),
            }
        }
    }

    /// All but what closes the thought: of the others some end the answer, and none is a thought's.
    pub(super) fn forbid_special(&self, row: &mut [f32]) {
        let closer = self.thought.as_ref().map_or("", |thought| &thought.close);
        let ends = self.tokens.ends.iter().copied();
        let special = self.tokens.special.iter().map(|&id| id as i32);
        for id in ends.chain(special) {
            if self.tokens.piece(id) != closer.as_bytes()
                && let Some(logit) = usize::try_from(id).ok().and_then(|id| row.get_mut(id))
            {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// A token may end the thought in its middle, and only white space may stand behind that: what the
    /// answer begins with is to be chosen by the grammar.
    pub(super) fn forbid_what_closes_and_goes_on(&self, said: &[u8], row: &mut [f32]) {
        let thought = self.thought.as_ref();
        if thought.is_some_and(|thought| thought.close_id.is_some()) {
            return;
        }
        let closer = thought.map_or("", |thought| &thought.close);
        let closer = closer.as_bytes();
        for begun in 0..closer.len() {
            if !said.ends_with(&closer[..begun]) {
                continue;
            }
            let rest = &closer[begun..];
            for (id, logit) in row.iter_mut().enumerate() {
                let behind = self.tokens.piece(id as i32).strip_prefix(rest);
                if behind.is_some_and(|behind| !behind.trim_ascii().is_empty()) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// A call has begun.
    pub(super) fn begin_call(&mut self, said: &[Said]) -> anyhow::Result<()> {
        let stage = std::mem::replace(&mut self.stage, Stage::Answer);
        self.begin_anew();
        if !self.goes_on_with(said) {
            // What stands behind the opener in its last token is no call's, so it is free.
            self.stage = stage;
            return Ok(());
        }
        if let Stage::Free(watch) = stage {
            self.free = Some(watch);
        }
        for part in said {
            match part {
                Said::Token(id) => {
                    let tokens = std::sync::Arc::clone(&self.tokens);
                    self.answers(tokens.piece(*id), Some(*id))?;
                }
                Said::Bytes(bytes) => self.answers(bytes, None)?,
            }
        }
        Ok(())
    }

    /// Whether the grammar begins so.
    pub(super) fn goes_on_with(&self, said: &[Said]) -> bool {
        let tokens: Vec<u32> = said
            .iter()
            .flat_map(|part| match part {
                Said::Token(id) => u32::try_from(*id).into_iter().collect(),
                Said::Bytes(bytes) => self.tokens.spell(bytes),
            })
            .collect();
        let mut matcher = self.start.clone();
        matcher
            .validate_tokens(&tokens)
            .is_ok_and(|count| count == tokens.len())
    }

    /// Where calls are kept and nothing else, a whole one is followed by what is free.
    pub(super) fn end_call(&mut self) -> anyhow::Result<()> {
        if self.free.is_some()
            && (self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
                || !self.matcher.is_stopped() && self.matcher.is_accepting()?)
            && let Some(mut watch) = self.free.take()
        {
            watch.may_be_bare();
            self.stage = Stage::Free(watch);
        }
        Ok(())
    }

    /// A token may end what a call begins with, and go on: the call goes on as the grammar does.
    pub(super) fn forbid_what_opens_wrong(&self, watch: &Watch, row: &mut [f32]) {
        for (id, logit) in row.iter_mut().enumerate() {
            let piece = self.tokens.piece(id as i32);
            if piece.is_empty() || !watch.may_end_in(piece) {
                continue;
            }
            let opened = watch.clone().says(piece, Some(id as i32));
            if opened.is_some_and(|said| !self.goes_on_with(&said)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
