//! Reads the text of a grammar, as llama.cpp reads it: a rule ends with its line, but not between
//! parentheses and not behind `::=` and `|`.

use std::collections::HashMap;

use super::Node;
use super::chars::Chars;

/// The bodies of its rules, `root` first.
pub fn parse(text: &str, most_depth: usize) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        text,
        at: 0,
        most_depth,
        names: HashMap::from([("root", 0)]),
        bodies: vec![None],
    };
    let read = parser.rules();
    let line = text[..parser.at].matches('\n').count() + 1;
    read.map_err(|reason| format!("line {line}: {reason}"))?;
    let names = &parser.names;
    let named = |place: usize| {
        let name = names.iter().find(|(_, at)| **at == place);
        name.map_or("", |(name, _)| name)
    };
    let bodies = parser.bodies.into_iter().enumerate();
    bodies
        .map(|(place, body)| body.ok_or_else(|| format!("it has no rule `{}`", named(place))))
        .collect()
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    most_depth: usize,
    names: HashMap<&'t str, usize>,
    bodies: Vec<Option<Node>>,
}

impl<'t> Parser<'t> {
    fn rules(&mut self) -> Result<(), String> {
        self.space(true);
        while self.at < self.text.len() {
            let name = self.name().ok_or("a rule's name is expected")?;
            let place = self.place(name);
            self.space(false);
            if !self.takes("::=") {
                return Err(format!("`::=` is expected behind `{name}`"));
            }
            self.space(true);
            let body = self.choice(0)?;
            match self.peek() {
                None | Some('\n' | '\r') => self.space(true),
                Some(other) => return Err(format!("`{other}` is not expected here")),
            }
            self.bodies[place] = Some(body);
        }
        Ok(())
    }

    fn choice(&mut self, depth: usize) -> Result<Node, String> {
        let mut options = vec![self.sequence(depth)?];
        while self.takes("|") {
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(match options.len() {
            1 => options.swap_remove(0),
            _ => Node::Choice(options),
        })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, String> {
        let mut items: Vec<Node> = Vec::new();
        while let Some(next) = self.peek() {
            let item = match next {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    Node::One(Chars::any())
                }
                '(' => {
                    if depth >= self.most_depth {
                        return Err(format!(
                            "more than {} parentheses are open",
                            self.most_depth
                        ));
                    }
                    self.at += 1;
                    self.space(true);
                    let inner = self.choice(depth + 1)?;
                    if !self.takes(")") {
                        return Err("`)` is expected".to_owned());
                    }
                    inner
                }
                '<' | '!' => return Err("a grammar may not name tokens of the model".to_owned()),
                '*' | '+' | '?' | '{' => {
                    let last = items.pop().ok_or("there is nothing to repeat")?;
                    let (least, most) = self.count()?;
                    repeated(last, least, most)
                }
                _ => match self.name() {
                    Some(name) => Node::Rule(self.place(name)),
                    None => break,
                },
            };
            items.push(item);
            self.space(depth > 0);
        }
        Ok(match items.len() {
            1 => items.swap_remove(0),
            _ => Node::Sequence(items),
        })
    }

    fn count(&mut self) -> Result<(u32, Option<u32>), String> {
        for (sign, count) in [("*", (0, None)), ("+", (1, None)), ("?", (0, Some(1)))] {
            if self.takes(sign) {
                return Ok(count);
            }
        }
        self.at += 1;
        self.space(true);
        let least = self.number()?;
        self.space(true);
        let most = match self.takes(",") {
            false => Some(least),
            true => {
                self.space(true);
                let is_given = self.peek().is_some_and(|next| next.is_ascii_digit());
                is_given.then(|| self.number()).transpose()?
            }
        };
        self.space(true);
        if !self.takes("}") {
            return Err("`}` is expected".to_owned());
        }
        match most.is_some_and(|most| most < least) {
            true => Err("the least number of repetitions is more than the most".to_owned()),
            false => Ok((least, most)),
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        let digits = self.while_chars(|c| c.is_ascii_digit());
        digits
            .parse()
            .map_err(|_| "a number is expected, of no more than 9 digits".to_owned())
    }

    fn literal(&mut self) -> Result<Node, String> {
        self.at += 1;
        let mut chars = Vec::new();
        while !self.takes("\"") {
            let char = self.char()?;
            let one = Chars::of(vec![(char, char)]);
            if one.is_empty() {
                return Err(format!("U+{char:04X} is no character"));
            }
            chars.push(Node::One(one));
        }
        Ok(match chars.len() {
            1 => chars.swap_remove(0),
            _ => Node::Sequence(chars),
        })
    }

    fn class(&mut self) -> Result<Node, String> {
        self.at += 1;
        let is_negated = self.takes("^");
        let mut ranges = Vec::new();
        while !self.takes("]") {
            let low = self.char()?;
            let is_range =
                self.text[self.at..].starts_with('-') && !self.text[self.at..].starts_with("-]");
            let high = match is_range {
                true => {
                    self.at += 1;
                    self.char()?
                }
                false => low,
            };
            if low > high {
                return Err("a range ends before it begins".to_owned());
            }
            ranges.push((low, high));
        }
        let chars = Chars::of(ranges);
        let chars = match is_negated {
            true => chars.others(),
            false => chars,
        };
        match chars.is_empty() {
            true => Err("a class has no character".to_owned()),
            false => Ok(Node::One(chars)),
        }
    }

    /// One of a literal or a class.
    fn char(&mut self) -> Result<u32, String> {
        let end = || "the grammar ends within quotes or brackets".to_owned();
        let next = self.next().ok_or_else(end)?;
        if next != '\\' {
            return Ok(next.into());
        }
        let escaped = self.next().ok_or_else(end)?;
        let digits = match escaped {
            'n' => return Ok('\n'.into()),
            'r' => return Ok('\r'.into()),
            't' => return Ok('\t'.into()),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other if other.is_ascii_punctuation() => return Ok(other.into()),
            other => return Err(format!("`\\{other}` is not known")),
        };
        let hex = self.text.get(self.at..self.at + digits);
        let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let char = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let char = char.filter(|char| *char <= u32::from(char::MAX));
        self.at += digits.min(self.text.len() - self.at);
        char.ok_or_else(|| format!("`\\{escaped}` needs {digits} digits of a character"))
    }

    fn place(&mut self, name: &'t str) -> usize {
        let next = self.bodies.len();
        let place = *self.names.entry(name).or_insert(next);
        if place == next {
            self.bodies.push(None);
        }
        place
    }

    fn name(&mut self) -> Option<&'t str> {
        let name = self.while_chars(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        (!name.is_empty()).then_some(name)
    }

    /// White space and comments; with `lines`, also ends of lines.
    fn space(&mut self, lines: bool) {
        loop {
            self.while_chars(|c| c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')));
            if self.peek() != Some('#') {
                return;
            }
            self.while_chars(|c| c != '\n' && c != '\r');
        }
    }

    fn while_chars(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(sign);
        if is_there {
            self.at += sign.len();
        }
        is_there
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

fn repeated(node: Node, least: u32, most: Option<u32>) -> Node {
    match (least, most) {
        (_, Some(0)) => Node::empty(),
        (1, Some(1)) => node,
        _ => Node::Repeat(Box::new(node), least, most),
    }
}
