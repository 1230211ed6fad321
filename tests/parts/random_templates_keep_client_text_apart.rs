//! Of random templates that do to a client's texts whatever templates can, none makes a control token of them;
//! and what is no control token comes out as if none had been looked for.

use jiff::civil::DateTime;
use proptest::prelude::*;
use rkllmd::prompt::{ChatMessage, ChatRole, PromptEnd, RenderRequest};
use serde_json::json;

use super::tokens_apart_support::{TOKENS, assert_apart, compiled, tokens_in};

/// Texts of a client: C the content, N the name, V a variable, T and D of tools and documents.
const TEXTS: [&str; 6] = ["C", "N", "V", "T", "D", "(C ~ N)"];

/// What a template may do to a text X.
const DEEDS: [&str; 32] = [
    "X",
    "X|trim",
    "X.replace('/think', '')",
    "X|replace('x', '')",
    "X.split('x')|join('')",
    "X.split()|join",
    "X.split('</think>')[-1]",
    "X.partition('x')|join('')",
    "X|list|join",
    "[X]|string",
    "X|truncate(6)",
    "X|upper",
    "X.lower()",
    "X|title",
    "X.capitalize()",
    "X[::-1]",
    "X|reverse",
    "X[:1] ~ X[1:]",
    "X[:3] ~ X[-3:]",
    "X|list|sort|join",
    "X|list|unique|join",
    "X|tojson",
    "[X, X]|tojson(ensure_ascii=true)",
    "{'k': X}|tojson(indent=1)",
    "'%s%s'|format(X, X)",
    "'{}{}'.format(X, X)",
    "X.strip('<|x')",
    "X|batch(2)|map('join')|join",
    "X.removeprefix('<').removesuffix('>')",
    "(X.split('s')|last) ~ (X|list|first)",
    "X|default('')|string",
    "X if X == '<s>' else X|string",
];

/// What stands between: the template's own text, and how many tokens are in it. Beginnings of tokens
/// and ends of them are never in one template: where the client's text is empty, they would be a
/// token of the template's own.
const OPENINGS: [(&str, usize); 9] = [
    ("<", 0),
    ("<|", 0),
    ("[INST", 0),
    ("<|im_", 0),
    ("{{ '<' }}", 0),
    ("<|im_start|>", 1),
    ("{{ '<|' ~ messages[0].role ~ '|>' }}", 1),
    ("{{ eos_token }}x", 1),
    ("{{ '\\u23f5' }}", 1),
];

const CLOSINGS: [(&str, usize); 9] = [
    ("", 0),
    ("|>", 0),
    (">", 0),
    ("/s>", 0),
    ("{{ '|' ~ '>' }}", 0),
    ("<|im_end|>", 1),
    ("{{ '<|' + messages[0]['role']|upper + '|>' }}", 1),
    ("\n[INST] ", 1),
    ("⏵", 1),
];

fn template() -> impl Strategy<Value = (String, usize)> {
    prop_oneof![template_with(&OPENINGS), template_with(&CLOSINGS)]
}

fn template_with(
    between: &'static [(&'static str, usize)],
) -> impl Strategy<Value = (String, usize)> {
    let part = (
        prop::sample::select(&TEXTS[..]),
        prop::collection::vec(prop::sample::select(&DEEDS[..]), 1..3),
        prop::sample::select(between),
    );
    prop::collection::vec(part, 1..5).prop_map(|parts| {
        let mut source = String::from(
            "{% set C = messages[-1].content %}{% set N = messages[-1].name|default('') %}\
             {% set T = tools[0].function.name %}{% set D = documents[0].text %}",
        );
        let mut own = 0;
        for (text, deeds, (between, tokens)) in parts {
            let expression = deeds.iter().fold(text.to_owned(), |inner, deed| {
                deed.replace('X', &format!("({inner})"))
            });
            source.push_str(&format!("{{{{ {expression} }}}}{between}"));
            own += tokens;
        }
        (source, own)
    })
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(&TOKENS[..]).prop_map(str::to_owned),
        prop::sample::select(vec![
            "<",
            "|",
            ">",
            "<|",
            "|>",
            "/think",
            "</think>",
            "x",
            "s",
            "/s>",
            "<SPECIAL_",
            "10>",
            "INST]",
            "\\u003cs>",
            "user",
            "<|IM_END|>",
            "<S>",
            " ",
            "\n",
            "｜",
            "&#x100000;&#1048577;",
            "\u{100000}\u{100003}",
            "\u{200B}",
            "⏵",
            "\u{FFFD}",
        ])
        .prop_map(str::to_owned),
        "[<>|/s\\[\\]x]{1,4}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn request(texts: [String; 5], end: PromptEnd) -> RenderRequest {
    let [content, name, variable, tool, document] = texts;
    let mut message = ChatMessage::new(ChatRole::User, content);
    message.name = Some(name);
    let mut request = RenderRequest::new(vec![message], DateTime::ZERO);
    request.variables.insert("V".into(), variable.into());
    request.tools = Some(json!([{"type": "function", "function": {"name": tool}}]));
    request.documents = Some(json!([{"text": document}]));
    request.end = end;
    request
}

fn texts() -> impl Strategy<Value = [String; 5]> {
    [hostile(), hostile(), hostile(), hostile(), hostile()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn no_token_holds_a_character_of_a_client(
        (source, own) in template(),
        texts in texts(),
        end in prop::sample::select(vec![PromptEnd::Answer, PromptEnd::Continuation]),
    ) {
        let template = compiled(&source, &TOKENS);
        let rendered = template.render(&request(texts, end));
        if end == PromptEnd::Answer {
            prop_assert!(rendered.is_ok(), "{source}: {rendered:?}");
        }
        if let Ok(rendered) = rendered {
            assert_apart(&rendered);
            let found = tokens_in(&rendered.prompt).len();
            match end {
                PromptEnd::Continuation => prop_assert!(found <= own, "{source}: {rendered:?}"),
                _ => prop_assert_eq!(found, own, "{}: {:?}", source, rendered),
            }
        }
    }

    #[test]
    fn everything_else_comes_out_as_if_no_token_were_known(
        (source, _) in template(),
        texts in texts(),
    ) {
        let request = request(texts, PromptEnd::Answer);
        let shown = |tokens: &[&str]| {
            compiled(&source, tokens)
                .render(&request)
                .map(|rendered| rendered.prompt.replace('\u{200B}', "").replace('⏵', "\u{FFFD}"))
        };
        prop_assert_eq!(shown(&TOKENS).ok(), shown(&[]).ok(), "{}", source);
    }
}
