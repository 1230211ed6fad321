use super::*;
use crate::prompt::environment::{self, RenderLimits};

fn evaluated(expression: &str) -> String {
    let twins = Arc::new(Twins::new(["<end>"]).unwrap());
    let source = expression
        .replace("OWN", &twins.write("<end>"))
        .replace("HALF", &twins.write("<en"));
    let env = environment::environment(&format!("{{{{ {source} }}}}"), &twins).unwrap();
    let written = environment::render(&env, Value::from(()), 0, RenderLimits::default()).unwrap();
    twins.plain(&written).into_owned()
}

#[test]
fn methods_do_what_pythons_do() {
    for (expression, expected) in [
        ("'a.b.c'.rsplit('.', 1) | join('|')", "a.b|c"),
        ("'a.b.c'.rsplit('.') | join('|')", "a|b|c"),
        ("'a.b.c'.split('.', 1) | join('|')", "a|b.c"),
        ("'a.b.c'.split('.', maxsplit=1) | join('|')", "a|b.c"),
        ("' a  b\\x1fc '.split() | join('|')", "a|b|c"),
        ("' a  b c '.split(none, 1) | join('|')", "a|b c "),
        ("' a  b c '.rsplit(none, 1) | join('|')", " a  b|c"),
        ("'a.b.c'.partition('.') | join('|')", "a|.|b.c"),
        ("'a.b.c'.rpartition('.') | join('|')", "a.b|.|c"),
        ("'abc'.partition('.') | join('|')", "abc||"),
        ("'abc'.removeprefix('a').removesuffix('c')", "b"),
        ("' a '.strip() + 'x'.upper()", "aX"),
        (
            "'xaxbx'.strip('x') ~ 'xax'.lstrip('x') ~ 'xax'.rstrip('x')",
            "axbaxxa",
        ),
        ("'a</think>b'.split('</think>')[-1]", "b"),
        (
            "'aaa'.replace('a', 'b', 2) ~ 'aa'|replace('a', 'c')",
            "bbacc",
        ),
        ("'ab'.replace('', '-')", "-a-b-"),
        (
            "'héllo'.find('l') ~ 'x'.find('y') ~ 'aXa'.rfind('a') ~ 'aXa'.count('a')",
            "2-122",
        ),
        (
            "'ab'.startswith(('x', 'a')) ~ 'ab'.endswith('b')",
            "TrueTrue",
        ),
        (
            "\"they're BILL\".title() ~ 'aBC'.capitalize() ~ 'aBC'|capitalize",
            "They'Re BillAbcAbc",
        ),
        ("'%s-%d'|format('a', 2) ~ '{}{}'.format(1, 'b')", "a-21b"),
    ] {
        assert_eq!(evaluated(expression), expected, "{expression}");
    }
}

#[test]
fn a_search_pays_no_regard_to_twins() {
    for (expression, expected) in [
        ("'a<end>b'.split('OWN') | join('|')", "a|b"),
        ("('aOWNb' ~ 'c<end>d').split('OWN') | join('|')", "a|bc|d"),
        (
            "'xOWN'.endswith('<end>') ~ 'x<end>'.endswith('OWN')",
            "TrueTrue",
        ),
        (
            "'x<end>'.removesuffix('OWN') ~ 'OWNx'.removeprefix('<end>')",
            "xx",
        ),
        ("'<end>x<end>'.strip('OWN')", "x"),
        ("'a<end>'|replace('OWN', '') ~ 'éOWN'.find('<end>')", "a1"),
        (
            "['<end>', 'b'] | select('in', ['OWN']) | join ~ ('OWN' is eq '<end>')",
            "<end>True",
        ),
        ("'HALFd>'.partition('<end>') | join('|')", "|<end>|"),
        (
            "'OWN'.upper() ~ 'OWN'.title() ~ ('ß' ~ 'OWN')|upper",
            "<END><End>SS<END>",
        ),
    ] {
        assert_eq!(evaluated(expression), expected, "{expression}");
    }
}
