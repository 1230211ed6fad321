//! What an answer may be beside JSON, in the engine's Lark: the text of a regular expression, one of some
//! texts, and Lark of a client's own. The last may say what a text is and nothing else: not how the engine
//! works, and no token that structures prompts.

use std::fmt::Write;

use llguidance::regex_to_lark;

/// What a client's Lark may say behind `%`.
const STATEMENTS: [&str; 4] = ["declare", "ignore", "import", "override"];

/// All of the answer is what `pattern` matches, with or without its anchors.
pub fn regex(pattern: &str) -> Result<String, String> {
    let escapes = |text: &str| text.len() - text.trim_end_matches('\\').len();
    if escapes(pattern) % 2 == 1 {
        return Err("the regular expression ends with a backslash".to_owned());
    }
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let without_end = pattern.strip_suffix('$');
    let without_end = without_end.filter(|rest| escapes(rest) % 2 == 0);
    let pattern = without_end.unwrap_or(pattern);
    Ok(match pattern.is_empty() {
        true => "start: \"\"\n".to_owned(),
        false => format!("start: /(?:{})/\n", regex_to_lark(pattern, "")),
    })
}

pub fn choice(options: &[String]) -> Result<String, String> {
    if options.is_empty() {
        return Err("there is nothing to choose from".to_owned());
    }
    let mut lark = "start: ".to_owned();
    if options.iter().any(String::is_empty) {
        lark.push_str("\"\"");
        if options.iter().all(String::is_empty) {
            lark.push('\n');
            return Ok(lark);
        }
        lark.push_str(" | ");
    }
    lark.push_str("/(?:");
    let options = options.iter().filter(|option| !option.is_empty());
    for (place, option) in options.enumerate() {
        if place > 0 {
            lark.push('|');
        }
        lark.push_str(&literal(option));
    }
    lark.push_str(")/\n");
    Ok(lark)
}

/// A regular expression that matches `text` and nothing else.
pub(super) fn literal(text: &str) -> String {
    let mut pattern = String::new();
    for char in text.chars() {
        let _ = match char.is_ascii_alphanumeric() {
            true => write!(pattern, "{char}"),
            false => write!(pattern, "\\x{{{:X}}}", u32::from(char)),
        };
    }
    pattern
}

/// Finds what a client may not say. Outside of its texts, its expressions and its comments, Lark writes
/// each of that with a character that nothing else begins with.
pub fn checked_lark(text: &str, most_depth: usize) -> Result<(), String> {
    let mut rest = text;
    let mut depth = 0_usize;
    let at = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    while let Some(next) = rest.chars().next() {
        let behind = &rest[next.len_utf8()..];
        rest = match next {
            '"' => behind_quoted(behind, '"'),
            '#' => behind_line(behind),
            '/' if behind.starts_with('/') => behind_line(behind),
            '/' => behind_quoted(behind, '/'),
            '(' | '[' => {
                depth += 1;
                if depth > most_depth {
                    return Err(format!(
                        "line {}: more than {most_depth} parentheses are open",
                        at(rest)
                    ));
                }
                behind
            }
            ')' | ']' => {
                depth = depth.saturating_sub(1);
                behind
            }
            '%' => {
                let end = behind.find(|c: char| !c.is_ascii_lowercase());
                let (statement, behind) = behind.split_at(end.unwrap_or(behind.len()));
                if !STATEMENTS.contains(&statement) {
                    let line = at(rest);
                    return Err(format!(
                        "line {line}: `%{statement}` is not for a client to say"
                    ));
                }
                behind
            }
            '<' => {
                return Err(format!(
                    "line {}: a grammar may not name tokens of the model",
                    at(rest)
                ));
            }
            '@' => {
                return Err(format!(
                    "line {}: there is no other grammar to name",
                    at(rest)
                ));
            }
            _ => behind,
        };
    }
    Ok(())
}

fn behind_quoted(text: &str, end: char) -> &str {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == end {
            return &text[at + 1..];
        }
    }
    ""
}

fn behind_line(text: &str) -> &str {
    text.find('\n').map_or("", |end| &text[end..])
}
