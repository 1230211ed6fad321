use std::fmt::Write as _;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// Blocks take no stack, however deep they lie.
#[test]
fn depth_and_length_cost_no_stack() {
    let depth = 30_000;
    let source = "{{ if .Prompt }}".repeat(depth) + "x" + &"{{ else }}y{{ end }}".repeat(depth);
    assert_eq!(written(&source, &turn(), false), "x");
    let template = GoTemplate::parse(&source).expect("a template");
    assert!(template.program.steps.len() < 4 * depth + 3);
    let withs = "{{ with .Prompt }}{{ with $ }}".repeat(10_000) + "x" + &"{{ end }}".repeat(20_000);
    assert_eq!(written(&withs, &turn(), false), "x");
}

/// What leaves a loop costs the same however deep it lies in it.
#[test]
fn loops_are_left_from_any_depth() {
    let depth = 20_000;
    let source = "{{ range 1 }}{{ with 1 }}".to_owned()
        + &"{{ if true }}".repeat(depth)
        + &"{{ break }}".repeat(depth)
        + &"{{ end }}".repeat(depth + 2)
        + "{{ .Prompt }}";
    assert_eq!(written(&source, &turn(), false), "p");
}

#[test]
fn words_are_so_many() {
    let few = "{{ 1 }}".repeat(1000);
    assert!(GoTemplate::parse(&few).is_ok());
    for source in [
        "{{ 1 }}".repeat(1 << 17) + "{{ 1 }}",
        "{{/**/}}".repeat((1 << 18) + 1),
        format!("{{{{ print {}}}}}", "1 ".repeat(1 << 18)),
    ] {
        let error = GoTemplate::parse(&source).expect_err("too much");
        assert!(error.to_string().contains("more words"), "{error}");
    }
}

/// What is known of a text in pieces takes more than they do.
#[test]
fn texts_in_pieces_take_more() {
    let ended = |text: &str| {
        let source = format!("{{{{ $x := {text} }}}}") + &"{{ $x = print $x $x }}".repeat(11);
        let template = GoTemplate::parse(&source).expect("a template");
        let mut budget = Budget {
            bytes: 1 << 15,
            ..budget()
        };
        let (root, today) = (of_turn(&turn(), &nothing()), nothing().now.date());
        let mut written = Written::within(1 << 16);
        template.write(root, false, today, &mut budget, &mut written)
    };
    assert_eq!(ended("\"ap\""), Ok(()));
    assert_eq!(ended("print \"a\" .Prompt"), Err(RunError::TooMuch));
}

/// A long name in a map is not made anew each time that a loop goes through it.
#[test]
fn loops_through_maps_cost_what_their_names_do() {
    let mut asked = conversation();
    let arguments = json!({ ("n".repeat(1_000_000)): 1, "m": 2 });
    let call = json!([{"function": {"name": "f", "arguments": arguments}}]);
    asked.messages[3].more.insert("tool_calls".to_owned(), call);
    let source = "{{ range .Messages }}{{ range .ToolCalls }}{{ $all := .Function.Arguments }}{{ range 1000000 }}\
        {{ range $all }}{{ end }}{{ end }}{{ end }}{{ end }}";
    let template = GoTemplate::parse(source).expect("a template");
    let begun = Instant::now();
    let ended = run(&template, of_conversation(&asked), false);
    assert_eq!(ended.err(), Some(RunError::TooMuch));
    assert!(begun.elapsed().as_secs() < 20);
}

#[test]
fn brackets_and_variables_are_few() {
    let brackets = |depth: usize| format!("{{{{ {}1{} }}}}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(written(&brackets(50), &turn(), false), "1");
    for source in [
        brackets(51),
        brackets(1_000_000),
        (0..2_000).fold(String::new(), |mut source, nth| {
            let _ = write!(source, "{{{{ $v{nth} := 1 }}}}");
            source
        }),
    ] {
        let error = GoTemplate::parse(&source)
            .expect_err("too much")
            .to_string();
        let is_told = error.contains("more than") || error.contains("more words than");
        assert!(is_told, "{error}");
    }
}

#[test]
fn what_a_template_takes_is_bounded_whatever_it_does() {
    let doubled = "{{ $x := \"0123456789\" }}".to_owned() + &"{{ $x = print $x $x }}".repeat(60);
    let kept = "{{ range 1000000000 }}{{ $x := printf \"%1000s\" \"a\" }}{{ end }}".to_owned();
    for source in [
        "{{ range 9223372036854775807 }}{{ end }}".to_owned(),
        "{{ range 1000000000 }}x{{ end }}".to_owned(),
        "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}".to_owned(),
        "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}".to_owned(),
        "{{ define \"a\" }}{{ template \"b\" . }}{{ template \"b\" . }}{{ end }}{{ define \"b\" }}{{ template \"a\" . }}{{ end }}\
         {{ template \"a\" . }}"
            .to_owned(),
        "{{ printf \"%99999999999999999999s\" \"a\" }}".to_owned(),
        "{{ printf \"%1001d\" 1 }}".to_owned(),
        "{{ range 1000000 }}{{ json $ }}{{ end }}".to_owned(),
        "{{ range 1000000 }}{{ if eq $.Prompt $.System }}{{ end }}{{ end }}".to_owned(),
        doubled,
        kept,
    ] {
        let template = GoTemplate::parse(&source).expect(&source);
        let long = "long ".repeat(10_000);
        let turn = TurnTexts {
            system: long.clone(),
            prompt: long,
            ..TurnTexts::default()
        };
        let begun = Instant::now();
        let ended = run(&template, of_turn(&turn, &nothing()), false);
        assert!(matches!(ended, Err(RunError::TooMuch)), "{source}: {ended:?}");
        // A thousand times what it takes.
        assert!(begun.elapsed().as_secs() < 60, "{source}");
    }
}

/// Pieces that templates are made of, in any order.
const PIECES: [&str; 44] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    " ",
    "\n",
    "if",
    "else",
    "end",
    "range",
    "with",
    "define",
    "block",
    "template",
    "break",
    "continue",
    ".",
    ".Prompt",
    ".Messages",
    ".Role",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "\"a\"",
    "\"%d%s%q\"",
    "`b`",
    "1",
    "-1",
    "0.5",
    "nil",
    "true",
    "printf",
    "slice",
    "index",
    "len",
    "eq",
    "and",
    "json",
    "ä",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A template of any pieces is refused, or written within its bounds, with its own text as such.
    #[test]
    fn a_random_template_harms_nothing(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        let source: Vec<&str> = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        check(&source.join(" "));
        check(&source.concat());
    }

    #[test]
    fn actions_of_random_words_harm_nothing(
        actions in prop::collection::vec(prop::collection::vec(6..PIECES.len(), 1..7), 1..12),
    ) {
        let actions = actions.into_iter().map(|words| {
            let words: Vec<&str> = words.into_iter().map(|word| PIECES[word]).collect();
            format!("{{{{ {} }}}}", words.join(" "))
        });
        check(&actions.collect::<String>());
    }

    #[test]
    fn a_random_text_harms_nothing(source in "[{}\\-a-z$.()|:=\"`'0-9 \\\\%ä\n]{0,80}") {
        check(&source);
        check(&format!("{{{{ {source} }}}}"));
    }
}

fn check(source: &str) {
    let Ok(template) = GoTemplate::parse(source) else {
        return;
    };
    let root = match template.knows_messages() {
        true => of_conversation(&conversation()),
        false => of_turn(&turn(), &nothing()),
    };
    let mut written = Written::within(10_000);
    let mut budget = Budget {
        steps: 10_000,
        bytes: 100_000,
    };
    let today = nothing().now.date();
    let _ = template.write(root, true, today, &mut budget, &mut written);
    assert!(written.text.len() <= 10_000);
    let mut last = 0;
    for own in &written.own {
        assert!(last <= own.start && own.start < own.end, "{source}");
        assert!(written.text.get(own.clone()).is_some(), "{source}");
        last = own.end;
    }
}
