//! The call that is being read. Nothing of it is told before its name is whole; what comes before
//! that is kept.

use std::collections::BTreeSet;

use crate::conversation::ReplyPiece;

#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    name: String,
    id: Option<String>,
    /// Arguments that came before the name.
    early: String,
    announced: Option<u32>,
    has_arguments: bool,
    next_index: u32,
    ended: u32,
    /// The ids that were told. Two calls with one id could not be answered apart.
    ids: BTreeSet<String>,
}

impl Call {
    pub fn begin(&mut self) {
        *self = Self {
            next_index: self.next_index,
            ended: self.ended,
            ids: std::mem::take(&mut self.ids),
            ..Self::default()
        };
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_announced(&self) -> bool {
        self.announced.is_some()
    }

    pub fn has_arguments(&self) -> bool {
        self.has_arguments
    }

    /// Calls that came to their end.
    pub fn ended(&self) -> u32 {
        self.ended
    }

    pub fn set_id(&mut self, id: &str) {
        let id = id.trim();
        if !id.is_empty() && self.announced.is_none() {
            self.id = Some(id.to_owned());
        }
    }

    pub fn set_name(&mut self, name: &str) {
        if self.announced.is_none() {
            name.trim().clone_into(&mut self.name);
        }
    }

    /// Tells the call, if it has a name, and the arguments that are there.
    pub fn announce(&mut self, out: &mut Vec<ReplyPiece>) {
        if self.announced.is_some() || self.name.is_empty() {
            return;
        }
        let index = self.next_index;
        self.next_index += 1;
        self.announced = Some(index);
        out.push(ReplyPiece::ToolCall {
            index,
            id: self.id.take().filter(|id| self.ids.insert(id.clone())),
            name: self.name.clone(),
        });
        let delta = std::mem::take(&mut self.early);
        if !delta.is_empty() {
            out.push(ReplyPiece::ToolArguments { index, delta });
        }
    }

    pub fn arguments(&mut self, delta: &str, out: &mut Vec<ReplyPiece>) {
        if delta.is_empty() {
            return;
        }
        self.has_arguments = true;
        let Some(index) = self.announced else {
            self.early.push_str(delta);
            return;
        };
        match out.last_mut() {
            Some(ReplyPiece::ToolArguments { delta: last, .. }) => last.push_str(delta),
            _ => out.push(ReplyPiece::ToolArguments {
                index,
                delta: delta.to_owned(),
            }),
        }
    }

    /// Lets the call be without an end, and without arguments that the model never wrote. `false`: nothing was
    /// told of it.
    pub fn leave(&mut self) -> bool {
        let is_told = self.announced.is_some();
        self.begin();
        is_told
    }

    /// Ends the call, which gets empty arguments if it has none. `false`: it has no name, and nothing
    /// was told of it.
    pub fn end(&mut self, out: &mut Vec<ReplyPiece>) -> bool {
        self.announce(out);
        if self.announced.is_none() {
            self.begin();
            return false;
        }
        if !self.has_arguments {
            self.arguments("{}", out);
        }
        if let Some(index) = self.announced {
            out.push(ReplyPiece::ToolCallEnd { index });
            self.ended += 1;
        }
        self.begin();
        true
    }
}
