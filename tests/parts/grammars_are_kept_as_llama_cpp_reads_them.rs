//! The example grammars of llama.cpp, and other grammars than schemas: what they allow can be said, and
//! nothing else.

use std::collections::BTreeSet;
use std::fs;

use crate::constraint_support::{LIMITS, byte_parsers, can_say, fetched};
use rkllmd::constraint::{Wanted, compile};

/// A grammar's file, what is of it, and what is not.
type Examples = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const EXAMPLES: &[Examples] = &[
    (
        "arithmetic.gbnf",
        &[
            "a=1\n",
            "x1 +(2*y) =z\n",
            "a = b\nc=d\n",
            "((a))=\n1\n",
            "a+b-c*d/e=f\n\n\n",
        ],
        &["", "a=1", "=1\n", "a=1+2\n", "a==1\n", "(a=1\n", "A=1\n"],
    ),
    (
        "c.gbnf",
        &[
            "",
            "int main(){}",
            "float f(int x){return x*2;}",
            "int f(){int x = 1;while(x<10){x = x+1;}}",
            "int f(){for(i = 0; i<3; i = i+1){g (i);}}",
            "int f(){if(a==b){}else{}}",
            "int f(){//note\n}",
            "int f(){/* a * b */}",
            "int f(){integer = 1;}",
        ],
        &[
            "int",
            "main(){}",
            "int main(){",
            "int main(){x}",
            "int f(){return1;}",
            "int f(){if a==b{}}",
            "int f(){/* a }",
            "double f(){}",
        ],
    ),
    (
        "chess.gbnf",
        &[
            "1. e4 e5\n2. Nf3 Nc6\n",
            "1. d4 d5\n10. O-O O-O-O\n",
            "1. exd5 Qxd5+\n2. e8=Q# a6\n",
        ],
        &[
            "",
            "1. e4 e5\n",
            "2. e4 e5\n2. Nf3 Nc6\n",
            "1. e9 e5\n2. a3 a6\n",
            "1. e4 e5\n2. Nf3",
        ],
    ),
    (
        "english.gbnf",
        &["Hello,\nworld!", "a", "[x] {y}\t~z"],
        &["", "Hello,  world", "naïve", " a", "a "],
    ),
    (
        "japanese.gbnf",
        &["こんにちは", "カタカナ 漢字。", "あ\nい"],
        &["", "hello", "こんにちは!", "あ  い"],
    ),
    (
        "json.gbnf",
        &[
            "{}",
            "{ \"a\": [1, -2.5e+1, true, null, \"x\\n\\u00e9\"] }",
            "{\"a\":{\"b\":\n  [ ]}}",
            // White space behind it could come, and an answer is complete before it.
            "{\"é\":0}",
        ],
        &[
            "",
            "[]",
            "{\"a\":}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{a:1}",
            "{  }",
            "{\"a\":\"\u{7f}\"}",
            "{\"a\":\"\\x\"}",
        ],
    ),
    (
        "json_arr.gbnf",
        &["[\n]", "[\n1,\n 2]", "[\n{\"a\":[1,2]},\n\"x\"]"],
        &["[]", "[\n1, 2]", "[\n1]\n", "{}", "[\n1,\n]"],
    ),
    (
        "list.gbnf",
        &["- a\n", "- one thing\n- another - thing\n"],
        &["", "- \n", "a\n", "- a", "- a\r\n", "- a\u{2028}\n"],
    ),
];

#[test]
fn every_grammar_of_llama_cpp_allows_what_it_should() {
    let folder = fetched("fetch-grammars");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let known: BTreeSet<String> = EXAMPLES
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    assert_eq!(files, known, "each file has examples");
    let parsers = byte_parsers();
    for (name, allowed, refused) in EXAMPLES {
        let text = fs::read_to_string(folder.join(name)).expect("a file");
        let compiled = compile(&Wanted::Gbnf(text), &LIMITS);
        let compiled = compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
        for text in *allowed {
            assert!(can_say(&compiled, &parsers, text), "{name}: {text:?}");
        }
        for text in *refused {
            assert!(!can_say(&compiled, &parsers, text), "{name}: {text:?}");
        }
    }
}

fn check(wanted: Wanted, allowed: &[&str], refused: &[&str]) {
    let parsers = byte_parsers();
    let compiled = compile(&wanted, &LIMITS);
    let compiled = compiled.unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
    for text in allowed {
        assert!(can_say(&compiled, &parsers, text), "{wanted:?}: {text:?}");
    }
    for text in refused {
        assert!(!can_say(&compiled, &parsers, text), "{wanted:?}: {text:?}");
    }
}

#[test]
fn expressions_choices_and_lark_allow_what_they_say() {
    let regex = |pattern: &str| Wanted::Regex(pattern.to_owned());
    check(
        regex("^[a-z]+/[0-9]{2}$"),
        &["a/12"],
        &["a/1", "a/123", "^a/12", ""],
    );
    check(regex("a|bc"), &["a", "bc"], &["ac", "abc"]);
    check(regex("^a|b$"), &["a", "b"], &["ab"]);
    check(regex(r"a\$"), &["a$"], &["a"]);
    check(regex(r"a\\$"), &["a\\"], &["a"]);
    check(regex("(?i)yes|no"), &["YES", "no"], &["maybe"]);
    check(regex("x*"), &["", "xx"], &["y"]);
    check(regex(""), &[""], &["a"]);
    let options = ["yes", "no", "not/a \"word\"", "ja\nnein", "é"];
    let choice = Wanted::Choice(options.map(str::to_owned).to_vec());
    check(choice, &options, &["", "ye", "yesno", "not"]);
    check(
        Wanted::Choice(vec![String::new(), "a".to_owned()]),
        &["", "a"],
        &["b"],
    );
    let lark = |text: &str| Wanted::Lark(text.to_owned());
    let sums = "start: NUMBER (\"+\" NUMBER)*  // <a sum>\nNUMBER: /[0-9]+/\n%ignore \" \"\n";
    check(
        lark(sums),
        &["1", "1+22", "1 + 2"],
        &["", "1+", "+1", "1 2"],
    );
    check(
        lark("start: \"<%json>@\" /[%<@]/ # %json\n"),
        &["<%json>@%", "<%json>@<"],
        &["<"],
    );
    check(lark("%import common.INT\nstart: INT"), &["12"], &["a", ""]);
}

#[test]
fn what_works_the_engine_or_names_tokens_is_refused() {
    let lark = |text: &str| Wanted::Lark(text.to_owned());
    let gbnf = |text: &str| Wanted::Gbnf(text.to_owned());
    let regex = |text: &str| Wanted::Regex(text.to_owned());
    let schema = |text: &str| Wanted::JsonSchema {
        schema: text.to_owned(),
        strict: false,
    };
    for (wanted, reason) in [
        (
            lark("%llguidance {\"allow_invalid_utf8\": true}\nstart: \"a\""),
            "`%llguidance` is not",
        ),
        (lark("start: %json {\"x-guidance\": {}}"), "`%json` is not"),
        (lark("start: %lark { start: \"a\" }"), "`%lark` is not"),
        (
            lark("start: A\nA: %regex {\"substring_chars\": \"abc\"}"),
            "`%regex` is not",
        ),
        (lark("start: <|im_end|>"), "may not name tokens"),
        (lark("start: <[2]>"), "may not name tokens"),
        (
            lark("start: \"a\" // \"\n <[2]>"),
            "line 2: a grammar may not name tokens",
        ),
        (lark("start: /[/]/ <[2]>/"), ""),
        (lark("start: @other"), "no other grammar"),
        (lark("start: a"), "unknown name"),
        (gbnf("root ::= <|im_end|>"), "may not name tokens"),
        (gbnf("root ::= !<[2]>"), "may not name tokens"),
        (regex("a(?=b)"), "look-around"),
        (regex("("), ""),
        // The engine begins what no text spells with this byte.
        (regex(r"(?-u:\xFF)\[2\]"), ""),
        (lark("start: /(?-u:\\xFF)\\[2\\]/"), ""),
        (regex("a\\"), "ends with a backslash"),
        (Wanted::Choice(Vec::new()), "nothing to choose from"),
        (
            schema("{\"x-guidance\": {\"lenient\": true}}"),
            "not a keyword",
        ),
    ] {
        let refused = match compile(&wanted, &LIMITS) {
            Err(refused) => refused.to_string(),
            Ok(compiled) => panic!("{wanted:?}: {}", compiled.grammar),
        };
        assert!(refused.contains(reason), "{wanted:?}: {refused}");
    }
}
