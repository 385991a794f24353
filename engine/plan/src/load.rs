//! What a statement's words ask of who parses and plans it, counted before there is a tree: deep trees end
//! in deep recursion, in the parser, the planner and even in `drop`, and what planners do with a chain grows
//! with the square of its length and faster. What is refused here is refused by name; what passes is planned
//! within seconds.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidegate_types::error::{Error, Result};

/// Words and signs of one statement.
pub const TOKENS_MAX: usize = 100_000;
/// Brackets within brackets.
pub const NESTING_MAX: usize = 200;
/// Operators between two commas of one bracket.
pub const CHAIN_MAX: usize = 500;
/// Words, as often as they are read: see [`Load::readings`].
pub const READINGS_MAX: usize = 1 << 19;

/// Errors: a bound is met.
pub fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    if TOKENS_MAX < tokens.len() {
        return Err(Error::too_much(format!("a statement of {} words is longer than the {TOKENS_MAX} allowed", tokens.len()))
            .hint("put long lists into a table and join it"));
    }
    let load = Load::of(tokens);
    if NESTING_MAX < load.deepest {
        return Err(Error::user(format!("brackets are nested {} deep, more than the {NESTING_MAX} allowed", load.deepest))
            .hint("name the inner queries with CREATE VIEW"));
    }
    if READINGS_MAX < load.readings {
        return Err(Error::user(format!("functions and subqueries are nested too deeply, up to {} deep", load.deepest))
            .hint("name the inner ones in a WITH or with CREATE VIEW"));
    }
    if CHAIN_MAX < load.longest {
        return Err(Error::user(format!("{} operators in one chain are more than the {CHAIN_MAX} allowed", load.longest))
            .hint("use IN (…) or a join instead of a long chain, or compute it in steps"));
    }
    Ok(())
}

/// What a statement asks of who parses and plans it.
#[derive(Debug, Default, PartialEq)]
struct Load {
    /// Brackets within brackets.
    deepest: usize,
    /// Operators between two commas of one bracket, at most.
    longest: usize,
    /// Words as often as they are read: those of an argument, and those of a subquery that is a value, twice
    /// as often as the words around them, since the parser first tries whether the argument has a name.
    readings: usize,
}

impl Load {
    fn of(tokens: &[TokenWithSpan]) -> Self {
        let mut load = Self::default();
        // Of each open bracket: operators so far, and how often its words are read.
        let mut open = vec![(0_usize, 1_usize)];
        for (i, token) in tokens.iter().enumerate() {
            let (chain, times) = *open.last().unwrap_or(&(0, 1));
            load.readings = load.readings.saturating_add(times);
            match &token.token {
                Token::LParen | Token::LBracket => {
                    let is_tried = is_argument(&tokens[..i]) || is_value(&tokens[..i], &tokens[i + 1..]);
                    open.push((0, if is_tried { times.saturating_mul(2) } else { times }));
                    load.deepest = load.deepest.max(open.len() - 1);
                }
                Token::RParen | Token::RBracket if 1 < open.len() => drop(open.pop()),
                Token::Comma => *open.last_mut().expect("one is always open") = (0, times),
                token if is_operator(token) => {
                    *open.last_mut().expect("one is always open") = (chain + 1, times);
                    load.longest = load.longest.max(chain + 1);
                }
                _ => {}
            }
        }
        load
    }
}

/// `before (`: the bracket holds a function's arguments.
fn is_argument(before: &[TokenWithSpan]) -> bool {
    matches!(before.last().map(|token| &token.token), Some(Token::Word(word)) if !RESERVED.contains(&word.keyword))
}

/// `before (SELECT`: the bracket holds a query that is not one of FROM or WITH.
fn is_value(before: &[TokenWithSpan], after: &[TokenWithSpan]) -> bool {
    let keyword = |token: Option<&TokenWithSpan>| match token.map(|token| &token.token) {
        Some(Token::Word(word)) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let is_query = matches!(keyword(after.first()), Keyword::SELECT | Keyword::WITH | Keyword::VALUES);
    is_query && !matches!(keyword(before.last()), Keyword::FROM | Keyword::JOIN | Keyword::AS | Keyword::LATERAL)
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => CHAINING.contains(&word.keyword),
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::SemiColon | Token::Placeholder(_) => false,
        Token::LParen | Token::RParen | Token::LBracket | Token::RBracket | Token::Comma => false,
        _ => true,
    }
}

/// Words that make a tree deeper by one.
const CHAINING: [Keyword; 18] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::JOIN,
    Keyword::CASE,
    Keyword::WHEN,
    Keyword::IS,
    Keyword::IN,
    Keyword::LIKE,
    Keyword::ILIKE,
    Keyword::SIMILAR,
    Keyword::BETWEEN,
    Keyword::AT,
    Keyword::COLLATE,
    Keyword::OVERLAPS,
];

/// Words before a bracket that holds no arguments.
const RESERVED: [Keyword; 24] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::SELECT,
    Keyword::DISTINCT,
    Keyword::FROM,
    Keyword::JOIN,
    Keyword::ON,
    Keyword::USING,
    Keyword::WHERE,
    Keyword::HAVING,
    Keyword::BY,
    Keyword::CASE,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
    Keyword::IN,
    Keyword::AS,
    Keyword::VALUES,
    Keyword::OVER,
    Keyword::FILTER,
    Keyword::WITH,
    Keyword::UNION,
    Keyword::ALL,
];

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn tokens(sql: &str) -> Vec<TokenWithSpan> {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().unwrap();
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect()
    }

    #[test]
    fn chains_end_at_commas_and_brackets() {
        for (sql, longest) in [
            ("SELECT a + b, c", 1),
            ("SELECT 1 + 2 * 3, 4 - 5", 2),
            ("SELECT (1 + 2 + 3) * (4 + 5)", 2),
            ("SELECT 1 WHERE a = 1 OR a = 2 OR NOT b", 5),
            ("SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 1", 2),
            ("SELECT x::INT::TEXT IS NULL", 3),
            ("INSERT INTO t VALUES (-1, -2), (-3, -4)", 1),
        ] {
            assert_eq!(Load::of(&tokens(sql)).longest, longest, "{sql}");
        }
    }

    #[test]
    fn arguments_and_values_are_read_twice_as_often() {
        for (sql, readings) in [
            ("SELECT a", 2),
            ("SELECT (a)", 4),
            ("SELECT f(a)", 7),
            ("SELECT f(g(a))", 17),
            ("SELECT (SELECT a)", 8),
            ("SELECT a FROM (SELECT b) c", 8),
            ("SELECT a IN (b)", 6),
        ] {
            assert_eq!(Load::of(&tokens(sql)).readings, readings, "{sql}");
        }
    }

    #[test]
    fn what_planners_choke_on_is_refused_and_what_people_write_is_not() {
        let nested = |depth: usize| format!("SELECT {}a{}", "coalesce(".repeat(depth), ", 1)".repeat(depth));
        let chain = |links: usize| format!("SELECT {}", vec!["a"; links].join(" + "));
        let union = |links: usize| vec!["SELECT 1"; links].join(" UNION ALL ");
        let rows = format!("INSERT INTO t VALUES {}", vec!["(-1, 'a', 2 + 3)"; 5_000].join(", "));
        for passed in [nested(14), chain(CHAIN_MAX), union(CHAIN_MAX), rows] {
            check(&tokens(&passed)).unwrap();
        }
        for (refused, why) in [
            (nested(30), "nested too deeply"),
            (chain(CHAIN_MAX + 2), "in one chain"),
            (union(CHAIN_MAX + 2), "in one chain"),
            (format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300)), "brackets are nested"),
            (format!("SELECT 1{}", "::INT".repeat(600)), "in one chain"),
        ] {
            let error = check(&tokens(&refused)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
