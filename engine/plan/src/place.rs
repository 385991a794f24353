//! Where in a statement an error is: at the word it quotes, or of the construct it names.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};
use tidegate_types::error::{Error, Fault, Place, did_you_mean};

/// The error at its word among a statement's `words`; else where the statement begins.
pub fn pointed(error: Error, words: &[TokenWithSpan], file: &str) -> Error {
    if error.fault == Fault::Engine {
        return error;
    }
    match place_of(&error.message, words) {
        Some(place) => error.at(file, place.line, place.column),
        None => error,
    }
}

/// The error at its word in the `nth` statement of `text`, from 0 on.
pub fn pointed_in(error: Error, text: &str, nth: usize, file: &str) -> Error {
    let words = words(text);
    let mut statements = words.split(|word| word.token == Token::SemiColon).filter(|words| !words.is_empty());
    match statements.nth(nth) {
        Some(words) => pointed(error, words, file),
        None => error,
    }
}

/// Words that begin a clause, of which one that is misspelt is read as a name.
const CLAUSES: [&str; 9] = ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "JOIN", "VALUES"];

/// A syntax error at the word before it, where that may have been meant as one that begins a clause; or by the name of
/// what the parser does not know.
pub fn misspelt(error: Error, words: &[TokenWithSpan], file: &str) -> Error {
    let Some(Place { line, column, .. }) = error.place else { return error };
    if error.message.ends_with("found: EXCLUDE") {
        let instead = "take the rows out of the value, as in sum(x) OVER (…) - x, or frame those before and those behind by themselves";
        return Error::unsupported("EXCLUDE in a window's frame", instead).at(file, line, column);
    }
    let at = words.iter().position(|word| (word.span.start.line, word.span.start.column) == (line, column));
    let Some(before) = at.and_then(|at| words[..at].last()) else { return error };
    let Token::Word(Word { value, quote_style: None, keyword: Keyword::NoKeyword }) = &before.token else { return error };
    match did_you_mean(value, CLAUSES) {
        Some(clause) => {
            let place = Place { file: file.into(), line: before.span.start.line, column: before.span.start.column };
            Error { place: Some(place), ..error.hint(format!("did you mean {clause}?")) }
        }
        None => error,
    }
}

/// The words of a text, where it has any.
fn words(text: &str) -> Vec<TokenWithSpan> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().unwrap_or_default();
    tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect()
}

/// [`misspelt`] in `text`.
pub fn misspelt_in(error: Error, text: &str, file: &str) -> Error {
    misspelt(error, &words(text), file)
}

/// What a parser said, and the place it ended with, where it had one.
pub fn unplaced(message: &str) -> (String, Option<Location>) {
    let (text, place) = match message.split_once(" at Line: ") {
        Some((text, place)) => (text, place.split_once(", Column: ")),
        None => (message, None),
    };
    let mut text = text.to_string();
    if let Some(first) = text.get(..1).map(str::to_lowercase) {
        text.replace_range(..1, &first);
    }
    let place = place.and_then(|(line, column)| Some(Location { line: line.parse().ok()?, column: column.parse().ok()? }));
    (text, place.filter(|place| 0 < place.line))
}

/// Behind the last word of `text`.
pub fn end_of(text: &str) -> Location {
    let text = text.trim_end();
    let last = text.rsplit('\n').next().unwrap_or_default();
    Location { line: 1 + text.matches('\n').count() as u64, column: 1 + last.chars().count() as u64 }
}

fn place_of(message: &str, words: &[TokenWithSpan]) -> Option<Location> {
    // Of `sink "k" has no option "x"` the option.
    let quoted = message.split_once("option \"").map_or(message.split_once('"'), |(_, name)| Some(("", name)));
    let quoted = quoted.and_then(|(_, name)| name.split_once('"')).map(|(name, _)| name);
    // Of `l.id` the column.
    let last = quoted.and_then(|quoted| quoted.rsplit('.').next());
    let mut wanted = quoted.into_iter().chain(last).chain(constructs(message)).filter(|word| !word.is_empty());
    let found = wanted.find_map(|wanted| words.iter().find(|word| is_word(&word.token, wanted)));
    found.or(words.first()).map(|word| word.span.start)
}

fn is_word(token: &Token, wanted: &str) -> bool {
    match token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(wanted),
        Token::SingleQuotedString(text) => text == wanted,
        Token::Number(..) | Token::Comma | Token::LParen | Token::RParen => false,
        operator => operator.to_string() == wanted,
    }
}

/// SQL's words in a message, which are in capitals, and functions: `LATERAL`, `random` of `random()`.
fn constructs(message: &str) -> Vec<&str> {
    let ends = message.char_indices().filter(|(_, c)| !c.is_alphanumeric() && *c != '_').map(|(at, _)| at);
    let mut from = 0;
    let mut found = Vec::new();
    for end in ends.chain([message.len()]) {
        let word = &message[from..end];
        let is_keyword = 1 < word.len() && word.chars().all(|c| c.is_ascii_uppercase());
        if is_keyword || (!word.is_empty() && message[end..].starts_with('(')) {
            found.push(word);
        }
        from = end + message[end..].chars().next().map_or(0, char::len_utf8);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_constructs() {
        assert_eq!(constructs("LATERAL is not supported"), ["LATERAL"]);
        assert_eq!(constructs("random(), which gives another value each time, is not supported"), ["random"]);
        assert_eq!(constructs("an aggregate inside a correlated EXISTS is not supported"), ["EXISTS"]);
        assert_eq!(constructs("größe: das ist kein TYP"), ["TYP"]);
    }

    #[test]
    fn an_error_is_at_what_it_names() {
        let text = "SELECT l.id, -l.s\nFROM t l WHERE upper(l.s) = 'x'";
        let place = |message: &str| {
            let place = pointed_in(Error::user(message), &format!("SELECT s;;{text}"), 1, "a.sql").place.unwrap();
            (place.line, place.column)
        };
        for (message, at) in [
            ("column \"s\" does not exist", (1, 27)),
            ("column \"l.s\" must be in GROUP BY", (1, 27)),
            ("operator \"-\" takes numbers", (1, 24)),
            ("function upper(Utf8, Int64) does not exist", (2, 16)),
            ("WHERE and HAVING take a BOOLEAN", (2, 10)),
            ("sink \"t\" has no option \"l\"", (1, 18)),
            ("sink \"t\": option \"id\" cannot be 'x'", (1, 20)),
            ("so it is", (1, 11)),
        ] {
            assert_eq!(place(message), at, "{message}");
        }
    }

    #[test]
    fn a_parser_says_where_it_was() {
        let said = "Expected: an expression, found: ) at Line: 2, Column: 14";
        assert_eq!(unplaced(said), ("expected: an expression, found: )".into(), Some(Location { line: 2, column: 14 })));
        assert_eq!(unplaced("No more"), ("no more".into(), None));
        assert_eq!(end_of("SELECT 'ä',\n  1 +\n"), Location { line: 2, column: 6 });
    }
}
