//! Pipelines: what stands in an action beside its keyword.

use std::sync::Arc;

use super::functions::Function;
use super::scan::{Placed, Token};

/// How deep brackets may lie in each other.
const DEEPEST: usize = 50;
/// Variables that are known in one place.
const MOST_VARIABLES: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Dot,
    /// By its place among those that are known.
    Variable(usize),
    Pipe(Box<Pipe>),
    Function(Function),
    /// Fields of a value, one inside the other.
    Fields(Box<Operand>, Vec<String>),
}

/// A value, or a function and what it is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command(pub Vec<Operand>);

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pipe {
    /// Each is given what the one before it came to.
    pub commands: Vec<Command>,
    /// The variables that have the value then; two of a `range` alone.
    pub keeps: Vec<usize>,
}

impl Pipe {
    /// Tells each field that it names.
    pub fn fields(&self, tell: &mut dyn FnMut(&str)) {
        for operand in self.commands.iter().flat_map(|command| &command.0) {
            operand.fields(tell);
        }
    }
}

impl Operand {
    fn fields(&self, tell: &mut dyn FnMut(&str)) {
        match self {
            Self::Pipe(pipe) => pipe.fields(tell),
            Self::Fields(of, names) => {
                of.fields(tell);
                names.iter().for_each(|name| tell(name));
            }
            _ => {}
        }
    }
}

/// The variables that are known in one place, the root's first. A later one of the same name hides the one before.
#[derive(Debug)]
pub(super) struct Variables {
    names: Vec<String>,
    /// The most at once.
    most: usize,
}

impl Default for Variables {
    fn default() -> Self {
        Self {
            names: vec![String::new()],
            most: 1,
        }
    }
}

impl Variables {
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn most(&self) -> usize {
        self.most
    }

    /// Forgets those behind the first `len`.
    pub fn forget(&mut self, len: usize) {
        self.names.truncate(len);
    }

    fn place(&self, name: &str) -> Result<usize, String> {
        let place = self.names.iter().rposition(|known| known == name);
        place.ok_or_else(|| format!("the variable `${}` is not known", super::scan::shown(name)))
    }

    fn add(&mut self, name: &str) -> Result<usize, String> {
        if self.names.len() >= MOST_VARIABLES {
            return Err(format!("more than {MOST_VARIABLES} variables"));
        }
        self.names.push(name.to_owned());
        self.most = self.most.max(self.names.len());
        Ok(self.names.len() - 1)
    }
}

/// The pipeline that `tokens` are. A `range` may keep two variables.
pub(super) fn pipe(
    tokens: &[Placed<'_>],
    variables: &mut Variables,
    is_range: bool,
) -> Result<Pipe, String> {
    let kinds: Vec<&Token<'_>> = tokens.iter().take(4).map(|it| &it.token).collect();
    let (names, how, rest) = match kinds[..] {
        [
            Token::Variable(name),
            how @ (Token::Declare | Token::Assign),
            ..,
        ] => (vec![*name], Some(how), &tokens[2..]),
        [
            Token::Variable(key),
            Token::Comma,
            Token::Variable(value),
            how @ (Token::Declare | Token::Assign),
        ] if is_range => (vec![*key, *value], Some(how), &tokens[4..]),
        _ => (Vec::new(), None, tokens),
    };
    let mut reader = Reader {
        rest,
        variables,
        depth: 0,
    };
    let commands = reader.commands()?;
    if !reader.rest.is_empty() {
        return Err("a bracket is closed that was not opened".to_owned());
    }
    // What is kept is not known in what it comes from.
    let mut keeps = Vec::new();
    for name in names {
        keeps.push(match how {
            Some(Token::Declare) => variables.add(name)?,
            _ => variables.place(name)?,
        });
    }
    Ok(Pipe { commands, keeps })
}

pub(super) fn nothing_more(tokens: &[Placed<'_>]) -> Result<(), String> {
    match tokens {
        [] => Ok(()),
        _ => Err("more stands there than can be".to_owned()),
    }
}

/// The name of a body, and what is behind it.
pub(super) fn named<'t, 's>(
    tokens: &'t [Placed<'s>],
) -> Result<(String, &'t [Placed<'s>]), String> {
    match tokens.split_first() {
        Some((
            Placed {
                token: Token::Text(name),
                ..
            },
            behind,
        )) => Ok((name.clone(), behind)),
        _ => Err("a name in quotes is missing".to_owned()),
    }
}

struct Reader<'t, 's> {
    rest: &'t [Placed<'s>],
    variables: &'t Variables,
    depth: usize,
}

impl<'s> Reader<'_, 's> {
    fn next(&mut self) -> Option<Placed<'s>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.clone())
    }

    fn next_if(&mut self, is_wanted: impl FnOnce(&Placed<'s>) -> bool) -> Option<Placed<'s>> {
        self.rest.first().filter(|it| is_wanted(it))?;
        self.next()
    }

    /// Up to the end, or to what closes a bracket.
    fn commands(&mut self) -> Result<Vec<Command>, String> {
        let mut commands = vec![self.command()?];
        while self.next_if(|it| it.token == Token::Bar).is_some() {
            let command = self.command()?;
            if !matches!(command.0.first(), Some(Operand::Function(_))) {
                return Err("what stands behind `|` is no function".to_owned());
            }
            commands.push(command);
        }
        Ok(commands)
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut operands = Vec::new();
        loop {
            let ends = |it: &Placed<'_>| matches!(it.token, Token::Bar | Token::Close);
            if self.rest.first().is_none_or(ends) {
                break;
            }
            operands.push(self.operand(operands.is_empty())?);
        }
        match operands.first() {
            None => Err("a value is missing".to_owned()),
            Some(Operand::Function(_)) => Ok(Command(operands)),
            Some(_) if operands.len() > 1 => {
                Err("values beside each other of which the first is no function".to_owned())
            }
            Some(_) => Ok(Command(operands)),
        }
    }

    fn operand(&mut self, is_first: bool) -> Result<Operand, String> {
        let Some(placed) = self.next() else {
            return Err("a value is missing".to_owned());
        };
        if !is_first && !placed.is_spaced {
            return Err("values without a space between them".to_owned());
        }
        let has_fields = !matches!(
            placed.token,
            Token::Word(_) | Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Dot
        );
        let mut names = Vec::new();
        let of = match placed.token {
            Token::Word("nil") => Operand::Nil,
            Token::Word("true") => Operand::Bool(true),
            Token::Word("false") => Operand::Bool(false),
            Token::Word(name) => Operand::Function(Function::named(name).ok_or_else(|| {
                let name = super::scan::shown(name);
                format!(
                    "the function `{name}` is not among those that are known here: {}",
                    Function::all()
                )
            })?),
            Token::Field(name) => {
                names.push(name.to_owned());
                Operand::Dot
            }
            Token::Variable(name) => Operand::Variable(self.variables.place(name)?),
            Token::Dot => Operand::Dot,
            Token::Text(text) => Operand::Text(text.into()),
            Token::Int(number) => Operand::Int(number),
            Token::Float(number) => Operand::Float(number),
            Token::Open => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(format!("more than {DEEPEST} brackets in each other"));
                }
                let commands = self.commands()?;
                if self.next_if(|it| it.token == Token::Close).is_none() {
                    return Err("a bracket is not closed".to_owned());
                }
                self.depth -= 1;
                let keeps = Vec::new();
                Operand::Pipe(Box::new(Pipe { commands, keeps }))
            }
            Token::Close | Token::Bar => return Err("a value is missing".to_owned()),
            Token::Comma | Token::Declare | Token::Assign => {
                return Err("`,`, `:=` and `=` stand behind variables at the beginning".to_owned());
            }
        };
        while has_fields
            && let Some(Placed {
                token: Token::Field(name),
                ..
            }) = self.next_if(|it| !it.is_spaced && matches!(it.token, Token::Field(_)))
        {
            names.push(name.to_owned());
        }
        Ok(match names.is_empty() {
            true => of,
            false => Operand::Fields(Box::new(of), names),
        })
    }
}
