use super::*;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn board(soc: Option<Soc>, runtime: &str) -> Board {
    Board {
        soc,
        runtime: (!runtime.is_empty()).then(|| runtime.to_owned()),
        memory_bytes: Some(6 * GIB),
    }
}

fn listing(files: &[(&str, u64)]) -> Listing {
    let files = files.iter().map(|(path, size)| RemoteFile {
        path: (*path).to_owned(),
        size: Some(*size),
        hash: None,
    });
    Listing {
        files: files.collect(),
        ..Listing::default()
    }
}

/// As c01zaut's repositories are.
fn many(chip: &str) -> Vec<(String, u64)> {
    let mut files = vec![("README.md".to_owned(), 10), ("config.json".to_owned(), 10)];
    for quantisation in ["w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"] {
        for opt in ["opt-0", "opt-1"] {
            for ratio in ["0.0", "0.5", "1.0"] {
                let path = format!(
                    "Qwen2.5-3B-Instruct-{chip}-{quantisation}-{opt}-hybrid-ratio-{ratio}.rkllm"
                );
                files.push((path, 3 * GIB));
            }
        }
    }
    files
}

fn chosen(asked: &str, files: &[(&str, u64)], board: &Board) -> Result<String, String> {
    let reference = Reference::parse(asked).expect("a reference");
    let listing = listing(files);
    match choose(&reference, &listing, board, false) {
        Ok(file) => Ok(file.path.clone()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn each_board_gets_what_it_runs_with_the_library_it_has() {
    let rk3588 = many("rk3588");
    let c01zaut: Vec<(&str, u64)> = rk3588.iter().map(|(path, size)| (&**path, *size)).collect();
    let mixed = [
        ("Qwen3-4B-rk3588-w8a8.rkllm", 4 * GIB),
        ("Qwen3-4B-rk3576-w4a16.rkllm", 2 * GIB),
        ("Qwen3-4B-rk3576-w8a8.rkllm", 4 * GIB),
        ("Qwen3-4B-rk3562-w4a16_g128.rkllm", 2 * GIB),
    ];
    let cards = [("Qwen3-4B.rkllm", 4 * GIB), ("tokenizer_config.json", 1)];
    let vendor = [("qwen2.5-vl-3b-w8a8_level1_rk3588.rkllm", 4 * GIB)];
    // As HanzoHuang's repositories are.
    let folders = [
        ("RK3576/Qwen3-1.7B_RK3576_w4a16.rkllm", 2 * GIB),
        ("RK3576/Qwen3-1.7B_RK3576_w4a16_g128.rkllm", 2 * GIB),
        ("RK3576/Qwen3-1.7B_RK3576_w8a8.rkllm", 2 * GIB),
        ("RK3588/Qwen3-1.7B_RK3588_w8a8.rkllm", 2 * GIB),
    ];
    let old = "c01zaut/Qwen2.5-3B-Instruct-RK3588-1.1.4";
    let gatekeeper = "GatekeeperZA/Qwen3-4B-RKLLM-v1.2.3";
    let (a, b, c) = (Some(Soc::Rk3588), Some(Soc::Rk3576), Some(Soc::Rk3562));
    let best_of_many = "Qwen2.5-3B-Instruct-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm";
    let grouped = "Qwen2.5-3B-Instruct-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.0.rkllm";
    for (asked, files, soc, runtime, expected) in [
        (old, &c01zaut[..], a, "1.1.4", Ok(best_of_many)),
        (old, &c01zaut, a, "1.2.1b1", Ok(best_of_many)),
        (old, &c01zaut, a, "1.3.1", Ok(best_of_many)),
        ("c01zaut/x:w8a8_g128", &c01zaut, a, "1.3.1", Ok(grouped)),
        ("c01zaut/x:W8A8-G128", &c01zaut, a, "1.3.1", Ok(grouped)),
        (
            old,
            &c01zaut,
            b,
            "1.3.1",
            Err("no model of c01zaut/Qwen2.5-3B-Instruct-RK3588-1.1.4 suits"),
        ),
        (
            old,
            &c01zaut,
            c,
            "1.3.1",
            Err("is for RK3588, and this board has RK3562"),
        ),
        ("a/b", &mixed, a, "1.3.1", Ok("Qwen3-4B-rk3588-w8a8.rkllm")),
        (
            "a/b",
            &mixed,
            Some(Soc::Rk3582),
            "1.3.1",
            Ok("Qwen3-4B-rk3588-w8a8.rkllm"),
        ),
        ("a/b", &mixed, b, "1.3.1", Ok("Qwen3-4B-rk3576-w4a16.rkllm")),
        (
            "a/b:w8a8",
            &mixed,
            b,
            "1.2.1",
            Ok("Qwen3-4B-rk3576-w8a8.rkllm"),
        ),
        (
            "a/b",
            &mixed,
            c,
            "1.3.1",
            Ok("Qwen3-4B-rk3562-w4a16_g128.rkllm"),
        ),
        (
            "a/b",
            &mixed,
            Some(Soc::Rv1126b),
            "1.3.1",
            Err("no model of a/b suits"),
        ),
        (
            "a/b:w4a16",
            &mixed,
            a,
            "1.3.1",
            Err("is for RK3576, and this board has RK3588"),
        ),
        (
            "a/b",
            &folders,
            a,
            "1.2.3",
            Ok("RK3588/Qwen3-1.7B_RK3588_w8a8.rkllm"),
        ),
        (
            "a/b",
            &folders,
            b,
            "1.3.1",
            Ok("RK3576/Qwen3-1.7B_RK3576_w4a16.rkllm"),
        ),
        ("a/b", &folders, c, "1.2.3", Err("no model of a/b suits")),
        (gatekeeper, &cards, a, "1.3.1", Ok("Qwen3-4B.rkllm")),
        (gatekeeper, &cards, a, "1.2.3", Ok("Qwen3-4B.rkllm")),
        (
            gatekeeper,
            &cards,
            a,
            "1.2.1",
            Err("was made by toolkit 1.2.3, which is newer than the library, 1.2.1"),
        ),
        // Without a library there is nothing to compare with yet.
        (gatekeeper, &cards, a, "", Ok("Qwen3-4B.rkllm")),
        (
            "macrae/x@w8a8_g512-toolkitv1.1.1",
            &cards,
            a,
            "1.3.1",
            Ok("Qwen3-4B.rkllm"),
        ),
        (
            "a/b",
            &vendor,
            a,
            "1.3.1",
            Ok("qwen2.5-vl-3b-w8a8_level1_rk3588.rkllm"),
        ),
        (
            "a/b",
            &vendor,
            b,
            "1.3.1",
            Err("is for RK3588, and this board has RK3576"),
        ),
        (
            "a/b",
            &vendor,
            Some(Soc::Rk356x),
            "1.3.1",
            Err("needs an NPU"),
        ),
        ("a/b", &vendor, None, "", Err("needs an NPU")),
        (
            "a/b:none.rkllm",
            &vendor,
            a,
            "1.3.1",
            Err("a/b has no model `none.rkllm`"),
        ),
        (
            "a/b",
            &[("README.md", 1)],
            a,
            "1.3.1",
            Err("a/b has no .rkllm and no .gguf file at main"),
        ),
    ] {
        let found = chosen(asked, files, &board(soc, runtime));
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{asked}"),
            (Err(found), Err(expected)) => {
                assert!(found.contains(expected), "{asked}: {found}")
            }
            _ => panic!("{asked} for {soc:?} with {runtime}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_cpu_gets_what_is_quick_and_fits() {
    let files = [
        ("m-F16.gguf", 8 * GIB),
        ("m-Q8_0.gguf", 4 * GIB),
        ("m-Q4_K_M.gguf", 2 * GIB),
        ("m-Q4_0-00001-of-00002.gguf", GIB),
        ("m-Q4_0-00002-of-00002.gguf", GIB),
        ("mmproj-m-f16.gguf", GIB),
    ];
    let machine = board(None, "");
    let found = |asked: &str| chosen(asked, &files, &machine);
    assert_eq!(found("a/b").as_deref(), Ok("m-Q4_K_M.gguf"));
    assert_eq!(found("a/b:Q8_0").as_deref(), Ok("m-Q8_0.gguf"));
    assert_eq!(found("a/b:q8_0").as_deref(), Ok("m-Q8_0.gguf"));
    let refused = found("a/b:f16").unwrap_err();
    assert!(
        refused.contains("has 8192 MiB, and a model may take 6144 MiB here"),
        "{refused}"
    );
    let refused = found("a/b:Q4_0").unwrap_err();
    assert!(refused.contains("is a part of a model"), "{refused}");
    // The NPU goes before.
    let both = [("m-Q4_K_M.gguf", GIB), ("m-rk3588-w8a8_g128.rkllm", GIB)];
    let npu = board(Some(Soc::Rk3588), "1.3.1");
    assert_eq!(
        chosen("a/b", &both, &npu).as_deref(),
        Ok("m-rk3588-w8a8_g128.rkllm")
    );
    let other = board(Some(Soc::Rk3576), "1.3.1");
    assert_eq!(chosen("a/b", &both, &other).as_deref(), Ok("m-Q4_K_M.gguf"));
}

#[test]
fn what_was_named_is_taken_where_that_is_wished() {
    let listing = listing(&[("a-rk3588-w8a8.rkllm", 1), ("b-00001-of-00002.gguf", 1)]);
    let machine = board(None, "");
    let named = |text: &str| Reference::parse(text).expect("a reference");
    let file = named("a/b:a-rk3588-w8a8.rkllm");
    assert!(choose(&file, &listing, &machine, false).is_err());
    let found = choose(&file, &listing, &machine, true).expect("it is taken");
    assert_eq!(found.path, "a-rk3588-w8a8.rkllm");
    let part = named("a/b:b-00001-of-00002.gguf");
    assert!(choose(&part, &listing, &machine, true).is_err());
}

proptest! {
    #[test]
    fn what_is_chosen_suits_and_comes_of_the_list(
        names in prop::collection::vec("[a-c]-(rk3588|rk3576|x)-(w8a8|w4a16|q4_0)\\.(rkllm|gguf|md)", 0..8),
        word in prop::option::of("w8a8|w4a16|a|rk3588"),
        is_board in any::<bool>(),
    ) {
        let files: Vec<(&str, u64)> = names.iter().map(|name| (&**name, 1)).collect();
        let listing = listing(&files);
        let board = board(is_board.then_some(Soc::Rk3588), "1.3.1");
        let asked = word.map_or_else(|| "a/b".to_owned(), |word| format!("a/b:{word}"));
        let reference = Reference::parse(&asked).unwrap();
        if let Ok(file) = choose(&reference, &listing, &board, false) {
            prop_assert!(listing.files.contains(file));
            let variant = Variant::of(file, &[]).unwrap();
            prop_assert_eq!(unsuitable(&variant, &board), None);
        }
    }
}
