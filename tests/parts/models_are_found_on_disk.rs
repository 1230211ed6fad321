//! What stands in the models folder is what the catalog has, and what is broken there is told in
//! words without hiding the rest.

use rkllmd::models::{Listing, ModelKind, TemplateSource, TemplateState};
use rkllmd::prompt::TemplateFamily;

use super::models_folder_support::{Folder, LIMITS, ask, gguf, llama};

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

/// Each of the others costs its own id, and its model serves.
#[test]
fn adapters_are_found_in_their_models_folder() {
    let folder = Folder::new();
    let lora = |architecture| {
        gguf(&[
            ("general.type", "adapter"),
            ("general.architecture", architecture),
        ])
    };
    let entry = |name: &str, file: &str| {
        format!("[[adapters]]\nname = \"{name}\"\nfile = \"{file}\"\nscale = 0.5\n")
    };
    let names = [
        "good", "absent", "model", "text", "other", "npu", "out", "pipe",
    ];
    let entries: String = names
        .iter()
        .map(|name| match *name {
            "npu" => entry(name, "npu.rkllm"),
            name => entry(name, &format!("{name}.gguf")),
        })
        .collect();
    folder
        .file("m/weights.gguf", llama("x"))
        .file("m/model.toml", &entries)
        .file("m/adapters/good.gguf", lora("llama"))
        .file("m/adapters/model.gguf", llama("x"))
        .file("m/adapters/text.gguf", "not an adapter")
        .file("m/adapters/other.gguf", lora("qwen3"))
        .file("m/adapters/npu.rkllm", "")
        .file("elsewhere.bin", lora("llama"))
        .file("flat.gguf", llama("x"))
        .file("flat.toml", entry("good", "good.gguf"));
    let adapters = folder.path().join("m/adapters");
    let outside = folder.path().join("elsewhere.bin");
    std::os::unix::fs::symlink(outside, adapters.join("out.gguf")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        adapters.join("pipe.gguf"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let catalog = folder.scan();
    let good = catalog.find("m:good").expect("it is there");
    assert_eq!((&*good.id, good.adapter_problem()), ("m", None));
    let problems = folder.problems();
    for (name, words) in [
        ("absent", "no .gguf or .rkllm file of this name"),
        ("model", "it is no LoRA adapter"),
        ("text", "its GGUF header is unusable"),
        ("other", "it is for models of the architecture \"qwen3\""),
        ("npu", "a GGUF model takes a GGUF adapter"),
        ("out", "it leads out of the model's folder"),
        ("pipe", "it is a FIFO, not a regular file"),
    ] {
        let model = catalog.find(&format!("m:{name}")).expect("it is there");
        let problem = model.adapter_problem().expect("it cannot be used");
        assert!(problem.contains(words), "{name}: {problem}");
        let told = format!("the adapter {name:?} cannot be used: {words}");
        assert!(
            problems.iter().any(|it| it.contains(&told)),
            "{problems:#?}"
        );
    }
    let flat = catalog.find("flat:good").expect("it is there");
    let problem = flat.adapter_problem().expect("it cannot be used");
    assert!(problem.contains("a folder of its own"), "{problem}");
    assert_eq!(catalog.models().len(), 2);
    let listing = Listing::of(&catalog, LIMITS).to_string();
    assert!(listing.contains("adapter: m:good: "), "{listing}");
    assert!(
        listing.contains("adapter: m:text: cannot be used"),
        "{listing}"
    );
    assert!(!listing.contains("are not looked at"), "{listing}");
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
        "ID KIND SIZE CONTEXT SLOTS CHAT TEMPLATE THOUGHTS BY CALLS BY FORMATS ALIASES"
    );
    assert_eq!(
        words(lines[1]),
        "gemma-2b rkllm 2.0 KiB default 1 file name (gemma) none generic none"
    );
    let size = llama("x").len();
    assert_eq!(
        words(lines[2]),
        format!("tiny gguf {size} B 1024 of 2048 4 gguf none generic none t, small")
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

#[test]
fn a_batch_is_of_one_handle_and_keeps_no_prefix() {
    for (manifest, text) in [
        ("batch = 0\n", "batch"),
        ("batch = 17\n", "batch"),
        (
            "batch = 2\nparallel = 2\n",
            "set parallel or batch, not both",
        ),
        (
            "batch = 2\n[prefixes]\nshared = [\"You are a cook.\"]\n",
            "set batch or [prefixes], not both",
        ),
    ] {
        let folder = Folder::new();
        folder
            .file("m/m.rkllm", [0; 2048])
            .file("m/model.toml", manifest);
        let problems = folder.problems();
        assert_eq!(problems.len(), 1, "{manifest}: {problems:?}");
        assert!(problems[0].contains(text), "{manifest}: {problems:?}");
    }
    for (manifest, batch) in [("batch = 4\n", Some(4)), ("batch = 1\n", None)] {
        let folder = Folder::new();
        folder
            .file("m/m.rkllm", [0; 2048])
            .file("m/model.toml", manifest);
        let catalog = folder.scan();
        assert_eq!(catalog.models()[0].facts.batch, batch, "{manifest}");
        assert!(!catalog.models()[0].keeps_formats());
    }
}
