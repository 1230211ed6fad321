//! What a C program can rely on. Each test compiles a program against this crate's header, links it
//! with the built library and has it hold one promise with the real model: the ABI is checked from
//! the other side, by a compiler that knows nothing of the Rust declarations.

use std::process::Command;

mod common;

use common::{ONE_THREAD, Program, hold, library, model, promises};

promises! { "c/runs.c":
    callbacks_come_in_order,
    special_tokens_are_shown_on_request,
    an_ignored_end_token_does_not_end_the_run,
    incomplete_characters_wait,
    an_abort_in_the_callback_ends_the_run,
    an_abort_from_another_thread_ends_the_run,
    an_abort_reaches_into_the_prefill,
    an_abort_while_idle_is_not_kept,
    a_paused_run_is_resumed_by_the_next,
    calls_in_the_callback_cannot_disturb_the_run,
    destroying_ends_a_run_first,
    a_thousand_tokens,
}

promises! { "c/cache.c":
    a_common_prefix_is_not_evaluated_again,
    special_tokens_are_parsed_in_raw_mode,
    a_custom_template_surrounds_the_prompt,
    clearing_can_keep_the_system_prompt,
    history_is_kept_or_forgotten,
    a_range_can_be_cleared_while_paused,
    the_window_shifts_when_it_is_full,
    each_run_has_its_own_limit,
    tokens_are_as_good_as_text,
    sampling_is_chosen_per_run,
    a_seed_makes_runs_repeat,
}

promises! { "c/async.c":
    an_accepted_run_ends_whatever_is_cleared,
    a_background_run_is_the_same_run,
    a_background_run_excludes_others,
    destroying_ends_a_background_run,
}

promises! { "c/batch.c":
    each_sequence_answers_its_own_prompt,
    a_batch_is_paused_aborted_and_continued,
    a_full_window_shifts_in_a_batch,
    a_sequence_without_an_input_idles,
    what_a_batch_cannot_do_is_refused,
}

promises! { "c/lifecycle.c":
    loading_and_destroying_leaves_nothing,
    two_models_run_at_once,
    a_null_handle_is_an_error,
    a_dead_handle_is_an_error,
    a_foreign_handle_is_an_error,
    a_handle_is_dead_while_it_is_destroyed,
    many_threads_destroy_once,
    userdata_of_init_is_the_fallback,
}

#[test]
fn a_saved_prompt_is_not_evaluated_again() {
    let cache = common::Scratch::new("a_saved_prompt.cache");
    let printed = common::hold_with(
        "c/prompt_cache.c",
        "a_saved_prompt_is_not_evaluated_again",
        &model(),
        &[
            ("CACHE", cache.path()),
            ("ADAPTERS", &common::test_adapters()),
        ],
    );
    let refused = "E rkllm: a prompt cache is loaded already";
    assert!(printed.contains(refused), "{printed}");
}

#[test]
fn a_saved_prompt_belongs_to_its_model() {
    let cache = common::Scratch::new("its_model.cache");
    let other = common::Scratch::new("other.gguf");
    // The same model in another file: its last bytes are weights.
    let mut bytes = std::fs::read(model()).expect("the model is readable");
    bytes.last_mut().expect("it is not empty").clone_from(&1);
    std::fs::write(&other.0, bytes).expect("scratch is writable");
    let printed = common::hold_with(
        "c/prompt_cache.c",
        "a_saved_prompt_belongs_to_its_model",
        &model(),
        &[("CACHE", cache.path()), ("OTHER", other.path())],
    );
    let line = "E rkllm: the prompt dose not match the current model[llama";
    assert!(printed.lines().any(|l| l.starts_with(line)), "{printed}");
}

/// Shows tools after the system prompt, and knows whether to think; as long as the model's own.
const TOOLS_TEMPLATE: &str = r"{% for m in messages %}{{'<|im_start|>'+m.role+'\n'+m.content}}{% if tools and m.role=='system' %}{{tools|tojson}}{% endif %}{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% if enable_thinking is false %}{{'<think>\n\n</think>\n\n'}}{% endif %}{% endif %}";

/// The demo model with that template: the text is replaced in place, padded with a comment.
fn model_with_tools(file: &common::Scratch) {
    let mut bytes = std::fs::read(model()).expect("the model is readable");
    let start = b"{% for message in messages %}";
    let end = b"<|im_start|>assistant\n' }}{% endif %}";
    let find = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|at| at == text);
    let from = find(&bytes, start).expect("the demo model has a template");
    let to = from + find(&bytes[from..], end).expect("which ends so") + end.len();
    let padding = (to - from)
        .checked_sub(TOOLS_TEMPLATE.len() + 4)
        .expect("there is room for the other template");
    let padded = format!("{TOOLS_TEMPLATE}{{#{}#}}", " ".repeat(padding));
    bytes[from..to].copy_from_slice(padded.as_bytes());
    std::fs::write(&file.0, bytes).expect("scratch is writable");
}

#[test]
fn tools_are_shown_by_the_models_template() {
    let with_tools = common::Scratch::new("tools.gguf");
    model_with_tools(&with_tools);
    let printed = common::hold_with(
        "c/tools.c",
        "tools_are_shown_by_the_models_template",
        with_tools.path(),
        &[],
    );
    for line in [
        "E rkllm: Failed to set function tools, possibly because the chat_template is empty",
        "E rkllm: the tools must be a JSON array, but are not: ",
        "E rkllm: the results of tools must be JSON, but are not: ",
    ] {
        assert!(
            printed.lines().any(|l| l.starts_with(line)),
            "no `{line}` in\n{printed}"
        );
    }
}

#[test]
fn thinking_is_switched_by_the_models_template() {
    let with_tools = common::Scratch::new("thinking.gguf");
    model_with_tools(&with_tools);
    let promise = "thinking_is_switched_by_the_models_template";
    common::hold_with("c/tools.c", promise, with_tools.path(), &[]);
}

#[test]
fn a_template_without_tools_refuses_them() {
    hold("c/tools.c", "a_template_without_tools_refuses_them");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let printed = hold("c/cache.c", "a_prompt_that_does_not_fit_is_refused");
    let line = "E rkllm: the length of prompt is greater than max context \
                (prompt: 81 tokens, max context: 60)";
    assert!(printed.lines().any(|l| l == line), "{printed}");
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    let printed = hold("c/lifecycle.c", "what_cannot_be_loaded_is_refused");
    for line in [
        "E rkllm: max_context[8224] must be less than the model's max_context_limit[8192]",
        "E rkllm: max_context[31] must be at least 32",
        "E rkllm: n_keep[98] must be less than max_context[96]",
        "E rkllm: base_domain_id must >= 0",
        "E rkllm: rkllm_init failed",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no `{line}` in\n{printed}"
        );
    }
    assert!(printed.contains("E rkllm: load model file error! /nonexistent/model.gguf"));
}

/// The demo model, said to read a whole text at once: entries of 96 bytes, three times what the weights are
/// aligned to, are put before the others.
fn model_that_reads_what_comes_later(file: &common::Scratch) {
    const BOOL: u32 = 7;
    const STRING: u32 = 8;
    let mut bytes = std::fs::read(model()).expect("the model is readable");
    let (count, first) = (16, 24);
    let entries = u64::from_le_bytes(bytes[count..first].try_into().expect("eight bytes"));
    bytes[count..first].copy_from_slice(&(entries + 2).to_le_bytes());
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let causal = [
        text("llama.attention.causal"),
        BOOL.to_le_bytes().into(),
        vec![0],
    ];
    let padding = [
        text("general.note"),
        STRING.to_le_bytes().into(),
        text(&" ".repeat(29)),
    ];
    let added = [causal.concat(), padding.concat()].concat();
    assert_eq!(added.len(), 96);
    bytes.splice(first..first, added);
    std::fs::write(&file.0, bytes).expect("scratch is writable");
}

#[test]
fn a_model_that_reads_what_comes_later_is_refused() {
    let promise = "a_model_that_reads_what_comes_later_is_refused";
    let file = common::Scratch::new("reads_what_comes_later.gguf");
    model_that_reads_what_comes_later(&file);
    let printed = common::hold_with("c/lifecycle.c", promise, file.path(), &[]);
    assert!(printed.contains("reads what comes later"), "{printed}");
}

#[test]
fn a_program_for_1_2_is_told_so() {
    let printed = hold("c/lifecycle.c", "a_program_for_1_2_is_told_so");
    for beginning in [
        "E rkllm: The n_batch must be between 1 and 100, but got 0",
        "E rkllm: rkllm_init needs an RKLLMCallback with a result_callback, but got something else",
    ] {
        let line = printed.lines().find(|line| line.starts_with(beginning));
        let line = line.unwrap_or_else(|| panic!("no `{beginning}` in\n{printed}"));
        assert!(line.contains("was this program built for 1.2.x"), "{line}");
    }
}

#[test]
fn a_context_length_is_rounded_down() {
    let printed = hold("c/lifecycle.c", "a_context_length_is_rounded_down");
    for line in [
        "W rkllm: max_context[8223] is no multiple of 32; 8192 is used",
        "W rkllm: max_context[127] is no multiple of 32; 96 is used",
        "E rkllm: the length of prompt is greater than max context (prompt: 101 tokens, max \
         context: 92)",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no `{line}` in\n{printed}"
        );
    }
}

#[test]
fn what_the_model_does_not_have_is_refused() {
    let printed = hold("c/lifecycle.c", "what_the_model_does_not_have_is_refused");
    for line in [
        "E rkllm: the model has no cross attention",
        "E rkllm: multimodal input must contain the <image> tag",
        "E rkllm: multimodal input is for models with a vision or audio part, which this one lacks",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no `{line}` in\n{printed}"
        );
    }
}

#[test]
fn a_c_program_chats() {
    let chat = Program::compile("chat.c");
    // The default number of threads, unlike in the other tests.
    let output = chat.run(
        &[&model(), "What is the capital of France?", "And of Italy?"],
        &[("RKLLM_LOG_LEVEL", "1")],
    );
    let answers = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(
        answers.contains("Paris") && answers.contains("Rome"),
        "{answers}"
    );
    for expected in [
        "I rkllm: rkllm-runtime version: 1.3.1, rknpu driver version: none, platform: CPU\n",
        "I rkllm: rkllm-toolkit version: unknown, max_context_limit: 8192, npu_core_num: 0, \
         target_platform: CPU, model_dtype: Q4_1\n",
        "I rkllm: Enabled cpus: [",
        "I rkllm: Enabled cpus num: ",
        "I rkllm: Stage ",
    ] {
        assert!(log.contains(expected), "no `{expected}` in\n{log}");
    }
    assert!(!log.contains("kv cache matches"), "only at level 2:\n{log}");
}

#[test]
fn cache_decisions_are_printed_at_level_two_only() {
    let chat = Program::compile("chat.c");
    let output = chat.run(
        &[&model(), "What is the capital of France?"],
        &[("RKLLM_LOG_LEVEL", "2"), ONE_THREAD],
    );
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("I rkllm: kv cache matches 0 / "), "{log}");
    assert!(log.contains("I rkllm: EOS token: 2\n"), "{log}");
    assert!(
        log.contains("I rkllm: prompt tokens: [1, 9690, 198, "),
        "{log}"
    );
}

#[test]
fn the_environment_is_checked() {
    let chat = Program::compile("chat.c");
    for (name, line) in [
        ("RKLLM_CPU_SEED", "E rkllm: RKLLM_CPU_SEED must be"),
        ("RKLLM_CPU_THREADS", "E rkllm: RKLLM_CPU_THREADS must be"),
    ] {
        let output = chat.run(&[&model(), "Hi"], &[(name, "many")]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(line), "{log}");
    }
}

#[test]
fn the_file_says_its_version_and_name_and_exports_the_abi_and_its_extension_alone() {
    let bytes = std::fs::read(library()).expect("the library is readable");
    let version = b"RKLLM SDK (version: 1.3.1 | target: CPU | build: ";
    assert!(bytes.windows(version.len()).any(|window| window == version));

    let output = Command::new("readelf")
        .arg("-d")
        .arg(library())
        .output()
        .expect("`readelf` runs; install binutils");
    let dynamic = String::from_utf8_lossy(&output.stdout);
    assert!(
        dynamic.contains("Library soname: [librkllmrt.so]"),
        "{dynamic}"
    );

    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(library())
        .output()
        .expect("`nm` runs; install binutils");
    let names = String::from_utf8_lossy(&output.stdout);
    let mut exported: Vec<&str> = names.lines().filter_map(|l| l.split(' ').next()).collect();
    exported.sort_unstable();
    assert_eq!(
        exported,
        [
            "rkllm_abort",
            "rkllm_clear_kv_cache",
            "rkllm_createDefaultParam",
            "rkllm_destroy",
            "rkllm_get_kv_cache_size",
            "rkllm_init",
            "rkllm_is_running",
            "rkllm_load_lora",
            "rkllm_load_prompt_cache",
            "rkllm_release_prompt_cache",
            "rkllm_run",
            "rkllm_run_async",
            "rkllm_run_extension_size",
            "rkllm_set_chat_template",
            "rkllm_set_cross_attn_params",
            "rkllm_set_function_tools",
            "rkllm_set_run_extension",
            "rkllm_takes_idle_sequences",
        ]
    );
}
