//! Writes a grammar of lexemes in the engine's own form of Lark.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Node;
use super::chars::Chars;
use super::layout::{Layout, Part};

pub fn write(layout: &Layout, rules: &[Node]) -> String {
    let mut text = "start: r0\n".to_owned();
    let mut places: Vec<&usize> = layout.rules.keys().collect();
    places.sort_unstable();
    for place in places {
        let _ = write!(text, "r{place}: ");
        part(&layout.rules[place], &mut text);
        text.push('\n');
    }
    let mut named = Vec::new();
    for (place, lexeme) in layout.lexemes.iter().enumerate() {
        let _ = write!(text, "L{place}: ");
        node(lexeme, &mut text);
        text.push('\n');
        lexeme.rules(&mut named);
    }
    let mut written = BTreeSet::new();
    while let Some(rule) = named.pop() {
        if written.insert(rule) {
            let _ = write!(text, "R{rule}: ");
            node(&rules[rule], &mut text);
            text.push('\n');
            rules[rule].rules(&mut named);
        }
    }
    text
}

fn part(part: &Part, text: &mut String) {
    match part {
        Part::Lexeme(lexeme) => drop(write!(text, "L{lexeme}")),
        Part::Rule(rule) => drop(write!(text, "r{rule}")),
        Part::Sequence(parts) => all(parts, " ", text, self::part),
        Part::Choice(parts) => all(parts, " | ", text, self::part),
        Part::Repeat(repeated, least, most) => {
            text.push('(');
            self::part(repeated, text);
            text.push(')');
            count(*least, *most, text);
        }
    }
}

fn node(node: &Node, text: &mut String) {
    let mut named = Vec::new();
    node.rules(&mut named);
    if named.is_empty() {
        let before = text.len();
        text.push('/');
        regex(node, text);
        match text.len() - before {
            // Two slashes would begin a comment.
            1 => text.replace_range(before.., "\"\""),
            _ => text.push('/'),
        }
        return;
    }
    match node {
        Node::One(_) => {}
        Node::Rule(rule) => drop(write!(text, "R{rule}")),
        Node::Sequence(nodes) => all(nodes, " ", text, self::node),
        Node::Choice(nodes) => all(nodes, " | ", text, self::node),
        Node::Repeat(repeated, least, most) => {
            text.push('(');
            self::node(repeated, text);
            text.push(')');
            count(*least, *most, text);
        }
    }
}

fn all<T>(items: &[T], between: &str, text: &mut String, write: impl Fn(&T, &mut String)) {
    if items.is_empty() {
        text.push_str("\"\"");
        return;
    }
    text.push('(');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            text.push_str(between);
        }
        write(item, text);
    }
    text.push(')');
}

/// A part that names no rule.
fn regex(node: &Node, text: &mut String) {
    match node {
        Node::One(chars) => class(chars, text),
        Node::Rule(_) => {}
        Node::Sequence(nodes) => nodes.iter().for_each(|node| match node {
            Node::Choice(_) => {
                text.push_str("(?:");
                regex(node, text);
                text.push(')');
            }
            _ => regex(node, text),
        }),
        Node::Choice(nodes) => {
            for (place, node) in nodes.iter().enumerate() {
                if place > 0 {
                    text.push('|');
                }
                regex(node, text);
            }
        }
        Node::Repeat(node, least, most) => {
            text.push_str("(?:");
            regex(node, text);
            text.push(')');
            count(*least, *most, text);
        }
    }
}

fn class(chars: &Chars, text: &mut String) {
    match chars.ranges() {
        [(low, high)] if low == high => drop(write!(text, "\\x{{{low:X}}}")),
        ranges => {
            text.push('[');
            for (low, high) in ranges {
                let _ = write!(text, "\\x{{{low:X}}}-\\x{{{high:X}}}");
            }
            text.push(']');
        }
    }
}

fn count(least: u32, most: Option<u32>, text: &mut String) {
    match (least, most) {
        (0, None) => text.push('*'),
        (1, None) => text.push('+'),
        (0, Some(1)) => text.push('?'),
        (least, None) => drop(write!(text, "{{{least},}}")),
        (least, Some(most)) => drop(write!(text, "{{{least},{most}}}")),
    }
}
