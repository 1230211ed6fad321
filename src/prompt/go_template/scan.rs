//! What stands between braces, cut into tokens as Go cuts them.

use std::ops::Range;

use super::GoTemplateError;

/// What Go's templates take for white space.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
pub(super) const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// Characters that are shown of what is not understood.
const MOST_SHOWN: usize = 40;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'s> {
    Word(&'s str),
    /// Its name is without the dot.
    Field(&'s str),
    /// Its name is without the `$`; the root has none.
    Variable(&'s str),
    Dot,
    Text(String),
    Int(i64),
    Float(f64),
    Open,
    Close,
    Bar,
    Comma,
    Declare,
    Assign,
}

/// A token, and whether white space stands before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed<'s> {
    pub token: Token<'s>,
    pub is_spaced: bool,
}

/// What stands between braces.
pub(super) struct Action<'s> {
    pub tokens: Vec<Placed<'s>>,
    pub is_comment: bool,
    pub trims_before: bool,
    pub trims_behind: bool,
    /// Behind the braces.
    pub end: usize,
}

/// The action that begins there, of no more than `most` tokens.
pub(super) fn action(
    source: &str,
    start: usize,
    most: usize,
) -> Result<Action<'_>, GoTemplateError> {
    let error = |problem: &str| GoTemplateError::at(source, start, problem.to_owned());
    let too_many = "here the template has more words than one may have";
    if most == 0 {
        return Err(error(too_many));
    }
    let begin = start + OPEN.len();
    let trims_before = source[begin..]
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(SPACE));
    let begin = begin + usize::from(trims_before);
    let inside = &source[begin..];
    if let Some(comment) = inside.trim_start_matches(SPACE).strip_prefix("/*") {
        let end = comment
            .find("*/")
            .ok_or_else(|| error("a comment without an end"))?;
        let rest = &comment[end + "*/".len()..];
        let spaced = rest.trim_start_matches(SPACE);
        let (rest, trims_behind) = match spaced.strip_prefix('-') {
            Some(behind) if spaced.len() < rest.len() => (behind, true),
            _ => (rest, false),
        };
        let behind = rest
            .strip_prefix(CLOSE)
            .ok_or_else(|| error("a comment is to end where its braces do"))?;
        return Ok(Action {
            tokens: Vec::new(),
            is_comment: true,
            trims_before,
            trims_behind,
            end: source.len() - behind.len(),
        });
    }
    let mut rest = inside;
    let mut tokens = Vec::new();
    loop {
        let spaced = rest.trim_start_matches(SPACE);
        let is_spaced = spaced.len() < rest.len();
        rest = spaced;
        let (behind, trims_behind) = match rest.strip_prefix('-') {
            Some(behind) if is_spaced && behind.starts_with(CLOSE) => (behind, true),
            _ => (rest, false),
        };
        if let Some(behind) = behind.strip_prefix(CLOSE) {
            return Ok(Action {
                tokens,
                is_comment: false,
                trims_before,
                trims_behind,
                end: source.len() - behind.len(),
            });
        }
        if rest.is_empty() {
            return Err(error("`{{` without `}}`"));
        }
        if tokens.len() >= most {
            return Err(error(too_many));
        }
        let (token, behind) = token(rest).map_err(|problem| error(&problem))?;
        tokens.push(Placed { token, is_spaced });
        rest = behind;
    }
}

/// What of a text trim markers leave.
pub(super) fn trimmed(source: &str, range: Range<usize>, start: bool, end: bool) -> Range<usize> {
    let mut text = &source[range.clone()];
    let mut from = range.start;
    if start {
        text = text.trim_start_matches(SPACE);
        from = range.end - text.len();
    }
    if end {
        text = text.trim_end_matches(SPACE);
    }
    from..from + text.len()
}

/// The first token, and what is behind it.
fn token(rest: &str) -> Result<(Token<'_>, &str), String> {
    let mut chars = rest.chars();
    let first = chars.next().unwrap_or_default();
    let behind = chars.as_str();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |from: &'_ str| from.find(|c: char| !is_name(c)).unwrap_or(from.len());
    Ok(match first {
        '(' => (Token::Open, behind),
        ')' => (Token::Close, behind),
        '|' => (Token::Bar, behind),
        ',' => (Token::Comma, behind),
        '=' => (Token::Assign, behind),
        ':' => match behind.strip_prefix('=') {
            Some(behind) => (Token::Declare, behind),
            None => return Err(not_understood(rest)),
        },
        '$' => {
            let (name, behind) = behind.split_at(name(behind));
            (Token::Variable(name), behind)
        }
        '"' => quoted(behind)?,
        '`' => {
            let (text, behind) = behind.split_once('`').ok_or("a text without an end")?;
            (Token::Text(text.replace('\r', "")), behind)
        }
        '\'' => character(behind)?,
        '.' if !behind.starts_with(|c: char| c.is_ascii_digit()) => {
            match behind.split_at(name(behind)) {
                ("", behind) => (Token::Dot, behind),
                (name, behind) => (Token::Field(name), behind),
            }
        }
        '0'..='9' | '.' | '+' | '-' => number(rest)?,
        first if is_name(first) => {
            let (word, behind) = rest.split_at(name(rest));
            (Token::Word(word), behind)
        }
        _ => return Err(not_understood(rest)),
    })
}

fn number(rest: &str) -> Result<(Token<'_>, &str), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let mut end = usize::from(rest.starts_with(['+', '-']));
    let mut before = ' ';
    for c in rest[end..].chars() {
        let is_exponent = matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
        if !is_part(c) && !is_exponent {
            break;
        }
        (before, end) = (c, end + c.len_utf8());
    }
    let (written, behind) = rest.split_at(end);
    let plain = written.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let of_base = |digits: &str, base| i64::from_str_radix(&format!("{sign}{digits}"), base).ok();
    let lower = digits.to_ascii_lowercase();
    let is_old_octal = digits.len() > 1 && digits.bytes().all(|c| c.is_ascii_digit());
    let whole = match lower.get(..2) {
        Some("0x") => of_base(&digits[2..], 16),
        Some("0o") => of_base(&digits[2..], 8),
        Some("0b") => of_base(&digits[2..], 2),
        _ if is_old_octal && digits.starts_with('0') => of_base(&digits[1..], 8),
        _ => of_base(digits, 10),
    };
    if let Some(whole) = whole.filter(|_| !digits.starts_with(['+', '-'])) {
        return Ok((Token::Int(whole), behind));
    }
    let is_decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(['.', 'e', 'E']);
    let float = plain.parse::<f64>().ok().filter(|it| it.is_finite());
    match float.filter(|_| is_decimal) {
        Some(float) => Ok((Token::Float(float), behind)),
        None => Err(not_understood(rest)),
    }
}

/// A character is a number.
fn character(rest: &str) -> Result<(Token<'_>, &str), String> {
    let mut chars = rest.chars();
    let c = match chars.next() {
        Some('\\') => escaped(&mut chars)?,
        Some(c) if c != '\'' => c,
        _ => return Err("a character is missing".to_owned()),
    };
    let behind = chars.as_str().strip_prefix('\'');
    let behind = behind.ok_or("a character without an end")?;
    Ok((Token::Int(i64::from(u32::from(c))), behind))
}

fn quoted(rest: &str) -> Result<(Token<'_>, &str), String> {
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') => return Ok((Token::Text(text), chars.as_str())),
            Some('\\') => text.push(escaped(&mut chars)?),
            None | Some('\n') => return Err("a text without an end".to_owned()),
            Some(c) => text.push(c),
        }
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    let digits = match chars.next() {
        Some('a') => return Ok('\u{7}'),
        Some('b') => return Ok('\u{8}'),
        Some('f') => return Ok('\u{c}'),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('v') => return Ok('\u{b}'),
        Some(c @ ('\\' | '"' | '\'')) => return Ok(c),
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        _ => 0,
    };
    let code = chars.as_str().get(..digits).filter(|it| !it.is_empty());
    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
    // A byte that is no character by itself is none here.
    let code = code.filter(|code| digits > 2 || *code < 0x80);
    // Neither is what no prompt may hold.
    let c = code.and_then(char::from_u32).filter(|c| *c != '\0');
    let c = c.ok_or("an escape in a text that is no character")?;
    *chars = chars.as_str()[digits..].chars();
    Ok(c)
}

pub(super) fn not_understood(rest: &str) -> String {
    format!("`{}` is not understood", shown(rest))
}

/// The beginning of a part of a template.
pub(super) fn shown(part: &str) -> String {
    let mut shown: String = part.chars().take(MOST_SHOWN).collect();
    if shown.len() < part.len() {
        shown.push('…');
    }
    shown
}
