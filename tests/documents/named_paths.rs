//! The paths that Rust source names, in `use` items and elsewhere, also inside macros; modules of unit tests left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The paths that a file names, each from the crate's root.
#[derive(Default)]
pub struct Named {
    pub paths: BTreeSet<Vec<String>>,
    /// What `use` items call them.
    names: BTreeMap<String, Vec<String>>,
}

impl Named {
    pub fn of(module: &[String], text: &str) -> Self {
        let tokens: TokenStream = text.parse().expect("Rust");
        let mut named = Self::default();
        // Twice: a name may be used before the item that brings it.
        for _ in 0..2 {
            named.read(module, tokens.clone());
        }
        named
    }

    fn read(&mut self, module: &[String], tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut is_use = false;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.read(module, group.stream()),
                // Where something can be seen from is no import.
                TokenTree::Ident(ident) if ident == "pub" => {
                    if let Some(TokenTree::Group(_)) = tokens.get(at + 1) {
                        at += 1;
                    }
                }
                TokenTree::Ident(ident) if ident == "use" => is_use = true,
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let Some((name, body)) = inline_module(&tokens[at + 1..]) {
                        if name != "tests" {
                            let mut inner = module.to_vec();
                            inner.push(name);
                            self.read(&inner, body);
                        }
                        at += 3;
                        continue;
                    }
                }
                TokenTree::Ident(_) if !follows_path(&tokens[..at]) => {
                    at = self.path(module, &tokens, at, is_use);
                    is_use = false;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads the path that begins here; the place behind it.
    fn path(
        &mut self,
        module: &[String],
        tokens: &[TokenTree],
        mut at: usize,
        is_use: bool,
    ) -> usize {
        let mut path = Vec::new();
        loop {
            let TokenTree::Ident(ident) = &tokens[at] else {
                unreachable!("looked at before");
            };
            path.push(ident.to_string());
            at += 1;
            if !is_path_separator(&tokens[at..]) {
                break;
            }
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(_)) => at += 2,
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.tree(module, &path, group.stream(), is_use);
                    return at + 3;
                }
                _ => break,
            }
        }
        let mut called = path.last().cloned();
        if let [TokenTree::Ident(word), TokenTree::Ident(name), ..] = &tokens[at..]
            && word == "as"
            && is_use
        {
            called = Some(name.to_string());
            at += 2;
        }
        self.add(module, &path, called.filter(|_| is_use));
        at
    }

    /// The branches of a `use` item.
    fn tree(&mut self, module: &[String], prefix: &[String], tokens: TokenStream, is_use: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
        for branch in tokens.split(is_comma) {
            let mut path = prefix.to_vec();
            let mut called = None;
            let mut at = 0;
            while at < branch.len() {
                match &branch[at] {
                    TokenTree::Ident(word) if word == "as" => {
                        called = branch.get(at + 1).map(ToString::to_string);
                        break;
                    }
                    TokenTree::Ident(word) if word == "self" => {}
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Group(group) => {
                        self.tree(module, &path, group.stream(), is_use);
                        path.clear();
                        break;
                    }
                    _ => {}
                }
                at += 1;
            }
            if !path.is_empty() {
                let called = called.or_else(|| path.last().cloned());
                self.add(module, &path, called.filter(|_| is_use));
            }
        }
    }

    fn add(&mut self, module: &[String], path: &[String], called: Option<String>) {
        let mut rest = path;
        let mut full: Vec<String> = match path[0].as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.to_vec(),
            name => match self.names.get(name) {
                Some(full) if path.len() > 1 => full.clone(),
                _ => return,
            },
        };
        if path[0] != "super" {
            rest = &path[1..];
        }
        while let Some((first, others)) = rest.split_first()
            && first == "super"
        {
            full.pop();
            rest = others;
        }
        full.extend_from_slice(rest);
        if let Some(called) = called {
            self.names.insert(called, full.clone());
        }
        self.paths.insert(full);
    }
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(tokens.first()) && colon(tokens.get(1))
}

/// Whether what comes next is a further part of a path, such as behind `Vec::<u8>::`.
fn follows_path(before: &[TokenTree]) -> bool {
    before.len() >= 2 && is_path_separator(&before[before.len() - 2..])
}

/// The name and body of `mod NAME { … }`, from behind the word `mod`.
fn inline_module(tokens: &[TokenTree]) -> Option<(String, TokenStream)> {
    match tokens {
        [TokenTree::Ident(name), TokenTree::Group(body), ..]
            if body.delimiter() == Delimiter::Brace =>
        {
            Some((name.to_string(), body.stream()))
        }
        _ => None,
    }
}

#[test]
fn every_spelling_of_a_path_is_seen() {
    let module = ["http".to_owned(), "rpc".to_owned()];
    let text = r#"
        //! Not what a comment says: crate::no::comment.
        use crate::{admission::{self, queue as line}, chat::*};
        use super::dialects;
        pub(in crate::no::visibility) fn f() {
            select! { _ = line::next() => dialects::openai::answer(), }
            let text = "crate::no::text";
            self::inner::g::<crate::generics::T>(super::super::top);
        }
        mod inner { use super::super::super::up; }
        mod tests { use crate::no::tests; }
    "#;
    let found: Vec<String> = Named::of(&module, text)
        .paths
        .iter()
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(
        found,
        [
            "admission",
            "admission::queue",
            "admission::queue::next",
            "chat",
            "generics::T",
            "http::dialects",
            "http::dialects::openai::answer",
            "http::rpc::inner::g",
            "top",
            "up",
        ]
    );
}
