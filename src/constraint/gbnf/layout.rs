//! Which parts of a grammar are lexemes.

use std::collections::HashMap;

use super::Node;

/// What of a rule is a lexeme, and how lexemes follow each other.
#[derive(Clone, Debug)]
pub enum Part {
    /// By its place.
    Lexeme(usize),
    Sequence(Vec<Part>),
    Choice(Vec<Part>),
    Repeat(Box<Part>, u32, Option<u32>),
    Rule(usize),
}

/// A grammar of lexemes.
pub struct Layout {
    /// Regular, each there once.
    pub lexemes: Vec<Node>,
    /// Rules that are no part of a lexeme, by their place in the grammar.
    pub rules: HashMap<usize, Part>,
}

/// A rule that only ever begins or ends with itself says something again and again: what is said is the
/// same, and it is regular.
pub fn without_recursion_at_an_end(place: usize, body: Node) -> Node {
    for at_end in [true, false] {
        let (mut again, mut last) = (Vec::new(), Vec::new());
        let mut around = Vec::new();
        let is_split = split(&body, place, at_end, &mut around, &mut again, &mut last);
        if is_split && !again.is_empty() && !last.is_empty() {
            let again = Node::Repeat(Box::new(Node::Choice(again)), 0, None);
            let mut both = vec![again, Node::Choice(last)];
            if !at_end {
                both.reverse();
            }
            return Node::Sequence(both);
        }
    }
    body
}

/// The options of `node` that end with the rule itself, without it, and the others. `around` is what
/// stands before `node`, or behind it where rules begin with themselves. `false`: it names itself elsewhere.
fn split(
    node: &Node,
    place: usize,
    at_end: bool,
    around: &mut Vec<Node>,
    again: &mut Vec<Node>,
    last: &mut Vec<Node>,
) -> bool {
    let whole = |around: &[Node], node: Option<&Node>| {
        let mut all = around.to_vec();
        all.extend(node.cloned());
        if !at_end {
            all.reverse();
        }
        Node::Sequence(all)
    };
    if !names(node, place) {
        last.push(whole(around, Some(node)));
        return true;
    }
    match node {
        Node::Rule(_) => {
            again.push(whole(around, None));
            true
        }
        Node::Sequence(nodes) => {
            let (edge, others) = match (at_end, nodes.as_slice()) {
                (true, [others @ .., edge]) | (false, [edge, others @ ..]) => (edge, others),
                _ => return false,
            };
            if others.iter().any(|node| names(node, place)) {
                return false;
            }
            let before = around.len();
            match at_end {
                true => around.extend(others.iter().cloned()),
                false => around.extend(others.iter().rev().cloned()),
            }
            let is_split = split(edge, place, at_end, around, again, last);
            around.truncate(before);
            is_split
        }
        Node::Choice(nodes) => nodes
            .iter()
            .all(|node| split(node, place, at_end, around, again, last)),
        Node::Repeat(node, 0, Some(1)) => {
            last.push(whole(around, None));
            split(node, place, at_end, around, again, last)
        }
        Node::One(_) | Node::Repeat(..) => false,
    }
}

fn names(node: &Node, rule: usize) -> bool {
    let mut found = Vec::new();
    node.rules(&mut found);
    found.contains(&rule)
}

/// By place, which rules say what a regular expression can: those that name regular ones only.
pub fn regular_rules(rules: &[Node]) -> Vec<bool> {
    let mut named_by = vec![Vec::new(); rules.len()];
    let mut open = vec![0_usize; rules.len()];
    for (place, body) in rules.iter().enumerate() {
        let mut found = Vec::new();
        body.rules(&mut found);
        found.sort_unstable();
        found.dedup();
        open[place] = found.len();
        found.iter().for_each(|&rule| named_by[rule].push(place));
    }
    let mut regular = vec![false; rules.len()];
    let mut next: Vec<usize> = (0..rules.len()).filter(|&place| open[place] == 0).collect();
    while let Some(place) = next.pop() {
        regular[place] = true;
        for &by in &named_by[place] {
            open[by] -= 1;
            if open[by] == 0 {
                next.push(by);
            }
        }
    }
    regular
}

struct LayingOut<'g, B> {
    regular: &'g [bool],
    is_broken: B,
    places: HashMap<Node, usize>,
    lexemes: Vec<Node>,
    /// Rules that are still to be laid out.
    wanted: Vec<usize>,
}

impl Layout {
    /// `is_broken`: of regular parts, those that are not to be one lexeme.
    pub fn of(rules: &[Node], regular: &[bool], is_broken: impl Fn(&Node) -> bool) -> Self {
        let mut laying_out = LayingOut {
            regular,
            is_broken,
            places: HashMap::new(),
            lexemes: Vec::new(),
            wanted: vec![0],
        };
        let mut laid_out = HashMap::new();
        while let Some(place) = laying_out.wanted.pop() {
            laid_out
                .entry(place)
                .or_insert_with(|| laying_out.part(&rules[place]));
        }
        Self {
            lexemes: laying_out.lexemes,
            rules: laid_out,
        }
    }
}

impl<B: Fn(&Node) -> bool> LayingOut<'_, B> {
    fn is_lexeme(&self, node: &Node) -> bool {
        matches!(node, Node::One(_)) || (self.is_regular(node) && !(self.is_broken)(node))
    }

    fn is_regular(&self, node: &Node) -> bool {
        let mut found = Vec::new();
        node.rules(&mut found);
        found.iter().all(|&rule| self.regular[rule])
    }

    fn part(&mut self, node: &Node) -> Part {
        if matches!(node, Node::Sequence(nodes) if nodes.is_empty()) {
            return Part::Sequence(Vec::new());
        }
        if self.is_lexeme(node) {
            return self.lexeme(node);
        }
        match node {
            Node::One(_) => self.lexeme(node),
            Node::Sequence(nodes) => Part::Sequence(self.sequence(nodes)),
            Node::Choice(nodes) => Part::Choice(nodes.iter().map(|node| self.part(node)).collect()),
            Node::Repeat(node, least, most) => {
                Part::Repeat(Box::new(self.part(node)), *least, *most)
            }
            Node::Rule(rule) => {
                self.wanted.push(*rule);
                Part::Rule(*rule)
            }
        }
    }

    /// Neighbours that are regular are one lexeme, where they may be.
    fn sequence(&mut self, nodes: &[Node]) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rest = nodes;
        while let Some(first) = rest.first() {
            let run = rest.iter().take_while(|node| self.is_regular(node)).count();
            let together = Node::Sequence(rest[..run].to_vec());
            if run > 1 && run < nodes.len() && self.is_lexeme(&together) {
                parts.push(self.lexeme(&together));
                rest = &rest[run..];
            } else {
                parts.push(self.part(first));
                rest = &rest[1..];
            }
        }
        parts
    }

    fn lexeme(&mut self, node: &Node) -> Part {
        let next = self.lexemes.len();
        let place = *self.places.entry(node.clone()).or_insert(next);
        if place == next {
            self.lexemes.push(node.clone());
        }
        Part::Lexeme(place)
    }
}
