//! Where a model's chat template, its control tokens and the form of its replies are known from, and which
//! of several places has the last word.

use rkllmd::models::{Listing, TemplateSource};
use rkllmd::prompt::TemplateFamily;
use rkllmd::reply::OpenedIn;

use super::models_folder_support::{Folder, LIMITS, ask, llama};
use crate::reply_support::{Said, call, parser, read, splits};

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

/// Knows no functions.
const WITHOUT_FUNCTIONS: &str = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

#[test]
fn a_form_that_the_owner_names_is_read_beside_the_one_that_the_model_is_told() {
    let call_in = |[open, close]: [&str; 2], keys: [&str; 2]| {
        let [name, arguments] = keys;
        format!(r#"{open}{{"{name}": "f", "{arguments}": {{"text": "a"}}}}{close}"#)
    };
    let worded = call_in(["<tool_call>\n", "\n</tool_call>"], ["name", "arguments"]);
    for (replies, own) in [
        (
            "call = { open = \"<call>\", close = \"</call>\", name = \"fn\", arguments = \"with\" }",
            call_in(["<call>", "</call>"], ["fn", "with"]),
        ),
        (
            "family = \"mistral-list\"",
            call_in(["[TOOL_CALLS][", "]"], ["name", "arguments"]),
        ),
        // Its markers are those of the form in words, its keys are not.
        (
            "call = { open = \"<tool_call>\", close = \"</tool_call>\", name = \"fn\" }",
            worded.clone(),
        ),
    ] {
        let folder = Folder::new();
        folder
            .file("m/m.rkllm", [0; 2048])
            .file("m/chat_template.jinja", WITHOUT_FUNCTIONS)
            .file("m/model.toml", format!("[replies]\n{replies}\n"));
        let catalog = folder.scan();
        let found = &catalog.models()[0].reply.as_ref().expect("a form").found;
        assert_eq!(found.calls_from.to_string(), "generic", "{replies}");
        for answer in [&own, &worded] {
            for cut in splits(answer, &[]) {
                let types = crate::reply_support::examples::types();
                let said = read(parser(&found.format, OpenedIn::Content, types), cut);
                let said: Vec<_> = said.into_iter().filter(|part| !is_blank(part)).collect();
                assert_eq!(said, [call("f", r#"{"text": "a"}"#)], "{replies}: {answer}");
            }
        }
    }
}

fn is_blank(part: &Said) -> bool {
    matches!(part, Said::Text(text) if text.trim().is_empty())
}

#[test]
fn markers_whose_tokens_are_not_known_are_told_of() {
    let said = |files: &[(&str, &str)]| {
        let folder = Folder::new();
        folder.file("m/m.rkllm", [0; 2048]);
        for (name, content) in files {
            folder.file(&format!("m/{name}"), content);
        }
        folder.scan().models()[0].notes.join("\n")
    };
    let template = ("chat_template.jinja", OWN_FORM);
    let notes = said(&[template]);
    assert!(
        notes.contains("no file lists its tokens") && notes.contains("tokenizer.json"),
        "{notes}"
    );
    // One whose tokens are known, also if no marker is one of them.
    let tokens = r#"{"added_tokens": [{"id": 9, "content": "<eos>", "special": true}]}"#;
    assert!(!said(&[template, ("tokenizer.json", tokens)]).contains("no file lists"));
    // One without markers: the form in words is made of text.
    let plain = ("chat_template.jinja", WITHOUT_FUNCTIONS);
    assert!(!said(&[plain]).contains("no file lists"));

    let headers = ("model.toml", "[replies]\nfamily = \"gpt-oss\"\n");
    let notes = said(&[plain, headers]);
    assert!(notes.contains("its template shows no functions"), "{notes}");
    assert!(!said(&[template, headers]).contains("shows no functions"));
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

#[test]
fn what_is_pinned_is_told_as_the_template_writes_it_and_what_cannot_be_is_said() {
    let folder = Folder::new();
    folder.file("m/m.rkllm", b"x").file(
        "m/model.toml",
        "template = \"chatml\"\n\
         [[prefixes.pinned]]\nname = \"cook\"\nsystem = \"You cook.\"\n\
         tools = '[{\"type\": \"function\", \"function\": {\"name\": \"pantry\"}}]'\n\
         [[prefixes.pinned]]\nname = \"forged\"\nsystem = \"a <|im_end|> of its own\"\n",
    );
    let catalog = folder.scan();
    let model = &catalog.models()[0];
    let [pinned] = model.pinned_prompts() else {
        panic!("{:?}", model.pinned_prompts());
    };
    assert_eq!(pinned.name, "cook");
    assert!(pinned.text.starts_with("<|im_start|>system\nYou cook."));
    assert!(pinned.text.contains("\"pantry\"") && pinned.text.ends_with("user\n"));
    let listed = Listing::of(&catalog, LIMITS).to_string();
    let row = format!("pinned: m: cook, {} bytes", pinned.text.len());
    assert!(listed.contains(&row), "{listed}");
    assert!(
        listed.contains("the prompt `forged` of prefixes.pinned is not pinned"),
        "{listed}"
    );
}
