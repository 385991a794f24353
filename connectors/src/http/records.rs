//! A body's records, told apart before they are decoded.

use memchr::memchr;

/// The records of a body, up to `count_max`. What is no record is one too: the decoder says why.
pub(crate) fn records(body: &[u8], by_line: bool, count_max: usize) -> Vec<&[u8]> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match body.first() {
        None => Vec::new(),
        Some(_) if by_line || is_line_by_line(body) => {
            body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).take(count_max).collect()
        }
        Some(b'[') => values(&body[1..], true, count_max),
        Some(_) => values(body, false, count_max),
    }
}

/// The first object ends where its line does. Then one broken line costs
/// itself; told apart by brackets alone, it would cost all that follow.
fn is_line_by_line(body: &[u8]) -> bool {
    let line = &body[..memchr(b'\n', body).unwrap_or(body.len())];
    line.first() == Some(&b'{') && value_end(line) == Some(line.trim_ascii_end().len())
}

/// The values in `rest`, one after the other or, in an array, up to its end; and up to `count_max`.
fn values(mut rest: &[u8], in_array: bool, count_max: usize) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while found.len() < count_max {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => return found,
            Some(b',') if in_array => rest = &rest[1..],
            Some(b']') if in_array => {
                let behind = rest[1..].trim_ascii();
                // Something stands behind the array: it is no record.
                found.extend((!behind.is_empty()).then_some(behind));
                return found;
            }
            Some(_) => {
                let end = value_end(rest).unwrap_or(rest.len());
                found.push(rest[..end].trim_ascii_end());
                rest = &rest[end..];
            }
        }
    }
    found
}

/// Where the value at the start of `text` ends; None where it is cut short.
fn value_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => {
                in_string = !in_string;
                if depth == 0 && !in_string {
                    return Some(i + 1);
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(i + 1),
            b'}' | b']' if depth > 0 => depth -= 1,
            // A bare word or number ends at what cannot be part of it. One
            // byte at least, so that the caller moves on.
            b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r' if depth == 0 => return Some(i.max(1)),
            _ => {}
        }
    }
    (depth == 0 && !in_string).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart_as_far_as_they_are_wanted() {
        for (body, by_line) in [("{}{}{}", false), ("[{},{},{}]", false), ("{}\n{}\n{}\n", true), ("{}\n\n{}\n{}", false)] {
            for (count_max, count) in [(0, 0), (2, 2), (3, 3), (4, 3)] {
                assert_eq!(records(body.as_bytes(), by_line, count_max).len(), count, "{body} up to {count_max}");
            }
        }
    }

    #[test]
    fn bodies_come_apart_into_records() {
        let cases: [(&str, bool, &[&str]); 16] = [
            ("", false, &[]),
            ("[]", false, &[]),
            (r#"[{"a":1},{"a":[2]}]"#, false, &[r#"{"a":1}"#, r#"{"a":[2]}"#]),
            ("[\n {\"a\":1} ,\n {\"a\":\"]},\"} ]\n", false, &["{\"a\":1}", "{\"a\":\"]},\"}"]),
            (r#"[{"a":1},{"a":"#, false, &[r#"{"a":1}"#, r#"{"a":"#]),
            (r#"[1,"x",null,{}]"#, false, &["1", "\"x\"", "null", "{}"]),
            (r#"[{"a":1}] tail"#, false, &[r#"{"a":1}"#, "tail"]),
            ("{\"a\":1}\n{\"a\":\n{\"a\":3}", false, &["{\"a\":1}", "{\"a\":", "{\"a\":3}"]),
            ("{\"a\":1}{\"a\":2} {\"a\":3}", false, &["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]),
            ("{\n\"a\":1\n}\n{\n\"a\":2\n}", false, &["{\n\"a\":1\n}", "{\n\"a\":2\n}"]),
            ("{\"a\":\r\n{\"a\":2}\r\n", true, &["{\"a\":", "{\"a\":2}"]),
            ("{\"a\":\"}\\\"\"}", false, &["{\"a\":\"}\\\"\"}"]),
            ("nonsense here", false, &["nonsense", "here"]),
            ("}{}", false, &["}", "{}"]),
            ("[", false, &[]),
            ("\u{feff}{}", false, &["{}"]),
        ];
        for (body, by_line, expected) in cases {
            let got = records(body.as_bytes(), by_line, usize::MAX);
            let got: Vec<&str> = got.into_iter().map(|record| std::str::from_utf8(record).unwrap()).collect();
            assert_eq!(got, expected, "{body}");
        }
    }
}
