//! Where a template compares: which of its texts stay plain, and which operands lose their twins.

use minijinja::machinery::Token;

use super::{Assembly, Rewriter};

impl Rewriter<'_, '_> {
    /// The comparison whose operator is at `at`: strings beside it stay plain, other operands lose
    /// their twins.
    pub(super) fn compare(&self, at: usize, plain: &mut [bool], ends: &mut Vec<usize>) {
        let mut left = at.wrapping_sub(1);
        if matches!(self.token(left), Some(Token::Ident("not"))) {
            left = left.wrapping_sub(1);
        }
        let right = at + 1;
        let matters = |at: usize| match self.text(at) {
            // With words between, any may have come to be written in twins elsewhere.
            Some(text) => {
                self.assembly != Assembly::Whole || self.in_twins(at, text).contains(&true)
            }
            None => !matches!(
                self.token(at),
                None | Some(
                    Token::Int(_)
                        | Token::Int128(_)
                        | Token::Float(_)
                        | Token::Ident("none" | "None" | "true" | "True" | "false" | "False")
                )
            ),
        };
        if !matters(left) || !matters(right) {
            return;
        }
        match self.text(left) {
            Some(_) => plain[left] = true,
            None => ends.push(self.pieces[left].end),
        }
        let mut operand = right;
        while let Some(end) = self.operand_end(operand) {
            match self.text(operand) {
                Some(_) if end == operand + 1 => plain[operand] = true,
                _ => ends.push(self.pieces[end - 1].end),
            }
            match self.token(end) {
                Some(Token::Plus | Token::Tilde) => operand = end + 1,
                _ => break,
            }
        }
    }

    /// One past the last piece of the operand that starts at `at`.
    fn operand_end(&self, at: usize) -> Option<usize> {
        let mut at = at;
        while matches!(self.token(at)?, Token::Minus | Token::Plus) {
            at += 1;
        }
        at = match self.token(at)? {
            Token::Ident("not") => return None,
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.closing(at)?,
            Token::Ident(_) | Token::Str(_) | Token::String(_) => at + 1,
            Token::Int(_) | Token::Int128(_) | Token::Float(_) => at + 1,
            _ => return None,
        };
        loop {
            at = match self.token(at) {
                Some(Token::Dot) => at + 2,
                Some(Token::ParenOpen | Token::BracketOpen) => self.closing(at)?,
                Some(Token::Pipe) => at + 2,
                _ => return Some(at),
            };
        }
    }

    /// One past the bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in open.. {
            match self.token(at)? {
                Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => depth += 1,
                Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
