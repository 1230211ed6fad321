use super::*;

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
        // Literals.
        (r#"{{ "}} \"\t\u00e4" }}{{ `\n"` }}"#, "}} \"\tä\\n\""),
        (
            "{{ 7 }} {{ -0x10 }} {{ 1.50 }} {{ 1e21 }} {{ 'a' }} {{ true }}",
            "7 -16 1.5 1e+21 97 true",
        ),
        // Conditions.
        (
            "{{ if and .System .Prompt }}a{{ end }}{{ if or .Suffix .Prompt }}b{{ end }}",
            "ab",
        ),
        (
            "{{ if not .Suffix }}a{{ end }}{{ if and .Suffix (index .Prompt 9) }}b{{ end }}",
            "a",
        ),
        ("{{ or .Suffix .Prompt }}{{ and .Prompt .System }}", "ps"),
        (
            r#"{{ if eq .Prompt "x" "p" }}a{{ end }}{{ if ne 1 2 }}b{{ end }}"#,
            "ab",
        ),
        (
            "{{ lt 1 2 }} {{ le 2 2 }} {{ gt 1.5 2.5 }} {{ ge \"b\" \"a\" }}",
            "true true false true",
        ),
        (
            "{{ if eq .Nothing nil }}a{{ end }}{{ if .Nothing }}b{{ else }}c{{ end }}",
            "ac",
        ),
        // Values put together.
        (
            "{{ len .Prompt }}{{ .Prompt | len }}{{ (len (printf \"%s%s\" .Prompt .System)) }}",
            "112",
        ),
        (
            r#"{{ slice "abcd" 1 3 }}{{ slice "abcd" 2 }}{{ index "abc" 1 }}"#,
            "bccd98",
        ),
        (
            r#"{{ print 1 2 "a" "b" 3 }}|{{ println "a" 1 }}|"#,
            "1 2ab3|a 1\n|",
        ),
        (
            r#"{{ printf "%05d|%-3s|%+d|%.2f|%q|%v|%t|%3s|%%" 42 "a" 1 1.5 "a\"b" "v" true "b" }}"#,
            "00042|a  |+1|1.50|\"a\\\"b\"|v|true|  b|%",
        ),
        (r#"{{ .Prompt | printf "%s-%s" "a" }}"#, "a-p"),
        (r#"{{ json "a<b>&\n" }}"#, r#""a\u003cb\u003e\u0026\n""#),
        (
            "{{ currentDate }} {{ yesterdayDate }}",
            "2025-03-01 2025-02-28",
        ),
        // Variables and blocks.
        (
            "{{ $a := 1 }}{{ if true }}{{ $a = 2 }}{{ $b := 3 }}{{ $b }}{{ end }}{{ $a }}",
            "32",
        ),
        (
            "{{ $a := 1 }}{{ if true }}{{ $a := 2 }}{{ $a }}{{ end }}{{ $a }}",
            "21",
        ),
        ("{{ if $x := .Prompt }}{{ $x }}{{ else }}no{{ end }}", "p"),
        (
            "{{ with .Prompt }}{{ . }}{{ $.System }}{{ end }}{{ .System }}",
            "pss",
        ),
        ("{{ with .Suffix }}no{{ else }}{{ .Prompt }}{{ end }}", "p"),
        (
            "{{ with .Suffix }}no{{ else with .System }}{{ . }}{{ end }}{{ .Prompt }}",
            "sp",
        ),
        ("{{ with $x := .Prompt }}{{ $x }}{{ . }}{{ end }}", "pp"),
        (
            "{{ range 3 }}{{ . }}{{ end }}{{ range $i, $n := 2 }}{{ $i }}{{ $n }}{{ end }}",
            "0120011",
        ),
        (
            "{{ range 5 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ if eq . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}{{ .Prompt }}",
            "02p",
        ),
        (
            "{{ range 3 }}{{ with . }}{{ if eq . 2 }}{{ break }}{{ end }}{{ continue }}{{ end }}z{{ end }}{{ .Prompt }}",
            "zp",
        ),
        (
            "{{ range 2 }}{{ range 2 }}{{ . }}{{ else }}no{{ end }}{{ else }}no{{ end }}",
            "0101",
        ),
        ("{{ range 0 }}no{{ else }}{{ .Prompt }}{{ end }}", "p"),
        // Bodies that are called by name.
        (
            r#"{{ define "b" }}[{{ . }}{{ $ }}]{{ end }}{{ template "b" .Prompt }}{{ template "b" 1 }}"#,
            "[pp][11]",
        ),
        (
            r#"{{ $a := 1 }}{{ block "b" .System }}<{{ . }}>{{ end }}{{ $a }}"#,
            "<s>1",
        ),
        (
            r#"{{ define "b" }}{{ if . }}{{ . }}{{ template "b" (slice . 1) }}{{ end }}{{ end }}{{ template "b" "abc" }}"#,
            "abcbcc",
        ),
    ] {
        let source = format!("{source}{{{{ if .Suffix }}}}{{{{ .Response }}}}{{{{ end }}}}");
        assert_eq!(written(&source, &turn(), false), expected, "{source}");
    }
}

#[test]
fn an_answer_stands_where_the_template_has_it_or_at_the_end() {
    let answered = |response: &str| TurnTexts {
        system: String::new(),
        response: response.to_owned(),
        ..turn()
    };
    let values = answered("r");
    let source = "<{{ .Prompt }}>{{ .Response }}</>";
    assert_eq!(written(source, &values, true), "<p>r");
    assert_eq!(written(source, &values, false), "<p>r</>");
    assert_eq!(written("<{{ .Prompt }}>", &values, true), "<p>r");
    assert_eq!(written("<{{ .Prompt }}>", &values, false), "<p>r");
    // What would stand behind it is not written, whether or not there is one yet.
    let source = "<{{ .Prompt }}>{{ if .Response }}{{ .Response }}</>{{ end }}!";
    assert_eq!(written(source, &values, true), "<p>r");
    assert_eq!(written(source, &values, false), "<p>r</>!");
    assert_eq!(written(source, &answered(""), true), "<p>");
    let source = "{{ if .System }}{{ .Response }}x{{ else }}<{{ .Prompt }}>{{ end }}!";
    assert_eq!(written(source, &answered(""), true), "<p>!");
}

#[test]
fn a_conversation_is_told_by_the_names_that_ollama_has() {
    for (source, expected) in [
        ("{{ .System }}:{{ len .Messages }}", "kind:5"),
        (
            "{{ range $i, $_ := .Messages }}{{ $i }}{{ .Role }}={{ .Content }};{{ end }}",
            "0system=kind;1user=add\n\nup;2assistant=;3tool=3;4user=and?;",
        ),
        (
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if $last }}{{ .Content }}{{ end }}{{ end }}",
            "and?",
        ),
        (
            "{{ (index .Messages 3).ToolName }}{{ (index .Messages 2).Thinking }}",
            "sumhm",
        ),
        (
            "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Name }} {{ .Function.Arguments }}{{ end }}{{ end }}",
            r#"c1 sum {"b":2,"a":"\u003c1\u003e","c":[true,null,1.5]}"#,
        ),
        (
            "{{ range .Messages }}{{ range .ToolCalls }}{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }}{{ end }}{{ end }}",
            "a=<1>;b=2;c=[true <nil> 1.5];",
        ),
        (
            "{{ if .Messages }}{{ range .Tools }}{{ .Function }}{{ end }}{{ end }}",
            r#"{"name":"sum","description":"adds","parameters":{"type":"object","required":["a"],"properties":{"b":{"type":"integer"},"a":{"type":["string","null"],"description":"one","enum":["x","y"]}}}}"#,
        ),
        (
            "{{ if .Messages }}{{ .Prompt }}{{ .Response }}{{ .Suffix }}{{ end }}.",
            ".",
        ),
    ] {
        assert_eq!(of_messages(source).as_deref(), Ok(expected), "{source}");
    }
    let tools = "{{ if .Messages }}{{ .Tools }}{{ end }}";
    let json = "{{ if .Messages }}{{ json .Tools }}{{ end }}";
    assert_eq!(of_messages(tools), of_messages(json));
    let of_types = "{{ if .Messages }}{{ range .Tools }}{{ range $k, $v := .Function.Parameters.Properties }}\
        {{ $k }}:{{ toTypeScriptType $v }};{{ end }}{{ .Function.Parameters.Required }}{{ end }}{{ end }}";
    assert_eq!(
        of_messages(of_types).as_deref(),
        Ok("a:string | null;b:number;[a]")
    );
    // A property's types are a list, and one alone is written as it is.
    let of_list = "{{ if .Messages }}{{ range .Tools }}{{ range $k, $v := .Function.Parameters.Properties }}\
        {{ $k }}:{{ if gt (len $v.Type) 1 }}{{ range $i, $t := $v.Type }}{{ if $i }} | {{ end }}{{ $t }}{{ end }}\
        {{ else }}{{ index $v.Type 0 }}={{ $v.Type }}{{ end }};{{ end }}{{ end }}{{ end }}";
    assert_eq!(
        of_messages(of_list).as_deref(),
        Ok("a:string | null;b:integer=integer;")
    );
    let of_properties = "{{ if .Messages }}{{ range .Tools }}{{ .Function.Parameters.Properties }}{{ end }}{{ end }}";
    assert_eq!(
        of_messages(of_properties).as_deref(),
        Ok(
            r#"{"b":{"type":"integer"},"a":{"type":["string","null"],"description":"one","enum":["x","y"]}}"#
        )
    );
}

#[test]
fn whatever_else_there_is_is_refused_with_its_place() {
    for (source, place) in [
        ("a\nbä{{ range .Messages }}", "line 2, column 3"),
        ("{{ call .Tools }}", "line 1, column 1"),
        ("{{ .Tools html }}", "line 1, column 1"),
        ("{{ urlquery .Prompt }}", "line 1, column 1"),
        ("{{ if .System }}", "line 1, column 1"),
        ("\n{{ end }}", "line 2, column 1"),
        ("{{ else }}", "line 1, column 1"),
        (
            "{{ if .System }}{{ else }}{{ else }}{{ end }}",
            "line 1, column 27",
        ),
        ("{{ if .System }}{{ else x }}{{ end }}", "line 1, column 17"),
        (
            "{{ if .System }}{{ else with . }}{{ end }}",
            "line 1, column 17",
        ),
        ("{{ if }}{{ end }}", "line 1, column 1"),
        ("{{ if .System }}{{ end x }}", "line 1, column 17"),
        ("{{ .Prompt", "line 1, column 1"),
        ("{{ \"a }}", "line 1, column 1"),
        ("{{}}", "line 1, column 1"),
        ("{{ - }}", "line 1, column 1"),
        ("a {{-.Prompt }}", "line 1, column 3"),
        ("a {{ .Prompt-}}", "line 1, column 3"),
        ("{{- -}}", "line 1, column 1"),
        ("{{/* a */ b }}", "line 1, column 1"),
        ("{{/* a }}", "line 1, column 1"),
        ("{{ .Prompt | .System }}", "line 1, column 1"),
        ("{{ .Prompt | }}", "line 1, column 1"),
        ("{{ .Prompt .System }}", "line 1, column 1"),
        ("{{ len(.Prompt) }}", "line 1, column 1"),
        ("{{ (len .Prompt }}", "line 1, column 1"),
        ("{{ len .Prompt) }}", "line 1, column 1"),
        ("{{ $x }}", "line 1, column 1"),
        ("{{ $x = 1 }}", "line 1, column 1"),
        (
            "{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}",
            "line 1, column 36",
        ),
        ("{{ $x := $x }}", "line 1, column 1"),
        // A branch does not know what the other one has made.
        (
            "{{ if true }}{{ $x := 1 }}{{ else }}{{ $x }}{{ end }}",
            "line 1, column 37",
        ),
        ("{{ break }}", "line 1, column 1"),
        ("{{ range 1 }}{{ end }}{{ continue }}", "line 1, column 23"),
        (
            "{{ range 1 }}{{ else }}{{ break }}{{ end }}",
            "line 1, column 24",
        ),
        ("{{ template \"x\" }}", "line 1, column 1"),
        (
            "{{ if true }}{{ define \"x\" }}{{ end }}{{ end }}",
            "line 1, column 14",
        ),
        ("{{ define \"x\" }}", "line 1, column 1"),
        ("{{ define x }}{{ end }}", "line 1, column 1"),
        ("{{ 1_000x }}", "line 1, column 1"),
        ("{{ \"\\q\" }}", "line 1, column 1"),
        ("{{ \"\\x00\" }}", "line 1, column 1"),
        ("{{ 99999999999999999999 }}", "line 1, column 1"),
        ("{{ a.b }}", "line 1, column 1"),
        ("{{ # }}", "line 1, column 1"),
    ] {
        let error = GoTemplate::parse(source).expect_err(source).to_string();
        let place = format!("{place}: ");
        assert!(error.starts_with(&place), "{source}: {error}");
        assert!(error.chars().count() < 400, "{error}");
    }
    let long = format!("{{{{ {} }}}}", "x".repeat(10_000));
    let error = GoTemplate::parse(&long).expect_err("no name").to_string();
    assert!(error.chars().count() < 400, "{error}");
}

#[test]
fn what_cannot_be_done_is_refused_with_its_place() {
    for source in [
        "{{ .Nothing }}",
        "{{ .Prompt.More }}",
        "{{ .Nothing.More }}",
        "{{ index .Prompt 1 }}",
        "{{ index .Prompt \"a\" }}",
        "{{ slice .Prompt 2 }}",
        "{{ slice .Prompt 1 0 }}",
        "{{ slice .Prompt -1 }}",
        "{{ slice \"ä\" 1 }}",
        "{{ len 7 }}",
        "{{ len }}",
        "{{ eq 1 \"1\" }}",
        "{{ eq 1 1.0 }}",
        "{{ eq 1 }}",
        "{{ lt true false }}",
        "{{ printf 7 }}",
        "{{ printf \"%d\" \"a\" }}",
        "{{ printf \"%d\" }}",
        "{{ printf \"a\" 1 }}",
        "{{ printf \"%\" }}",
        "{{ printf \"%y\" 1 }}",
        "{{ range .Prompt }}{{ end }}",
        "{{ range . }}{{ end }}",
        "{{ . }}",
        "{{ not }}",
    ] {
        let template = GoTemplate::parse(&format!("a\n{source}")).expect(source);
        match run(&template, of_turn(&turn(), &nothing()), false) {
            Err(RunError::Failed(error)) => {
                let error = error.to_string();
                assert!(error.starts_with("line 2, column 1: "), "{source}: {error}");
            }
            other => panic!("{source}: {other:?}"),
        }
    }
    let of_a_message = of_messages("{{ range .Messages }}{{ .Nothing }}{{ end }}");
    assert!(
        matches!(of_a_message, Err(RunError::Failed(_))),
        "{of_a_message:?}"
    );
}

/// Of each text it is known which bytes the template wrote.
#[test]
fn a_text_is_the_templates_as_far_as_it_wrote_it() {
    for (source, expected) in [
        ("<a>{{ .Prompt }}<b>", "<a>·<b>"),
        (r#"{{ "<a>" }}{{ .Prompt }}"#, "<a>·"),
        (r#"{{ $x := "<a>" }}{{ .Prompt }}{{ $x }}"#, "·<a>"),
        (r#"{{ printf "<%s|%s>" .Prompt "b" }}"#, "<·|b>"),
        (r#"{{ slice (printf "<%s>" .Prompt) 1 }}"#, "·>"),
        (r#"{{ print "<" .Prompt ">" }}"#, "<·>"),
        (
            r#"{{ json "<" }}{{ printf "%q" "b" }}{{ printf "%c" 60 }}{{ 7 }}"#,
            "·············",
        ),
        (r#"{{ printf "%4s" "b" }}"#, "···b"),
    ] {
        let template = GoTemplate::parse(source).expect(source);
        let written = run(&template, of_turn(&turn(), &nothing()), false).expect(source);
        let shown: String = written
            .text
            .char_indices()
            .map(
                |(at, c)| match written.own.iter().any(|own| own.contains(&at)) {
                    true => c,
                    false => '·',
                },
            )
            .collect();
        assert_eq!(shown, expected, "{source}: {}", written.text);
    }
}
