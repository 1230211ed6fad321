//! `[[prefixes.pinned]]` of a `model.toml`: prompts that are evaluated before a client asks for them.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::manifest::check_name;
use crate::conversation::Tool;

const MOST: usize = 16;
const MOST_BYTES: usize = 256 << 10;
/// As a template writes them, which says what it likes beside.
pub(super) const MOST_WRITTEN_BYTES: usize = 1 << 20;

/// What prompts begin with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    /// For people.
    pub name: String,
    /// A system message.
    pub system: Option<String>,
    /// Functions, as OpenAI's API describes them, in JSON.
    tools: Option<String>,
}

/// A function in that list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    #[serde(rename = "type")]
    kind: Kind,
    function: Tool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Function,
}

impl Entry {
    /// The functions that the model is told of.
    pub fn tools(&self) -> Result<Vec<Tool>, String> {
        let Some(tools) = &self.tools else {
            return Ok(Vec::new());
        };
        let read: Vec<Described> = serde_json::from_str(tools).map_err(|error| {
            format!("is no list of functions in JSON, as OpenAI's API has it: {error}")
        })?;
        let tools = read.into_iter().map(|described| {
            let Kind::Function = described.kind;
            described.function
        });
        Ok(tools.collect())
    }

    fn bytes(&self) -> usize {
        let texts = [&self.system, &self.tools];
        texts.into_iter().flatten().map(String::len).sum()
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let name = &self.name;
        if (self.system.as_ref()).is_some_and(|text| text.trim().is_empty()) {
            return Err(format!("prefixes.pinned `{name}` has an empty `system`"));
        }
        let tools = self.tools();
        let tools = tools.map_err(|problem| format!("`tools` of `{name}` {problem}"))?;
        if tools.iter().any(|tool| tool.name.is_empty()) {
            return Err(format!("`tools` of `{name}` has a function without a name"));
        }
        if self.system.is_none() && tools.is_empty() {
            return Err(format!(
                "prefixes.pinned `{name}` has neither `system` nor `tools`"
            ));
        }
        Ok(())
    }
}

pub(super) fn check(entries: &[Entry]) -> Result<(), String> {
    if entries.len() > MOST {
        let number = entries.len();
        return Err(format!(
            "prefixes.pinned has {number} prompts, allowed are {MOST}"
        ));
    }
    let bytes: usize = entries.iter().map(Entry::bytes).sum();
    if bytes > MOST_BYTES {
        return Err(format!(
            "prefixes.pinned has {bytes} bytes, allowed are {MOST_BYTES}"
        ));
    }
    let mut names = BTreeSet::new();
    for entry in entries {
        entry.check()?;
        if !names.insert(&entry.name) {
            return Err(format!("two prefixes.pinned are called `{}`", entry.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Vec<Entry>, String> {
        #[derive(Deserialize)]
        struct File {
            pinned: Vec<Entry>,
        }
        let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
        check(&file.pinned).map(|()| file.pinned)
    }

    const TOOLS: &str = r#"tools = '''[{"type": "function", "function": {"name": "weather",
        "description": "Tells the weather.", "parameters": {"type": "object", "properties": {}}}}]'''"#;

    #[test]
    fn a_prompt_has_a_system_message_or_functions_or_both() {
        let text = format!(
            "[[pinned]]\nname = \"a\"\nsystem = \"You help.\"\n[[pinned]]\nname = \"b\"\n{TOOLS}\n"
        );
        let entries = read(&text).unwrap();
        assert_eq!(entries[0].system.as_deref(), Some("You help."));
        assert!(entries[0].tools().unwrap().is_empty());
        let tools = entries[1].tools().unwrap();
        assert_eq!(tools[0].name, "weather");
        assert_eq!(tools[0].description.as_deref(), Some("Tells the weather."));
        assert!(tools[0].parameters.as_ref().unwrap().contains_key("type"));
    }

    #[test]
    fn what_says_nothing_or_is_no_list_of_functions_is_told() {
        for (toml, problem) in [
            ("name = \"a\"", "neither"),
            ("name = \"\"\nsystem = \"x\"", "no name"),
            ("system = \"x\"", "missing field"),
            ("name = \"a\"\nsystem = \" \"", "empty `system`"),
            ("name = \"a\"\ntools = 'weather'", "no list of functions"),
            ("name = \"a\"\ntools = '[]'", "neither"),
            (
                "name = \"a\"\ntools = '[{\"name\": \"f\"}]'",
                "no list of functions",
            ),
            (
                "name = \"a\"\ntools = '[{\"type\": \"function\", \"function\": {\"name\": \"\"}}]'",
                "without a name",
            ),
            ("name = \"a\"\nsystem = \"x\"\nmore = 1", "unknown field"),
        ] {
            let error = read(&format!("[[pinned]]\n{toml}\n")).unwrap_err();
            assert!(error.contains(problem), "{toml}: {error}");
        }
        let twice = "[[pinned]]\nname = \"a\"\nsystem = \"x\"\n".repeat(2);
        assert!(read(&twice).unwrap_err().contains("two"));
        let long = format!(
            "[[pinned]]\nname = \"a\"\nsystem = \"{}\"\n",
            "x".repeat(MOST_BYTES + 1)
        );
        assert!(read(&long).unwrap_err().contains("bytes"));
        let many: String = (0..=MOST)
            .map(|n| format!("[[pinned]]\nname = \"{n}\"\nsystem = \"x\"\n"))
            .collect();
        assert!(read(&many).unwrap_err().contains("17 prompts"));
    }
}
