use super::hidden::{Hidden, Kind, Words};
use super::large_files::model;

fn hidden(words: &[(Kind, &str)]) -> Hidden {
    let mut known = Words::default();
    for (kind, text) in words {
        known.learn(*kind, text);
    }
    Hidden::new(&known).unwrap()
}

#[test]
fn what_a_board_tells_of_itself_is_hidden_in_every_form() {
    let hidden = hidden(&[
        (Kind::Serial, "a1b2c3d4e5f6\0"),
        (Kind::Serial, "0x00c1ffee\n"),
        (Kind::CpuInfo, "processor : 0\nSerial\t\t: 00ff33aa\n"),
        (Kind::Address, "de:ad:be:ef:00:01\n"),
        (Kind::Host, "kitchen.example.org\n"),
    ]);
    for (text, shown) in [
        (
            "Board A1B2C3D4E5F6 of 00FF33AA",
            "Board (serial) of (serial)",
        ),
        (
            "enxDEADBEEF0001 de:ad:be:ef:00:01",
            "enx(address) (address)",
        ),
        ("card 00c1ffee", "card (serial)"),
        ("AA-BB-CC-DD-EE-FF", "(address)"),
        (
            "/sys/class/net/wlx0a1b2c3d4e5f/address",
            "/sys/class/net/(address)/address",
        ),
        ("Kitchen: kitchen.example.org", "(host): (host)"),
        ("kitchens", "kitchens"),
        ("6.1.43-kitchen", "6.1.43-(host)"),
    ] {
        assert_eq!(hidden.in_words(text), shown);
    }
    let key = format!("rkllmd-{}", "0f".repeat(32));
    assert_eq!(hidden.in_words(&format!("key {key}.")), "key (key).");
}

#[test]
fn where_the_daemon_listens_is_hidden_unless_every_machine_has_it() {
    let mut known = Words::default();
    for address in ["192.0.2.7", "2001:db8::7", "127.0.0.1", "0.0.0.0", "::"] {
        known.learn_listener(address.parse().unwrap());
    }
    let hidden = Hidden::new(&known).unwrap();
    assert_eq!(
        hidden.in_words(
            "listens on 192.0.2.7:8080, [2001:DB8::7]:80, 127.0.0.1:80, 0.0.0.0:1, [::]:1"
        ),
        "listens on (address):8080, [(address)]:80, 127.0.0.1:80, 0.0.0.0:1, [::]:1"
    );
}

#[test]
fn the_kernels_own_words_stay() {
    let hidden = hidden(&[
        (Kind::Host, "performance"),
        (Kind::Host, "localhost"),
        (Kind::Serial, "0000000000"),
        (Kind::Serial, "1"),
    ]);
    assert_eq!(hidden.in_kernels_text("performance\n"), "performance\n");
    assert_eq!(
        hidden.in_words("10000000000 localhost"),
        "10000000000 localhost"
    );
}

#[test]
fn addresses_are_six_pairs_and_no_figures() {
    let hidden = hidden(&[]);
    for text in ["1:2:3:4:5:6", "10:20:30:40:50", "12:34-56:78:9a:bc", "ä:öü"] {
        assert_eq!(hidden.in_words(text), text);
    }
}

#[test]
fn a_model_is_its_size_and_its_toolkit() {
    let large = model(14_000_000_001, Some("1.3.1"));
    assert_eq!(large.bytes(), 14_000_000_001);
    let parts = large.parts();
    let (offset, end) = parts.last().unwrap();
    assert_eq!(offset % 512, 0);
    assert_eq!(offset + end.len() as u64, large.bytes());
    assert!(end.ends_with(b"rkllm-toolkit version: 1.3.1\0"));
    assert_eq!(parts.len(), 1);
    assert!(model(3, None).parts().is_empty());
    assert_eq!(model(3, Some("1.3.1")).bytes(), 3);
}
