//! Finds lexemes that hide others: where one has ended and something may come behind it, another may
//! still go on with the same characters, and the engine's lexer would go on with that one alone.

use std::collections::{BTreeSet, HashMap};

use super::Node;
use super::chars::{Bytes, Chars};
use super::follows::follows;
use super::layout::Layout;

/// States of all lexemes together; the largest of them is broken if there would be more.
const MOST_STATES: usize = 20_000;
/// Sets of them that are looked at; the largest lexeme is broken if there are more.
const MOST_SETS: usize = 4_000;
/// The same, in states of sets.
const MOST_WORK: usize = 4_000_000;

/// The lexemes that are to be broken, if there are any.
pub fn hiding_lexemes(layout: &Layout, rules: &[Node]) -> BTreeSet<Node> {
    let behind = follows(layout, rules);
    if behind.iter().all(|bytes| *bytes == Bytes::NONE) {
        return BTreeSet::new();
    }
    let breakable = |place: &usize| !matches!(layout.lexemes[*place], Node::One(_));
    let largest = |sizes: &[usize]| {
        let places = (0..sizes.len()).filter(breakable);
        let largest = places.max_by_key(|&place| sizes[place]);
        largest.into_iter().collect()
    };
    let mut states = States::default();
    let mut starts = Vec::new();
    let mut sizes = Vec::new();
    for (place, lexeme) in layout.lexemes.iter().enumerate() {
        let before = states.of.len();
        let (start, end) = (states.push(place), states.push(place));
        let has_room = states.add(lexeme, rules, place, start, end);
        states.of[end].ends = true;
        starts.push(start);
        sizes.push(states.of.len() - before);
        if !has_room {
            starts.clear();
            break;
        }
    }
    let hiding = match starts.is_empty() {
        true => None,
        false => states.hiding(&starts, &behind),
    };
    let hiding: BTreeSet<usize> = hiding.unwrap_or_else(|| largest(&sizes));
    let hiding = hiding.into_iter().filter(breakable);
    hiding.map(|place| layout.lexemes[place].clone()).collect()
}

#[derive(Default)]
struct States {
    of: Vec<State>,
    classes: Vec<Chars>,
    places: HashMap<Chars, usize>,
}

#[derive(Default)]
struct State {
    lexeme: usize,
    ends: bool,
    /// Reached without a character.
    beside: Vec<usize>,
    /// By a character of a class.
    next: Option<(usize, usize)>,
}

impl States {
    fn push(&mut self, lexeme: usize) -> usize {
        self.of.push(State {
            lexeme,
            ..State::default()
        });
        self.of.len() - 1
    }

    /// `false`: there would be too many.
    fn add(&mut self, node: &Node, rules: &[Node], lexeme: usize, from: usize, to: usize) -> bool {
        if self.of.len() > MOST_STATES {
            return false;
        }
        match node {
            Node::One(chars) => {
                let next = self.classes.len();
                let class = *self.places.entry(chars.clone()).or_insert(next);
                if class == next {
                    self.classes.push(chars.clone());
                }
                let by = self.push(lexeme);
                self.of[from].beside.push(by);
                self.of[by].next = Some((class, to));
                true
            }
            Node::Rule(rule) => self.add(&rules[*rule], rules, lexeme, from, to),
            Node::Choice(nodes) => {
                (nodes.iter()).all(|node| self.add(node, rules, lexeme, from, to))
            }
            Node::Sequence(nodes) => {
                let mut at = from;
                for node in nodes {
                    let next = self.push(lexeme);
                    if !self.add(node, rules, lexeme, at, next) {
                        return false;
                    }
                    at = next;
                }
                self.of[at].beside.push(to);
                true
            }
            Node::Repeat(node, least, most) => {
                let mut at = from;
                for time in 0..most.unwrap_or(least + 1) {
                    let next = self.push(lexeme);
                    if time >= *least {
                        self.of[at].beside.push(to);
                    }
                    if !self.add(node, rules, lexeme, at, next) {
                        return false;
                    }
                    if most.is_none() && time == *least {
                        self.of[next].beside.push(at);
                    }
                    at = next;
                }
                self.of[at].beside.push(to);
                true
            }
        }
    }

    /// The lexemes that go on where another has ended; `None`: it would take too long to know.
    fn hiding(&self, starts: &[usize], behind: &[Bytes]) -> Option<BTreeSet<usize>> {
        let signs = self.signs();
        let mut hiding = BTreeSet::new();
        let mut sets = vec![self.reached(starts)];
        let mut known = BTreeSet::from([sets[0].clone()]);
        let mut work = 0;
        let mut at = 0;
        while let Some(set) = sets.get(at).cloned() {
            let ended = set.iter().filter(|&&state| at > 0 && self.of[state].ends);
            let may_come = ended.fold(Bytes::NONE, |bytes, &state| {
                bytes.with(behind[self.of[state].lexeme])
            });
            for sign in &signs {
                let next = set.iter().filter_map(|&state| self.of[state].next);
                let next = next.filter(|(class, _)| self.classes[*class].has(sign.char));
                let next: Vec<usize> = next.map(|(_, to)| to).collect();
                work += set.len();
                if next.is_empty() {
                    continue;
                }
                let next = self.reached(&next);
                if sign.bytes.shares(&may_come) {
                    hiding.extend(next.iter().map(|&state| self.of[state].lexeme));
                }
                if known.insert(next.clone()) {
                    sets.push(next);
                }
            }
            if sets.len() > MOST_SETS || work > MOST_WORK {
                return (!hiding.is_empty()).then_some(hiding);
            }
            at += 1;
        }
        Some(hiding)
    }

    fn reached(&self, from: &[usize]) -> Vec<usize> {
        let mut reached: BTreeSet<usize> = from.iter().copied().collect();
        let mut open = from.to_vec();
        while let Some(state) = open.pop() {
            for &beside in &self.of[state].beside {
                if reached.insert(beside) {
                    open.push(beside);
                }
            }
        }
        reached.into_iter().collect()
    }

    /// Of characters that no class tells apart, one, and what all of them begin with.
    fn signs(&self) -> Vec<Sign> {
        let classes = self.classes.iter();
        let edges: BTreeSet<u32> = classes
            .flat_map(|class| class.ranges())
            .flat_map(|&(low, high)| [low, high + 1])
            .collect();
        let edges: Vec<u32> = edges.into_iter().collect();
        let mut signs: HashMap<Vec<usize>, Sign> = HashMap::new();
        for pair in edges.windows(2) {
            let of = |place: &usize| self.classes[*place].has(pair[0]);
            let in_classes: Vec<usize> = (0..self.classes.len()).filter(of).collect();
            if in_classes.is_empty() {
                continue;
            }
            let bytes = Chars::of(vec![(pair[0], pair[1] - 1)]).first_bytes();
            let sign = signs.entry(in_classes).or_insert(Sign {
                char: pair[0],
                bytes: Bytes::NONE,
            });
            sign.bytes.extend(bytes);
        }
        signs.into_values().collect()
    }
}

struct Sign {
    char: u32,
    bytes: Bytes,
}
