//! How large a query is once its views and its WITH are written out. What names the one before it twice, step
//! after step, doubles at each: planning it would take the rest of the day, so it is refused before.
//!
//! Counted   relations in FROM, each as often as it would be written; a materialized view is one, and so is a
//!           query that names none
//! Depth     plain views over plain views
//! Names     queries in WITH: each is planned within all that name it

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use tidegate_types::error::{Error, Result};

pub const RELATIONS_MAX: usize = 256;
pub const DEPTH_MAX: usize = 64;
pub const NAMES_MAX: usize = 256;

/// Of a query, or of the view that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub relations: usize,
    pub depth: usize,
}

impl Size {
    /// Of what is kept as rows.
    const ONE: Self = Self { relations: 1, depth: 0 };

    /// `view`: the size of the plain view of that name, in lower case.
    ///
    /// Errors: it is too large to be planned.
    pub fn of(query: &Query, view: impl Fn(&str) -> Option<Self>) -> Result<Self> {
        let mut measuring = Measuring { view, open: vec![Open::default()], names: 0 };
        // The visitor never breaks off.
        let _ = query.visit(&mut measuring);
        let Self { relations, depth } = measuring.open.pop().map_or(Self::ONE, |open| open.size);
        let size = Self { relations, depth: depth + 1 };
        if RELATIONS_MAX < size.relations {
            return Err(Error::user(format!("with its views written out the query has more than {RELATIONS_MAX} relations in FROM"))
                .hint("keep what is named often: CREATE MATERIALIZED VIEW"));
        }
        if NAMES_MAX < measuring.names {
            return Err(Error::user(format!("{} queries in WITH are more than the {NAMES_MAX} allowed", measuring.names))
                .hint("keep some of them: CREATE VIEW, or CREATE MATERIALIZED VIEW"));
        }
        if DEPTH_MAX < size.depth {
            return Err(Error::user(format!("views are more than {DEPTH_MAX} deep over one another"))
                .hint("keep one on the way: CREATE MATERIALIZED VIEW"));
        }
        Ok(size)
    }
}

/// A query that is being walked through.
struct Open {
    size: Size,
    /// Its WITH: where each query is, and its name.
    named: Vec<(*const Query, String)>,
    /// Those that were walked through.
    known: BTreeMap<String, Size>,
}

impl Default for Open {
    fn default() -> Self {
        Self { size: Size { relations: 0, depth: 0 }, named: Vec::new(), known: BTreeMap::new() }
    }
}

impl Open {
    fn add(&mut self, size: Size) {
        self.size.relations = self.size.relations.saturating_add(size.relations);
        self.size.depth = self.size.depth.max(size.depth);
    }
}

struct Measuring<F> {
    view: F,
    open: Vec<Open>,
    names: usize,
}

impl<F: Fn(&str) -> Option<Size>> Visitor for Measuring<F> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.names += tables.clone().count();
        let named = tables.map(|table| (&raw const *table.query, table.alias.name.value.to_lowercase())).collect();
        self.open.push(Open { named, ..Open::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let (Some(mut closed), Some(around)) = (self.open.pop(), self.open.last_mut()) {
            closed.size.relations = closed.size.relations.max(1);
            match around.named.iter().find(|(named, _)| std::ptr::eq(*named, query)) {
                Some((_, name)) => drop(around.known.insert(name.clone(), closed.size)),
                None => around.add(closed.size),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.to_string().replace('"', "").to_lowercase();
        let known = self.open.iter().rev().find_map(|open| open.known.get(&name).copied());
        let size = known.or_else(|| (self.view)(&name)).unwrap_or(Size::ONE);
        if let Some(open) = self.open.last_mut() {
            open.add(size);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, parse};

    fn size(sql: &str) -> Result<Size> {
        let view = |name: &str| (name == "three").then_some(Size { relations: 3, depth: 7 });
        let Statement::Query(query) = parse(sql, "test").unwrap().remove(0).statement else { panic!("{sql} is no query") };
        Size::of(&query, view)
    }

    #[test]
    fn relations_are_counted_as_often_as_they_would_be_written() {
        for (sql, relations, depth) in [
            ("SELECT 1", 1, 1),
            ("SELECT * FROM (VALUES (1)) AS v, (SELECT 1) AS w", 2, 1),
            ("SELECT * FROM a", 1, 1),
            ("SELECT * FROM a JOIN THREE USING (x) WHERE x IN (SELECT x FROM three)", 7, 8),
            ("WITH w AS (SELECT * FROM a, b) SELECT * FROM w, w AS v", 4, 1),
            ("WITH w AS (SELECT * FROM a, b), v AS (SELECT * FROM w, w) SELECT * FROM v, w", 6, 1),
            ("WITH w AS (SELECT * FROM a, b) SELECT * FROM (WITH w AS (SELECT * FROM a) SELECT * FROM w, w) AS v", 2, 1),
            ("SELECT * FROM (SELECT * FROM three) AS s UNION ALL SELECT * FROM a", 4, 8),
        ] {
            assert_eq!(size(sql).unwrap(), Size { relations, depth }, "{sql}");
        }
    }

    #[test]
    fn a_long_row_of_names_is_refused() {
        let row = |names: usize| {
            let named: Vec<String> = (1..names).map(|i| format!("w{i} AS (SELECT * FROM w{})", i - 1)).collect();
            size(&format!("WITH w0 AS (SELECT 1), {} SELECT 1", named.join(", ")))
        };
        assert!(row(NAMES_MAX).is_ok());
        let refused = row(NAMES_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("257 queries in WITH are more than the 256 allowed"), "{refused}");
    }

    #[test]
    fn what_doubles_at_each_step_is_refused() {
        let doubled: Vec<String> = (1..60).map(|i| format!("w{i} AS (SELECT * FROM w{0} UNION ALL SELECT * FROM w{0})", i - 1)).collect();
        for first in ["SELECT * FROM a", "SELECT 1", "VALUES (1)"] {
            let refused = size(&format!("WITH w0 AS ({first}), {} SELECT * FROM w59", doubled.join(", "))).unwrap_err();
            assert!(refused.to_string().contains("more than 256 relations"), "{first}: {refused}");
        }
    }
}
