//! What must not leave a board: serial numbers, addresses of the network, keys, names of hosts. What the board
//! tells of them is looked for in every text; addresses and keys are known by their form, too.

use std::net::IpAddr;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use super::listed_files::{ListedFiles, Parts, Want};

/// Shorter ones are no serial number, and would hide figures.
const SHORTEST_SERIAL: usize = 6;
const ADDRESS_PAIRS: usize = 6;
/// How names of network devices begin that go on with their address.
const NAMED_BY_ADDRESS: [&str; 2] = ["enx", "wlx"];
/// As `rkllmd keys` makes them (`src/auth/secret.rs`).
const KEY: &str = "rkllmd-";
const KEY_DIGITS: usize = 64;

const HIDDEN_SERIAL: &str = "(serial)";
const HIDDEN_ADDRESS: &str = "(address)";
const HIDDEN_KEY: &str = "(key)";
const HIDDEN_HOST: &str = "(host)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Serial,
    /// Lines of which one is `Serial : NUMBER`.
    CpuInfo,
    Address,
    Host,
}

const NO_PARTS: Parts = &[];
const ADDRESSES: Parts = &[|_| true, |name| name == "address"];
const CARDS: Parts = &[
    |_| true,
    |name| name == "device",
    |name| matches!(name, "serial" | "cid"),
];
const SERIALS: [&str; 6] = [
    "/proc/device-tree/serial-number",
    "/etc/machine-id",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/board_serial",
    "/sys/class/dmi/id/chassis_serial",
];

/// Where a board tells them.
pub(super) fn sources() -> Vec<(Kind, ListedFiles)> {
    let of = |kind: Kind, folder: &str, parts: Parts| {
        let files = ListedFiles::below(folder, parts, Want::Words);
        (kind, files)
    };
    let mut sources = vec![
        of(Kind::CpuInfo, "/proc/cpuinfo", NO_PARTS),
        of(Kind::Host, "/etc/hostname", NO_PARTS),
        of(Kind::Host, "/proc/sys/kernel/hostname", NO_PARTS),
        of(Kind::Address, "/sys/class/net", ADDRESSES),
        of(Kind::Serial, "/sys/class/block", CARDS),
    ];
    let serials = SERIALS.into_iter();
    sources.extend(serials.map(|path| of(Kind::Serial, path, NO_PARTS)));
    sources
}

/// What a board told of itself that is to be hidden.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Each with what stands in its place.
    anywhere: Vec<(String, &'static str)>,
    hosts: Vec<String>,
}

impl Words {
    pub fn learn(&mut self, kind: Kind, text: &str) {
        let text = text.trim_matches(['\0', ' ', '\n', '\t']);
        match kind {
            Kind::Serial => self.learn_serial(text),
            Kind::CpuInfo => {
                let lines = text.lines().filter_map(|line| line.split_once(':'));
                for (_, serial) in lines.filter(|(name, _)| name.trim() == "Serial") {
                    self.learn_serial(serial.trim());
                }
            }
            Kind::Address => {
                let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
                if digits.len() == 2 * ADDRESS_PAIRS && digits.bytes().any(|digit| digit != b'0') {
                    // With colons it is known by its form.
                    self.anywhere.push((digits, HIDDEN_ADDRESS));
                }
            }
            Kind::Host => {
                let short = text.split('.').next().unwrap_or_default();
                for host in [text, short] {
                    if !host.is_empty() && host != "localhost" && host != "(none)" {
                        self.hosts.push(host.to_owned());
                    }
                }
            }
        }
    }

    /// Where the daemon listens, as the report tells it; what every machine has tells nothing.
    pub fn learn_listener(&mut self, address: IpAddr) {
        if !address.is_loopback() && !address.is_unspecified() {
            self.anywhere.push((address.to_string(), HIDDEN_ADDRESS));
        }
    }

    fn learn_serial(&mut self, serial: &str) {
        // As the kernel tells those of cards.
        let serial = serial.strip_prefix("0x").unwrap_or(serial);
        let is_a_number = serial
            .bytes()
            .any(|byte| byte.is_ascii_digit() && byte != b'0');
        if serial.len() >= SHORTEST_SERIAL && is_a_number {
            self.anywhere.push((serial.to_owned(), HIDDEN_SERIAL));
        }
    }
}

/// Hides what is known.
pub(super) struct Hidden {
    anywhere: AhoCorasick,
    instead: Vec<&'static str>,
    hosts: AhoCorasick,
}

impl Hidden {
    pub fn new(words: &Words) -> Result<Self, BuildError> {
        let anywhere = &words.anywhere;
        Ok(Self {
            anywhere: finder(anywhere.iter().map(|(word, _)| word.as_str()))?,
            instead: anywhere.iter().map(|(_, instead)| *instead).collect(),
            hosts: finder(words.hosts.iter().map(String::as_str))?,
        })
    }

    /// In what the kernel writes in words of its own. A host may be called `performance`, and the governor is
    /// not to change its name with it.
    pub fn in_kernels_text(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        self.anywhere
            .replace_all_with(text, &mut shown, |found, _, shown| {
                shown.push_str(self.instead[found.pattern().as_usize()]);
                true
            });
        without_keys(&without_addresses(&shown))
    }

    /// In what may name the host.
    pub fn in_words(&self, text: &str) -> String {
        let text = self.in_kernels_text(text);
        let mut shown = String::with_capacity(text.len());
        self.hosts
            .replace_all_with(&text, &mut shown, |found, word, shown| {
                let before = text[..found.start()].chars().next_back();
                let after = text[found.end()..].chars().next();
                let is_part = |beside: Option<char>| beside.is_some_and(char::is_alphanumeric);
                let is_whole = !is_part(before) && !is_part(after);
                shown.push_str(if is_whole { HIDDEN_HOST } else { word });
                true
            });
        shown
    }
}

fn finder<'a>(words: impl Iterator<Item = &'a str>) -> Result<AhoCorasick, BuildError> {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .build(words)
}

/// Six pairs of hexadecimal digits with a colon or a dash between them, and names of network devices that are
/// made of such.
fn without_addresses(text: &str) -> String {
    const BYTES: usize = 3 * ADDRESS_PAIRS - 1;
    let bytes = text.as_bytes();
    let is_address = |at: usize| {
        let Some(found) = bytes.get(at..at + BYTES) else {
            return false;
        };
        let between = found[2];
        (between == b':' || between == b'-')
            && found.iter().enumerate().all(|(nth, byte)| match nth % 3 {
                2 => *byte == between,
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let named = |at: usize| {
        let rest = &bytes[at..];
        let prefix = NAMED_BY_ADDRESS
            .iter()
            .find(|it| rest.starts_with(it.as_bytes()))?;
        let digits = rest[prefix.len()..].get(..2 * ADDRESS_PAIRS)?;
        let is_named = digits.iter().all(u8::is_ascii_hexdigit);
        is_named.then_some(prefix.len() + 2 * ADDRESS_PAIRS)
    };
    replaced(text, HIDDEN_ADDRESS, |at| {
        is_address(at).then_some(BYTES).or_else(|| named(at))
    })
}

fn without_keys(text: &str) -> String {
    let bytes = text.as_bytes();
    replaced(text, HIDDEN_KEY, |at| {
        let digits = bytes[at..].strip_prefix(KEY.as_bytes())?;
        let digits = digits.get(..KEY_DIGITS)?;
        let is_key = digits.iter().all(u8::is_ascii_hexdigit);
        is_key.then_some(KEY.len() + KEY_DIGITS)
    })
}

/// `found` tells how many bytes of ASCII begin at an offset that are to be replaced.
fn replaced(text: &str, instead: &str, found: impl Fn(usize) -> Option<usize>) -> String {
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(character) = text[at..].chars().next() {
        if let Some(bytes) = found(at) {
            shown.push_str(instead);
            at += bytes;
        } else {
            shown.push(character);
            at += character.len_utf8();
        }
    }
    shown
}
