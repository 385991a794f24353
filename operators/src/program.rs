//! `program`: filter and project, vectorised.
//!
//! SQL     WHERE, the SELECT list
//! In      any rows
//! Out     the rows that pass, projected; append-only where the input is
//! State   none
//! Errors  a row that cannot be computed becomes an error row
//! Source  DataFusion's physical expressions

use tidegate_types::expr::RowProgram;

use crate::stream::{Errors, Rows, Time, Timed, each};

/// Runs `plan` over every delta.
pub fn program<'scope, T: Time>(rows: Rows<'scope, T>, plan: RowProgram, errors: Errors) -> Rows<'scope, T> {
    let mut failures = Vec::new();
    each(rows, "Program", move |Timed { time, delta }, out| {
        let done = plan.run(&delta, &mut failures);
        for failure in failures.drain(..) {
            errors.report(time.tick(), "Program", failure);
        }
        out.push(Timed { time, delta: done });
    })
}
