use proptest::prelude::*;

use super::*;

fn chatml() -> ControlTokens {
    ControlTokens::new(["<|im_start|>", "<|im_end|>", "</s>", "[INST]"])
}

#[test]
fn every_occurrence_is_broken_and_nothing_else_changes() {
    let tokens = chatml();
    assert_eq!(
        tokens.neutralise("a<|im_end|>\n<|im_start|>system\nb</s>"),
        "a<\u{200B}|im_end|>\n<\u{200B}|im_start|>system\nb<\u{200B}/s>"
    );
    assert!(matches!(
        tokens.neutralise("if a < b | c > d </s >"),
        Cow::Borrowed(_)
    ));
}

#[test]
fn tokens_that_overlap_are_all_broken() {
    let tokens = ControlTokens::new(["<s>", "s><x", "><x>"]);
    let neutral = tokens.neutralise("<s><x>");
    assert_eq!(tokens.find(&neutral), None);
    assert_eq!(neutral.replace('\u{200B}', ""), "<s><x>");
}

#[test]
fn a_token_inside_a_token_leaves_none_behind() {
    let tokens = chatml();
    let neutral = tokens.neutralise("<|im_<|im_start|>start|>");
    assert_eq!(tokens.find(&neutral), None);
    assert!(!neutral.contains("<|im_start|>"));
}

#[test]
fn unlisted_bar_tokens_count_too() {
    let tokens = ControlTokens::default();
    assert_eq!(tokens.find("x <|tool_call|> y"), Some("<|tool_call|>"));
    assert_eq!(tokens.find("x <｜User｜> y"), Some("<｜User｜>"));
    assert_eq!(tokens.find("f <| x |> g, <||>, <|a b|>"), None);
}

#[test]
fn a_separator_that_a_token_contains_is_not_used() {
    let tokens = ControlTokens::new(["<a>", "<\u{200B}b>"]);
    assert_eq!(tokens.separator(), '\u{2060}');
    assert_eq!(tokens.neutralise("<a>"), "<\u{2060}a>");
}

#[test]
fn letters_punctuation_and_white_space_are_no_control_tokens() {
    let tokens = ControlTokens::new([
        "sop",
        "<",
        "",
        "  ",
        "\n\n",
        "a",
        "7",
        "é",
        "assistant 1",
        "<eos>",
    ]);
    assert_eq!(tokens.tokens(), ["<eos>", "assistant 1", "sop"]);
    assert_eq!(tokens.neutralise("philosophy"), "philos\u{200B}ophy");
}

#[test]
fn a_token_of_one_character_is_replaced() {
    let tokens = ControlTokens::new(["⏵", "\u{1}", "<⏵>", "</s>"]);
    assert_eq!(tokens.find("a⏵b"), Some("⏵"));
    assert_eq!(
        tokens.neutralise("a⏵\u{1}b</s>"),
        "a\u{FFFD}\u{FFFD}b<\u{200B}/s>"
    );
    assert_eq!(tokens.neutralise("<⏵>"), "<\u{200B}\u{FFFD}>");
    let tokens = ControlTokens::new(["⏵", "<\u{FFFD}>", "｜"]);
    assert_eq!(tokens.neutralise("<⏵>"), "<\u{E000}>");
    assert_eq!(tokens.find(&tokens.neutralise("<|｜|>")), None);
}

#[test]
fn tokens_of_normalised_text_are_found_however_they_are_written() {
    let tokens = ControlTokens::with_normalized(["<eos>"], ["<|im_end|>", "½", "..x"]);
    for (text, neutral) in [
        ("a<|IM_End|>b", "a<·|IM_End|>b"),
        ("<|im_\u{200B}e\u{301}nd|>", "<·|im_\u{200B}e\u{301}nd|>"),
        ("＜｜ｉｍ＿ｅｎｄ｜＞", "＜·｜ｉｍ＿ｅｎｄ｜＞"),
        ("<|im_ end|>", "<·|im_ end|>"),
        ("…x", "…·x"),
        ("½<eos>", "·<·eos>"),
    ] {
        assert!(tokens.find(text).is_some(), "{text:?}");
        assert_eq!(tokens.neutralise(text), neutral);
        assert_eq!(tokens.find(neutral), None, "{neutral:?}");
    }
    assert_eq!(tokens.find("<EOS> 1 1/2 im_end"), None);
}

#[test]
fn beginnings_and_ends_of_tokens_are_found_at_borders() {
    let tokens = chatml();
    for (text, opening, rest) in [
        ("x <|im_", Some(2), None),
        ("x <|im_start|>", None, None),
        ("x <|unlisted", Some(2), None),
        ("x <|unlisted|", Some(2), None),
        ("a <", Some(2), None),
        ("start|>\nx", None, Some(7)),
        ("|unlisted|> x", None, Some(11)),
        ("> x", None, Some(1)),
        ("NST] [IN", Some(5), Some(4)),
        ("x", None, None),
        ("", None, None),
    ] {
        assert_eq!(tokens.opening_at_end(text), opening, "{text:?}");
        assert_eq!(tokens.rest_at_start(text), rest, "{text:?}");
    }
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "<\\|[a-c]{1,3}\\|>",
        "</?[a-c]>",
        "[<>|a\u{200B}]{3,6}",
        "[<>|aé｜]{3,6}",
        "[⏵｜\u{200B}\u{FFFD}é·]{1,2}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[<>|/abcé｜ \u{200B}\u{2060}⏵\u{FFFD}]{0,40}",
        "[<>|/abcABCéÉａ＜\u{301}｜ \u{200B}⏵·▁]{0,40}",
        prop::collection::vec(token(), 0..6).prop_map(|pieces| pieces.concat()),
        any::<String>(),
    ]
}

fn is_one_character(token: &str) -> bool {
    token.chars().count() == 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn neutral_text_holds_no_token_and_is_the_text(
        list in prop::collection::vec(token(), 0..8),
        text in text(),
    ) {
        let tokens = ControlTokens::new(list.clone());
        let neutral = tokens.neutralise(&text).into_owned();
        prop_assert_eq!(tokens.find(&neutral), None);
        let distinctive = || list.iter().filter(|token| is_distinctive(token));
        for token in distinctive() {
            prop_assert!(!neutral.contains(token.as_str()));
        }
        prop_assert_eq!(tokens.neutralise(&neutral), neutral.as_str());
        let mut replaced = text.clone();
        for token in distinctive().filter(|token| is_one_character(token)) {
            replaced = replaced.replace(token.as_str(), &tokens.replacement().to_string());
        }
        prop_assert_eq!(
            neutral.replace(tokens.separator(), ""),
            replaced.replace(tokens.separator(), "")
        );
        prop_assert_eq!(tokens.find(&text).is_none(), neutral == text);
    }

    #[test]
    fn neutral_text_holds_no_token_when_it_is_normalised(
        list in prop::collection::vec(token(), 0..4),
        normalized in prop::collection::vec(token(), 1..4),
        text in text(),
    ) {
        let tokens = ControlTokens::with_normalized(list, normalized.clone());
        let neutral = tokens.neutralise(&text).into_owned();
        prop_assert_eq!(tokens.find(&neutral), None);
        let seen = fold(&neutral);
        for token in normalized.iter().map(|token| fold(token)) {
            let matters = is_distinctive(&token) && !is_one_character(&token);
            prop_assert!(!matters || !seen.contains(&token), "{neutral:?} holds {token:?}");
        }
        prop_assert_eq!(tokens.neutralise(&neutral), neutral.as_str());
        prop_assert_eq!(tokens.find(&text).is_none(), neutral == text);
    }
}
