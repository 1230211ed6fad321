//! Templates that models ship, with other words in their markers: what their models would write is found and read all
//! the same, where the template itself tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{Said, TokensOfMarkers, parser, read, splits};
use crate::template_support::templates;
use crate::templates_tell_how_their_models_reply::{FAMILIES, find, is_thought};
use rkllmd::reply::{FormatSource, ReplyFamily, ReplyFormat};

/// How often each is given other words.
const ROUNDS: usize = 3;

fn is_of_word(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '▁'
}

/// The tags that markers are made of, each as far as its first word and what stands behind that: `<function=`,
/// `</think>`, `[ARGS]`.
fn tags(format: &ReplyFormat) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    for marker in format.clone().markers_mut() {
        for (at, _) in marker.text.match_indices(['<', '[']) {
            let rest = &marker.text[at..];
            let before = rest.find(is_of_word).unwrap_or(rest.len());
            let word: String = rest[before..]
                .chars()
                .take_while(|c| is_of_word(*c))
                .collect();
            let behind = rest[before + word.len()..].chars().next();
            let is_tag =
                !rest[1..before].contains(['<', '[', ' ', '\n']) && word.chars().count() > 2;
            if let Some(behind) = behind.filter(|_| is_tag) {
                tags.insert(format!("{}{word}{behind}", &rest[..before]));
            }
        }
    }
    tags
}

/// Other tags, with one new word for each.
struct Renamed(BTreeMap<String, String>);

impl Renamed {
    fn new(tags: &BTreeSet<String>, random: &mut fastrand::Rng) -> Self {
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        let mut renamed = BTreeMap::new();
        for tag in tags {
            let word = tag.trim_matches(|c: char| !is_of_word(c)).to_owned();
            let is_upper = word.chars().any(char::is_uppercase);
            let new = words.entry(word.clone()).or_insert_with(|| {
                let letters = (0..random.usize(4..10)).map(|_| random.lowercase());
                let letters: String = letters.collect();
                match is_upper {
                    true => letters.to_uppercase(),
                    false => letters,
                }
            });
            renamed.insert(tag.clone(), tag.replacen(&word, new, 1));
        }
        Self(renamed)
    }

    /// No tag has another one in it, because each begins with a bracket.
    fn apply(&self, text: &str) -> String {
        let tags = self.0.iter();
        tags.fold(text.to_owned(), |text, (tag, new)| text.replace(tag, new))
    }

    fn apply_to(&self, said: &Said) -> Said {
        match said {
            Said::Reasoning(text) => Said::Reasoning(self.apply(text)),
            Said::Text(text) => Said::Text(self.apply(text)),
            Said::Call {
                id,
                name,
                arguments,
                is_whole,
            } => Said::Call {
                id: id.clone(),
                name: name.clone(),
                arguments: self.apply(arguments),
                is_whole: *is_whole,
            },
        }
    }
}

#[test]
fn templates_of_real_models_are_read_with_markers_that_no_model_has() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let templates = templates();
    let (mut wrong, mut renamed_templates, mut answers) = (Vec::new(), 0, 0);
    for (name, family, reasoning_from, calls_from) in FAMILIES {
        let is_analysed = *calls_from == FormatSource::Template
            && matches!(reasoning_from, FormatSource::Template | FormatSource::None);
        // Calls of Llama 3 are objects without a marker; the one that its models also write is known by the family.
        // DeepSeek's template writes no thought, and closes at once the one that its prompts open: the markers of it
        // are those of most models.
        if !is_analysed || matches!(family, ReplyFamily::Llama3 | ReplyFamily::DeepseekR1) {
            continue;
        }
        let source = &templates[*name];
        let tags = tags(&find(source).format);
        assert!(!tags.is_empty(), "{name}");
        renamed_templates += 1;
        for _ in 0..ROUNDS {
            let renamed = Renamed::new(&tags, &mut random);
            let found = find(&renamed.apply(source));
            let sources = (found.reasoning_from, found.calls_from);
            if sources != (*reasoning_from, *calls_from) {
                wrong.push(format!("{name}: from {sources:?}"));
            }
            let thinks = found.format.reasoning.is_some();
            let of_family = |it: &Example| it.family == *family && (thinks || !is_thought(it));
            for example in examples().into_iter().filter(of_family) {
                answers += 1;
                let output = renamed.apply(&example.output.replace('¦', ""));
                let expected: Vec<_> = example.said.iter().map(|it| renamed.apply_to(it)).collect();
                let tokens = TokensOfMarkers::new(false);
                let by_id = found.format.clone().with_ids(&|text| tokens.id(text));
                let mut cuts: Vec<_> = splits(&output, &[])
                    .into_iter()
                    .map(|cut| (&found.format, cut))
                    .collect();
                // What only reads like a marker is told from one before it has another name.
                if !example.output.contains('¦') {
                    cuts.push((&by_id, tokens.cut(&mut by_id.clone(), &output, &[])));
                }
                for (format, cut) in cuts {
                    let said = read(parser(format, example.opened_in, types()), cut);
                    if said != expected {
                        wrong.push(format!(
                            "{name}: {output}\n  {said:?}\n  {:?}",
                            format.calls
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "seed {seed}: {}", wrong.join("\n"));
    assert!(
        renamed_templates > 10 && answers > 100,
        "{renamed_templates} templates, {answers} answers"
    );
}
