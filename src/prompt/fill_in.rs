//! Texts that a model is to put something into: before and behind it stand the model's own markers, and
//! what is missing follows them.

/// A text with a gap, and what stands elsewhere that may help to fill it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub before: String,
    pub behind: String,
    /// How what is missing begins.
    pub begun: String,
    /// Other files, or parts of them; the least helpful first.
    pub others: Vec<Snippet>,
}

/// A file, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snippet {
    /// May be empty.
    pub filename: String,
    pub text: String,
}

impl Gap {
    /// Its texts: what is before it, what is behind it, how it begins, and each other file's name and text.
    pub fn into_texts(self) -> Vec<String> {
        let others = self.others.into_iter();
        let others = others.flat_map(|other| [other.filename, other.text]);
        [self.before, self.behind, self.begun]
            .into_iter()
            .chain(others)
            .collect()
    }

    /// Of the texts in the same order.
    pub fn of_texts(texts: impl IntoIterator<Item = String>) -> Self {
        let mut texts = texts.into_iter();
        let mut gap = Self {
            before: texts.next().unwrap_or_default(),
            behind: texts.next().unwrap_or_default(),
            begun: texts.next().unwrap_or_default(),
            others: Vec::new(),
        };
        while let Some(filename) = texts.next() {
            let text = texts.next().unwrap_or_default();
            gap.others.push(Snippet { filename, text });
        }
        gap
    }
}

/// What stands before the text in front of the gap, between it and the text behind, and behind that; and what
/// stands before files, where the model was shown several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillIn {
    before: &'static str,
    between: &'static str,
    behind: &'static str,
    files: Option<Files>,
}

/// What stands before the name of a project, and before that of each file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    project: &'static str,
    file: &'static str,
}

/// The markers of models that were trained to fill in: Qwen's, StarCoder's and those that followed it,
/// SantaCoder's, DeepSeek's, GLM's.
const KNOWN: [FillIn; 5] = [
    FillIn::of("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    FillIn::of("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    FillIn::of("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    FillIn::of("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    FillIn::of("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
];

/// Qwen's and StarCoder's.
const KNOWN_FILES: [Files; 2] = [
    Files {
        project: "<|repo_name|>",
        file: "<|file_sep|>",
    },
    Files {
        project: "<repo_name>",
        file: "<file_sep>",
    },
];

/// Names of what has none. llama.cpp's server says the same, so its clients' prompts stay what they are.
const PROJECT: &str = "myproject";
const FILE: &str = "filename";

impl FillIn {
    const fn of(before: &'static str, between: &'static str, behind: &'static str) -> Self {
        Self {
            before,
            between,
            behind,
            files: None,
        }
    }

    /// Those that a vocabulary has, each as one token; none: the model cannot fill in.
    pub fn find(is_token: impl Fn(&str) -> bool) -> Option<Self> {
        let mut known = KNOWN.into_iter();
        let found = known.find(|known| known.markers().into_iter().all(&is_token))?;
        let mut files = KNOWN_FILES.into_iter();
        Some(Self {
            files: files.find(|files| is_token(files.project) && is_token(files.file)),
            ..found
        })
    }

    /// What stands before the text in front of a gap, between that and the text behind, and behind that.
    pub fn markers(self) -> [&'static str; 3] {
        [self.before, self.between, self.behind]
    }

    /// The prompt of a gap, without the first `gone` of the other files.
    pub fn prompt(self, gap: &Gap, gone: usize) -> String {
        let mut prompt = String::new();
        let others = gap.others.get(gone..).unwrap_or_default();
        match self.files {
            _ if others.is_empty() => {}
            Some(Files { project, file }) => {
                prompt.extend([project, PROJECT, "\n"]);
                for other in others {
                    let name = match &*other.filename {
                        "" => FILE,
                        name => name,
                    };
                    prompt.extend([file, name, "\n", &other.text, "\n"]);
                }
                prompt.extend([file, FILE, "\n"]);
            }
            None => {
                for other in others {
                    prompt.extend([&*other.text, "\n"]);
                }
            }
        }
        let parts = [self.before, &gap.before, self.between, &gap.behind];
        prompt.extend(parts);
        prompt.extend([self.behind, &gap.begun]);
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap() -> Gap {
        let texts = ["a(", ")", "b", "one.rs", "1", "", "2"];
        Gap::of_texts(texts.map(str::to_owned))
    }

    #[test]
    fn all_three_markers_are_needed() {
        let tokens = [
            "<fim_prefix>",
            "<fim_suffix>",
            "<fim_middle>",
            "<|fim_prefix|>",
            "<file_sep>",
        ];
        let found = FillIn::find(|text| tokens.contains(&text)).unwrap();
        let prompt = "<fim_prefix>a(<fim_suffix>)<fim_middle>b";
        assert_eq!(found.prompt(&gap(), 2), prompt);
        assert_eq!(found.prompt(&gap(), 0), format!("1\n2\n{prompt}"));
        assert_eq!(FillIn::find(|text| text == "<fim_prefix>"), None);
    }

    #[test]
    fn files_stand_behind_markers_of_their_own() {
        let found = FillIn::find(|text| text.starts_with("<|")).unwrap();
        let prompt = "<|fim_prefix|>a(<|fim_suffix|>)<|fim_middle|>b";
        assert_eq!(
            found.prompt(&gap(), 0),
            format!(
                "<|repo_name|>myproject\n<|file_sep|>one.rs\n1\n<|file_sep|>filename\n2\n\
                 <|file_sep|>filename\n{prompt}"
            )
        );
        assert_eq!(
            found.prompt(&gap(), 1),
            format!(
                "<|repo_name|>myproject\n<|file_sep|>filename\n2\n<|file_sep|>filename\n{prompt}"
            )
        );
        assert_eq!(found.prompt(&gap(), 2), prompt);
    }

    #[test]
    fn a_gaps_texts_are_its_own_again() {
        assert_eq!(Gap::of_texts(gap().into_texts()), gap());
        assert_eq!(Gap::of_texts([]), Gap::default());
    }
}
