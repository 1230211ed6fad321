use std::convert::Infallible;

use super::*;

struct Text(String);

impl Writes for Text {
    type Error = Infallible;

    fn own(&mut self, text: &str) -> Result<(), Infallible> {
        self.0.push_str(text);
        Ok(())
    }

    fn value(&mut self, text: &str) -> Result<(), Infallible> {
        self.own(text)
    }
}

fn values(system: &str, prompt: &str, response: &str) -> Values {
    Values {
        system: system.to_owned(),
        prompt: prompt.to_owned(),
        response: response.to_owned(),
        suffix: String::new(),
    }
}

fn written(source: &str, values: &Values, ends_with_response: bool) -> String {
    let template = GoTemplate::parse(source).expect(source);
    let mut text = Text(String::new());
    let Ok(()) = template.write(values, ends_with_response, &mut text);
    text.0
}

#[test]
fn what_is_known_is_written_as_go_writes_it() {
    for (source, expected) in [
        ("", ""),
        ("{{ .Prompt }}", "p"),
        ("{{.Prompt}}|{{ $.System }}", "p|s"),
        ("a \n {{- .Prompt -}} \n b", "apb"),
        ("a {{/* no\n}} {{ */}} b", "a  b"),
        ("a {{- /* no */ -}} b", "ab"),
        (
            "{{ if .System }}[{{ .System }}]{{ end }}{{ .Prompt }}",
            "[s]p",
        ),
        ("{{ if .Suffix }}no{{ end }}yes", "yes"),
        ("{{ if .Suffix }}no{{ else }}yes{{ end }}.", "yes."),
        (
            "{{ if .Suffix }}no{{ else if .Prompt }}{{ if .System }}in{{ else }}no{{ end }}{{ else }}no{{ end }}.",
            "in.",
        ),
        ("{ { .Prompt } } }}", "{ { .Prompt } } }}"),
        ("ä\u{a0}{{- .Prompt }}", "ä\u{a0}p"),
    ] {
        let source = format!("{source}{{{{ if .Suffix }}}}{{{{ .Response }}}}{{{{ end }}}}");
        assert_eq!(
            written(&source, &values("s", "p", ""), false),
            expected,
            "{source}"
        );
    }
}

#[test]
fn an_answer_stands_where_the_template_has_it_or_at_the_end() {
    let values = values("", "p", "r");
    let source = "<{{ .Prompt }}>{{ .Response }}</>";
    assert_eq!(written(source, &values, true), "<p>r");
    assert_eq!(written(source, &values, false), "<p>r</>");
    assert_eq!(written("<{{ .Prompt }}>", &values, true), "<p>r");
    assert_eq!(written("<{{ .Prompt }}>", &values, false), "<p>r");
}

#[test]
fn whatever_else_there_is_is_refused_with_its_place() {
    for (source, place) in [
        ("a\nbä{{ range .Messages }}{{ end }}", "line 2, column 3"),
        ("{{ .Tools }}", "line 1, column 1"),
        ("{{ if and .System .Prompt }}{{ end }}", "line 1, column 1"),
        ("{{ if .System }}", "line 1, column 1"),
        ("\n{{ end }}", "line 2, column 1"),
        ("{{ else }}", "line 1, column 1"),
        (
            "{{ if .System }}{{ else }}{{ else }}{{ end }}",
            "line 1, column 27",
        ),
        ("{{ if .System }}{{ else x }}{{ end }}", "line 1, column 17"),
        ("{{ .Prompt", "line 1, column 1"),
        ("{{}}", "line 1, column 1"),
        ("{{ - }}", "line 1, column 1"),
        ("a {{-.Prompt }}", "line 1, column 3"),
        ("a {{ .Prompt-}}", "line 1, column 3"),
        ("{{- -}}", "line 1, column 1"),
        ("{{/* a */ b }}", "line 1, column 1"),
        ("{{/* a }}", "line 1, column 1"),
        ("{{ .Prompt | len }}", "line 1, column 1"),
        ("{{ \"a\" }}", "line 1, column 1"),
        ("{{ .Prompt.More }}", "line 1, column 1"),
    ] {
        let error = GoTemplate::parse(source).expect_err(source).to_string();
        assert!(error.starts_with(place), "{source}: {error}");
        assert!(error.chars().count() < 300, "{error}");
    }
    let long = format!("{{{{ {} }}}}", "x".repeat(10_000));
    let error = GoTemplate::parse(&long).expect_err("no name").to_string();
    assert!(error.len() < 300, "{error}");
}

/// Each part is looked at once, however deep it lies.
#[test]
fn depth_and_length_cost_no_stack() {
    let depth = 100_000;
    let source = "{{ if .Prompt }}".repeat(depth) + "x" + &"{{ else }}y{{ end }}".repeat(depth);
    assert_eq!(written(&source, &values("", "p", ""), false), "x");
    let template = GoTemplate::parse(&source).expect("a template");
    assert!(template.steps.len() < 4 * depth + 3);
}
