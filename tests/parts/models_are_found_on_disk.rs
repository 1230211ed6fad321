//! What stands in the models folder is what the catalog has, and what is broken there is told in
//! words without hiding the rest.

use std::fs;
use std::path::Path;

use rkllmd::models::{
    Catalog, InstalledModel, Listing, ModelKind, SlotLimits, TemplateSource, TemplateState,
};
use rkllmd::prompt::TemplateFamily;

const LIMITS: SlotLimits = SlotLimits {
    parallel: 1,
    pool_contexts: 2,
    memory_bytes: Some(16 << 20),
};

/// A GGUF header with these strings, a vocabulary of three tokens and no tensors.
fn gguf(strings: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend((strings.len() as u64 + 4).to_le_bytes());
    for (key, value) in strings {
        file.extend(text(key));
        file.extend(8u32.to_le_bytes());
        file.extend(text(value));
    }
    file.extend(text("llama.context_length"));
    file.extend(4u32.to_le_bytes());
    file.extend(2048u32.to_le_bytes());
    file.extend(text("tokenizer.ggml.bos_token_id"));
    file.extend(4u32.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(text("tokenizer.ggml.tokens"));
    file.extend(9u32.to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(3u64.to_le_bytes());
    for token in ["[BOS]", "word", "[TURN]"] {
        file.extend(text(token));
    }
    file.extend(text("tokenizer.ggml.token_type"));
    file.extend(9u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    file.extend(3u64.to_le_bytes());
    for kind in [3i32, 1, 3] {
        file.extend(kind.to_le_bytes());
    }
    file
}

fn llama(template: &str) -> Vec<u8> {
    gguf(&[
        ("general.architecture", "llama"),
        ("tokenizer.chat_template", template),
    ])
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn scan(&self) -> Catalog {
        crate::reader_support::scan(self.path()).unwrap()
    }

    /// The catalog's problems as `path: text`, without the folder's own path.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.path().display());
        self.scan()
            .problems()
            .iter()
            .map(|found| format!("{}: {}", found.path.display(), found.problem).replace(&root, ""))
            .collect()
    }
}

fn ask(model: &InstalledModel) -> String {
    crate::reader_support::render(model, "hi [TURN]").unwrap()
}

#[test]
fn files_and_folders_are_models() {
    let folder = Folder::new();
    folder
        .file(
            "flat.gguf",
            llama("{{ bos_token }}{{ messages[0].content }}"),
        )
        .file("Qwen3-0.6B.rkllm", "kind = \"text\"")
        .file("Qwen3-0.6B.toml", "aliases = [\"qwen\"]\ncpu-mask = 0xF0")
        .file("own/weights.rkllm", b"\xDA\xEE\xB3\x36rest")
        .file(
            "own/tokenizer.json",
            r#"{"added_tokens":[{"content":"[END]","special":true}]}"#,
        )
        .file("own/mmproj-f16.gguf", "")
        .file("notes/readme.txt", "nothing")
        .file(".hidden.gguf", "");
    let catalog = folder.scan();
    assert_eq!(folder.problems(), [""; 0]);
    let ids: Vec<_> = catalog.models().iter().map(|model| &*model.id).collect();
    assert_eq!(ids, ["Qwen3-0.6B", "flat", "own"]);

    let flat = catalog.find("flat").unwrap();
    assert_eq!(flat.facts.kind, ModelKind::Gguf);
    assert_eq!(flat.facts.context_limit, Some(2048));
    assert_eq!(flat.facts.template_source, Some(TemplateSource::Gguf));
    assert_eq!(ask(flat), "[BOS]hi [\u{200B}TURN]");

    let qwen = catalog.find("qwen").unwrap();
    assert_eq!((&*qwen.id, qwen.facts.cpu_mask), ("Qwen3-0.6B", Some(0xF0)));
    assert_eq!(
        qwen.facts.template_source,
        Some(TemplateSource::FileName(TemplateFamily::Chatml))
    );

    let own = catalog.find("own").unwrap();
    assert_eq!(
        (&own.template, &own.facts.template_source),
        (&TemplateState::None, &None)
    );
    assert_eq!(
        own.tokenizer_json,
        Some(folder.path().join("own/tokenizer.json"))
    );
    assert!(
        own.notes
            .iter()
            .any(|note| note.contains("no chat template"))
    );
}

#[test]
fn every_field_that_lists_special_tokens_counts() {
    let folder = Folder::new();
    folder.file("a/m.rkllm", b"x").file(
        "a/tokenizer_config.json",
        r#"{"additional_special_tokens": ["<SPECIAL_10>", {"content": "<11>"}],
            "extra_special_tokens": {"image_token": "<image>"},
            "model_specific_special_tokens": 5,
            "unk_token": {"content": "<unk>"}, "pad_token": "<pad>", "sep_token": null,
            "added_tokens_decoder": {"1": {"content": "<12>", "special": true},
                "2": {"content": "</think>", "special": false}}}"#,
    );
    folder.file(
        "a/special_tokens_map.json",
        r#"{"additional_special_tokens": ["<13>"], "mask_token": {"content": "<mask>"}}"#,
    );
    let catalog = folder.scan();
    let listed = [
        "<11>",
        "<12>",
        "<SPECIAL_10>",
        "<image>",
        "<pad>",
        "<unk>",
        "<13>",
        "<mask>",
    ];
    let texts: Vec<_> = listed.into_iter().chain(["</think>"]).collect();
    let shown = crate::reader_support::plain(&catalog.models()[0], &texts);
    for (token, shown) in listed.iter().zip(&shown) {
        assert_ne!(token, shown, "it stays text");
    }
    assert_eq!(shown[listed.len()], "</think>");
}

#[test]
fn the_first_template_source_decides() {
    let folder = Folder::new();
    let config = r#"{"chat_template":[{"name":"rag","template":"no"},{"name":"default","template":"config {{ eos_token }}"}],
        "bos_token":"<b>","eos_token":{"content":"<e>"}}"#;
    folder
        .file("a/m.gguf", llama("gguf"))
        .file("b/m.gguf", llama("gguf"))
        .file("b/tokenizer_config.json", config)
        .file("c/m.gguf", llama("gguf"))
        .file("c/tokenizer_config.json", config)
        .file("c/chat_template.jinja", "jinja {{ bos_token }}")
        .file("d/m.gguf", llama("gguf"))
        .file("d/chat_template.jinja", "jinja")
        .file("d/mine.jinja", "mine {{ bos_token }}")
        .file(
            "d/model.toml",
            "template-file = \"mine.jinja\"\nbos-token = \"<mine>\"",
        )
        .file("e/m.gguf", llama("gguf"))
        .file("e/chat_template.jinja", "jinja")
        .file("e/model.toml", "template = \"deepseek-r1\"");
    let catalog = folder.scan();
    assert_eq!(folder.problems(), [""; 0]);
    let prompts: Vec<_> = catalog
        .models()
        .iter()
        .map(|model| (model.facts.template_source.clone().unwrap(), ask(model)))
        .collect();
    let family = TemplateFamily::DeepseekR1;
    let expected = [
        (TemplateSource::Gguf, "gguf"),
        (TemplateSource::TokenizerConfig, "config <e>"),
        (TemplateSource::ChatTemplateFile, "jinja <b>"),
        (
            TemplateSource::ManifestFile("mine.jinja".into()),
            "mine <mine>",
        ),
        (
            TemplateSource::ManifestFamily(family),
            "[BOS]<｜User｜>hi [\u{200B}TURN]<｜Assistant｜><think>\n",
        ),
    ];
    assert_eq!(
        prompts,
        expected.map(|(source, text)| (source, text.to_owned()))
    );
}

#[test]
fn broken_entries_are_told_in_words_and_hide_nothing() {
    let folder = Folder::new();
    let whole = llama("x");
    folder
        .file("good.gguf", &whole)
        .file("cut.gguf", &whole[..whole.len() / 2])
        .file("text.gguf", "not a model")
        .file("adapter.gguf", gguf(&[("general.type", "adapter")]))
        .file("typo.gguf", &whole)
        .file("typo.toml", "aliases = []\ncontext-lenght = 4096")
        .file("range.gguf", &whole)
        .file("range.toml", "[sampling]\ntop-p = 1.5")
        .file("orphan.toml", "aliases = []")
        .file("two/a.gguf", &whole)
        .file("two/b.rkllm", "")
        .file("none/model.toml", "")
        .file("jinja/m.gguf", &whole)
        .file("jinja/chat_template.jinja", "\n{% if %}")
        .file("lost-00002-of-00002.gguf", &whole)
        .file("half-00001-of-00002.gguf", &whole);
    let problems = folder.problems();
    for (path, words) in [
        (
            "cut.gguf",
            "its GGUF header is unusable: it is truncated or damaged",
        ),
        (
            "text.gguf",
            "its GGUF header is unusable: it does not start with `GGUF`",
        ),
        ("adapter.gguf", "it is a LoRA adapter, not a model"),
        (
            "typo.gguf",
            "typo.toml line 2: unknown field `context-lenght`",
        ),
        (
            "range.gguf",
            "range.toml: sampling.top-p is 1.5, allowed is 0 to 1",
        ),
        (
            "orphan.toml",
            "no .gguf or .rkllm file of this name stands beside it",
        ),
        (
            "two",
            "it holds 2 model files (a.gguf, b.rkllm), a folder is one model",
        ),
        ("none", "it has a model.toml and no .gguf or .rkllm file"),
        (
            "jinja/m.gguf",
            "its chat template from chat_template.jinja cannot be used: ",
        ),
        (
            "lost-00002-of-00002.gguf",
            "its first part lost-00001-of-00002.gguf is missing",
        ),
        (
            "half-00001-of-00002.gguf",
            "its part half-00002-of-00002.gguf is missing",
        ),
    ] {
        let start = format!("{path}: {words}");
        assert!(
            problems.iter().any(|problem| problem.starts_with(&start)),
            "{start:?} is not among {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
    let catalog = folder.scan();
    let ids: Vec<_> = catalog.models().iter().map(|model| &*model.id).collect();
    assert_eq!(ids, ["good", "jinja"]);
    let broken = &catalog.find("jinja").unwrap().template;
    assert!(matches!(broken, TemplateState::Broken { .. }), "{broken:?}");
}

#[test]
fn a_name_belongs_to_one_model() {
    let folder = Folder::new();
    folder
        .file("a.gguf", llama("x"))
        .file("a.toml", "aliases = [\"chat\", \"b\", \"a\"]")
        .file("b.gguf", llama("x"))
        .file("b.toml", "aliases = [\"chat\", \"small\"]")
        .file("c.gguf", llama("x"))
        .file("c.toml", "id = \"a\"");
    let catalog = folder.scan();
    assert_eq!(catalog.models().len(), 2);
    assert_eq!(&*catalog.find("chat").unwrap().id, "a");
    assert_eq!(&*catalog.find("b").unwrap().id, "b");
    assert_eq!(&*catalog.find("small").unwrap().id, "b");
    let root = folder.path().display();
    assert_eq!(
        folder.problems(),
        [
            format!(
                "c.gguf: its id `a` is taken by {root}/a.gguf; set another `id` in its model.toml"
            ),
            format!("a.gguf: its alias `b` is taken by {root}/b.gguf"),
            format!("b.gguf: its alias `chat` is taken by {root}/a.gguf"),
        ]
        .map(|text| text.replace(&format!("{root}/"), ""))
    );
}

#[test]
fn the_parts_of_a_split_model_are_one() {
    let folder = Folder::new();
    folder
        .file("big-00001-of-00002.gguf", llama("x"))
        .file("big-00002-of-00002.gguf", [0; 1000]);
    let catalog = folder.scan();
    assert_eq!(folder.problems(), [""; 0]);
    let big = catalog.find("big").unwrap();
    assert_eq!(big.facts.size_bytes, llama("x").len() as u64 + 1000);
    assert_eq!(big.path, folder.path().join("big-00001-of-00002.gguf"));
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = Folder::new();
    let error = crate::reader_support::scan(&folder.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn the_listing_shows_models_and_problems() {
    let folder = Folder::new();
    folder
        .file("tiny.gguf", llama("x"))
        .file(
            "tiny.toml",
            "aliases = [\"t\", \"small\"]\ncontext-length = 1024\nparallel = 4",
        )
        .file("gemma-2b.rkllm", [0; 2048])
        .file("bad.gguf", "");
    let listing = Listing::of(&folder.scan(), LIMITS);
    let text = listing.to_string();
    let lines: Vec<_> = text.lines().collect();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[0]),
        "ID KIND SIZE CONTEXT SLOTS CHAT TEMPLATE THOUGHTS BY CALLS BY ALIASES"
    );
    assert_eq!(
        words(lines[1]),
        "gemma-2b rkllm 2.0 KiB default 1 file name (gemma) none generic"
    );
    let size = llama("x").len();
    assert_eq!(
        words(lines[2]),
        format!("tiny gguf {size} B 1024 of 2048 4 gguf none generic t, small")
    );
    assert_eq!(
        lines[3],
        "slots: tiny: 4 of 4 slots share a pool of 2048 tokens, 1024 at most each; 16 MiB may be used"
    );
    assert_eq!(
        lines[4],
        "note: gemma-2b: it does not start as .rkllm files usually do"
    );
    assert!(lines[5].starts_with("problem: ") && lines[5].contains("bad.gguf: its GGUF header"));

    let json = serde_json::to_value(&listing).unwrap();
    assert_eq!(json["models"][1]["id"], "tiny");
    assert_eq!(json["models"][1]["context_limit"], 2048);
    assert_eq!(json["models"][0]["template"]["from"], "file-name");
    assert_eq!(json["models"][0]["template"]["which"], "gemma");
    assert_eq!(json["models"][0]["template"]["usable"], true);
    assert_eq!(
        json["models"][0]["replies"],
        serde_json::json!({"thoughts": "none", "calls": "generic"})
    );
    assert_eq!(json["problems"].as_array().unwrap().len(), 1);
}

/// Shows functions, thinks, and calls as no family does.
const OWN_FORM: &str = r#"{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{%- for message in messages %}[{{ message.role }}]
{%- if message.reasoning_content %}<mull>{{ message.reasoning_content }}</mull>{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}<do>{"fn": "{{ call.function.name }}", "args": {{ call.function.arguments | tojson }}}</do>
{%- endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"#;

#[test]
fn how_a_model_replies_is_known_from_the_first_that_tells() {
    let said = serde_json::json!({
        "version": 1,
        "start_anchor": "[assistant]",
        "fields": {
            "reasoning_content": {"open": "<muse>", "close": "</muse>"},
            "tool_calls": {"open": "<act>", "close": "</act>", "content": "json"},
        },
    });
    let config = |said: &serde_json::Value| {
        serde_json::json!({"chat_template": OWN_FORM, "response_template": said}).to_string()
    };
    let family = "[replies]\nfamily = \"llama3\"\n";
    let markers = "[replies]\nthought = { open = \"<hm>\", close = \"</hm>\" }\n\
        call = { open = \"<go>\", name = \"what\", arguments = \"with\" }\n";
    for (said, manifest, thoughts, calls) in [
        (None, "", ("template", Some("<mull>")), ("template", "<do>")),
        (
            Some(&said),
            "",
            ("response_template", Some("<muse>")),
            ("response_template", "<act>"),
        ),
        (
            Some(&said),
            family,
            ("model.toml", None),
            ("model.toml", "<|python_tag|>"),
        ),
        (
            Some(&said),
            markers,
            ("model.toml", Some("<hm>")),
            ("model.toml", "<go>"),
        ),
    ] {
        let folder = Folder::new();
        folder
            .file("m/m.rkllm", [0; 2048])
            .file("m/model.toml", manifest);
        folder.file(
            "m/tokenizer_config.json",
            config(said.unwrap_or(&serde_json::Value::Null)),
        );
        let catalog = folder.scan();
        let found = &catalog.models()[0].reply.as_ref().expect("a form").found;
        let (reasoning, known) = (
            &found.format.reasoning,
            found.format.calls.as_ref().unwrap(),
        );
        let open = reasoning
            .as_ref()
            .map(|reasoning| reasoning.open.text.as_str());
        assert_eq!(
            (&*found.reasoning_from.to_string(), open),
            thoughts,
            "{manifest}"
        );
        let open = known.call[0].open.text.as_str();
        assert_eq!((&*found.calls_from.to_string(), open), calls, "{manifest}");
        let listing = Listing::of(&catalog, LIMITS).to_string();
        let line = listing.lines().nth(1).expect("a line");
        assert!(
            line.contains(thoughts.0) && line.contains(calls.0),
            "{line}"
        );
    }
}

#[test]
fn what_is_wrong_with_how_a_model_is_said_to_reply_is_told() {
    for (manifest, text) in [
        (
            "[replies]\nfamily = \"nobody\"\n",
            "model.toml line 2: unknown variant `nobody`",
        ),
        (
            "[replies]\nthought = { open = \" \", close = \"</a>\" }\n",
            "model.toml: replies holds an empty marker or key",
        ),
        (
            "[replies]\nfamily = \"gpt-oss\"\ncall = { open = \"<a>\" }\n",
            "model.toml: replies.family has its own form of messages",
        ),
        (
            "[replies]\nthoughts = 1\n",
            "model.toml line 2: unknown field `thoughts`",
        ),
        (
            "skip-special-token = false\neos-ids = [2]\n",
            "model.toml: skip-special-token = false needs `eos-ids` and the model's tokenizer.json",
        ),
    ] {
        let folder = Folder::new();
        folder
            .file("m/m.rkllm", [0; 2048])
            .file("m/model.toml", manifest);
        let problems = folder.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(text), "{problems:?}");
    }
    let folder = Folder::new();
    folder.file("m/m.rkllm", [0; 2048]).file(
        "m/tokenizer_config.json",
        serde_json::json!({"chat_template": OWN_FORM, "response_template": {"version": 9, "fields": {}}})
            .to_string(),
    );
    assert_eq!(
        folder.problems(),
        ["m/tokenizer_config.json: its response_template: its version 9 is not known"]
    );
    let found = &folder.scan().models()[0]
        .reply
        .clone()
        .expect("a form")
        .found;
    assert_eq!(
        found.calls_from.to_string(),
        "template",
        "the model serves all the same"
    );

    let patterns = serde_json::json!({"fields": {"tool_calls": {"open_pattern": "<f=(\\w+)>"}}});
    let folder = Folder::new();
    folder.file("m/m.rkllm", [0; 2048]).file(
        "m/tokenizer_config.json",
        serde_json::json!({"chat_template": OWN_FORM, "response_template": patterns}).to_string(),
    );
    let notes = folder.scan().models()[0].notes.join("\n");
    assert!(
        notes.contains("says of tool_calls (open_pattern) is not read"),
        "{notes}"
    );
}
