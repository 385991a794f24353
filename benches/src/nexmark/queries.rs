//! The queries, and what others needed for them.

use tidegate_types::error::{Error, Result, did_you_mean};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Person,
    Auction,
    Bid,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Auction => "auction",
            Self::Bid => "bid",
        }
    }

    pub fn create(self) -> &'static str {
        match self {
            Self::Person => include_str!("../../nexmark/person.sql"),
            Self::Auction => include_str!("../../nexmark/auction.sql"),
            Self::Bid => include_str!("../../nexmark/bid.sql"),
        }
    }
}

#[derive(Debug)]
pub struct Query {
    pub name: &'static str,
    pub sql: &'static str,
    /// The same in DuckDB's words.
    pub duckdb: &'static str,
    /// Only these are created and read.
    pub sources: &'static [Source],
    /// A row in is one row out, or none.
    pub is_stateless: bool,
    /// Columns whose values depend on which of equal rows comes first.
    pub decided_by_ties: &'static [&'static str],
    /// What Flink SQL needed for 5,000,000 events: PyFlink 2.x, local mini-cluster, parallelism 2,
    /// mini-batch and two-phase aggregation, heap state, no checkpoints, JVM start excluded; median
    /// of 3 on a quiet 2-core, 24 GiB machine. Measured elsewhere, once; see README.md.
    pub flink_seconds: f64,
}

use Source::{Auction, Bid, Person};

macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../nexmark/", $name, ".sql"))
    };
}

impl Query {
    const fn new(name: &'static str, sql: &'static str, sources: &'static [Source], flink_seconds: f64) -> Self {
        Self { name, sql, duckdb: sql, sources, is_stateless: false, decided_by_ties: &[], flink_seconds }
    }

    const fn in_duckdb(self, duckdb: &'static str) -> Self {
        Self { duckdb, ..self }
    }

    const fn stateless(self) -> Self {
        Self { is_stateless: true, ..self }
    }

    const fn tied(self, decided_by_ties: &'static [&'static str]) -> Self {
        Self { decided_by_ties, ..self }
    }
}

pub static ALL: [Query; 19] = [
    Query::new("q0", sql!("q0"), &[Bid], 8.88).stateless(),
    Query::new("q1", sql!("q1"), &[Bid], 9.18).stateless(),
    Query::new("q2", sql!("q2"), &[Bid], 8.41).stateless(),
    Query::new("q3", sql!("q3"), &[Auction, Person], 1.77),
    Query::new("q4", sql!("q4"), &[Auction, Bid], 18.36),
    Query::new("q5", sql!("q5"), &[Bid], 10.51).in_duckdb(sql!("q5.duckdb")),
    Query::new("q7", sql!("q7"), &[Bid], 28.29).in_duckdb(sql!("q7.duckdb")),
    Query::new("q8", sql!("q8"), &[Person, Auction], 2.19).in_duckdb(sql!("q8.duckdb")),
    Query::new("q9", sql!("q9"), &[Auction, Bid], 29.54),
    Query::new("q12", sql!("q12"), &[Bid], 9.75).in_duckdb(sql!("q12.duckdb")),
    Query::new("q14", sql!("q14"), &[Bid], 9.31).stateless(),
    Query::new("q15", sql!("q15"), &[Bid], 9.56),
    Query::new("q16", sql!("q16"), &[Bid], 23.21).in_duckdb(sql!("q16.duckdb")),
    Query::new("q17", sql!("q17"), &[Bid], 10.12),
    Query::new("q18", sql!("q18"), &[Bid], 14.86).tied(&["price", "channel", "url", "extra"]),
    Query::new("q19", sql!("q19"), &[Bid], 15.44).tied(&["bidder", "channel", "url", "date_time", "extra"]),
    Query::new("q20", sql!("q20"), &[Bid, Auction], 21.73),
    Query::new("q21", sql!("q21"), &[Bid], 11.29).in_duckdb(sql!("q21.duckdb")).stateless(),
    Query::new("q22", sql!("q22"), &[Bid], 8.38).stateless(),
];

/// The queries of these names in the suite's order; all where none is named.
pub fn named(names: &[String]) -> Result<Vec<&'static Query>> {
    for name in names {
        if !ALL.iter().any(|query| query.name == name) {
            let all: Vec<&str> = ALL.iter().map(|query| query.name).collect();
            let hint = match did_you_mean(name, all.iter().copied()) {
                Some(close) => format!("did you mean \"{close}\"?"),
                None => format!("there are {}", all.join(", ")),
            };
            return Err(Error::user(format!("there is no query \"{name}\"")).hint(hint));
        }
    }
    let wanted = |query: &&Query| names.is_empty() || names.iter().any(|name| name == query.name);
    Ok(ALL.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_read_the_sources_they_name() {
        for query in &ALL {
            let words = query.sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            let words: Vec<&str> = words.collect();
            let reads = |name: &str| {
                let is_read = |pair: &[&str]| ["FROM", "JOIN", "TUMBLE", "HOP"].contains(&pair[0]) && pair[1] == name;
                // q4 lists its relations: auction a, bid b.
                words.windows(2).any(is_read) || query.sql.contains(&format!(", {name} {}\n", &name[..1]))
            };
            for source in [Person, Auction, Bid] {
                assert_eq!(query.sources.contains(&source), reads(source.name()), "{} and {}", query.name, source.name());
            }
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(named(&[]).unwrap().len(), 19);
        assert_eq!(named(&["q5".into(), "q0".into()]).unwrap()[1].name, "q5");
        assert!(named(&["q6".into()]).unwrap_err().to_string().contains("there is no query \"q6\""));
    }
}
