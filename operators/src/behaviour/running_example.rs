//! The log L_full of 1391 cases and its nets N1 to N4. For tests.
//!
//! Source  van der Aalst, Process Mining: Data Science in Action, 2016, ch. 8

/// Cases, each a text of one-letter activities that occurs so often.
pub const LOG: [(&str, i64); 21] = [
    ("acdeh", 455),
    ("abdeg", 191),
    ("adceh", 177),
    ("abdeh", 144),
    ("acdeg", 111),
    ("adceg", 82),
    ("adbeh", 56),
    ("acdefdbeh", 47),
    ("adbeg", 38),
    ("acdefbdeh", 33),
    ("acdefbdeg", 14),
    ("acdefdbeg", 11),
    ("adcefcdeh", 9),
    ("adcefdbeh", 8),
    ("adcefbdeg", 5),
    ("acdefbdefdbeg", 3),
    ("adcefdbeg", 2),
    ("adcefbdefbdeg", 2),
    ("adcefdbefbdeh", 1),
    ("adbefbdefdbeg", 1),
    ("adcefdbefcdefdbeg", 1),
];

/// Of each activity, the places it takes a token from, and those it puts one into. The token begins at
/// `<` and ends at `>`.
pub type Net = &'static [(&'static str, &'static str, &'static str)];

pub const NETS: [Net; 4] = [
    &[
        ("a", "<", "12"),
        ("b", "1", "3"),
        ("c", "1", "3"),
        ("d", "2", "4"),
        ("e", "34", "5"),
        ("f", "5", "12"),
        ("g", "5", ">"),
        ("h", "5", ">"),
    ],
    &[
        ("a", "<", "1"),
        ("b", "1", "2"),
        ("c", "1", "2"),
        ("d", "2", "3"),
        ("e", "3", "4"),
        ("f", "4", "1"),
        ("g", "4", ">"),
        ("h", "4", ">"),
    ],
    &[("a", "<", "12"), ("c", "1", "3"), ("d", "2", "4"), ("e", "34", "5"), ("h", "5", ">")],
    &[
        ("a", "<", "1"),
        ("b", "1", "1"),
        ("c", "1", "1"),
        ("d", "1", "1"),
        ("e", "1", "1"),
        ("f", "1", "1"),
        ("g", "1", ">"),
        ("h", "1", ">"),
    ],
];
