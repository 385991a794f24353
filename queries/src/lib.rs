//! The SQL corpus, the pilots and the examples are data; what holds them is in `tests/`.
