//! Inputs that nobody meant, for tests of parsers: a corpus, mutated by a seed.
//!
//! `TIDEGATE_MALFORMED=n` inputs per parser instead of 20,000, of which slow parsers take a share;
//! `TIDEGATE_MALFORMED_SEED=s` begins at that seed: a failure names its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What parsers stumble over.
const TOKENS: [&[u8]; 40] = [
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-",
    b"+",
    b".",
    b"e",
    b"1e999",
    b"-1e-999",
    b"0x1F",
    b"NaN",
    b"Infinity",
    b"99999999999999999999999999999999999999",
    b"-0",
    b"\xff\xfe",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"<999>",
    b"<-1>",
    b"[]",
    b"{}",
    b"\t",
    b"  ",
    b"+99:99",
    b"31/Feb/99999:25:61:61 +9999",
    b"\x1f\x8b\x08",
];

/// Some lines of a corpus, with something done to them.
fn mutated(corpus: &[&str], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..6) {
        bytes.extend_from_slice(corpus[random.random_range(0..corpus.len())].as_bytes());
        bytes.push(b'\n');
    }
    for _ in 0..random.random_range(0..8) {
        mutate(&mut bytes, corpus, random);
    }
    bytes
}

/// Does one thing to the bytes.
pub fn mutate(bytes: &mut Vec<u8>, corpus: &[&str], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    let to = random.random_range(at..=bytes.len().min(at + 40));
    match random.random_range(0..10) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let again = bytes[at..to].to_vec();
            insert(bytes, at, &again.repeat(random.random_range(1..4)));
        }
        5 => {
            let other = corpus[random.random_range(0..corpus.len())].as_bytes();
            insert(bytes, at, &other[random.random_range(0..=other.len())..]);
        }
        6 if random.random_bool(0.2) => {
            let open: &[u8] = [b"[".as_slice(), b"{\"a\":", b"\"", b"(", b"<a>"][random.random_range(0..5)];
            insert(bytes, at, &open.repeat(random.random_range(1..3_000)));
        }
        7 if random.random_bool(0.2) => insert(bytes, at, &b"9".repeat(random.random_range(1..6_000))),
        _ => insert(bytes, at, TOKENS[random.random_range(0..TOKENS.len())]),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    bytes.splice(at..at, more.iter().copied());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `check` over a share of the inputs; names the seed that fails.
pub fn run(parser: &str, share: u64, corpus: &[&str], check: impl Fn(&[u8], &mut StdRng)) {
    let count = number("TIDEGATE_MALFORMED").unwrap_or(20_000) / share;
    let first = number("TIDEGATE_MALFORMED_SEED").unwrap_or(0);
    for seed in first..first + count.max(1) {
        let mut random = StdRng::seed_from_u64(seed);
        let input = mutated(corpus, &mut random);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input, &mut random)));
        let input = String::from_utf8_lossy(&input);
        assert!(checked.is_ok(), "{parser}: replay with TIDEGATE_MALFORMED_SEED={seed} TIDEGATE_MALFORMED=1\n{input}");
    }
}
