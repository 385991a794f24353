//! `fixpoint`: the least fixpoint of a query that reads its own result.
//!
//! SQL     WITH RECURSIVE r AS (start UNION [ALL] step over r)
//! In      whatever `build` imports into the loop
//! Out     the fixpoint, maintained under insertions and deletions, on cycles too
//! State   the arrangements inside the loop, by tick and round
//! Errors  a loop that does not settle in `ROUNDS_MAX` rounds becomes an error row
//! Source  McSherry et al., Differential Dataflow, CIDR 2013

use tidegate_types::expr::Failure;
use timely::dataflow::Scope;
use timely::dataflow::operators::core::feedback::{ConnectLoop, Feedback};
use timely::dataflow::operators::{Concat, Leave};
use timely::order::Product;

use crate::stream::{Errors, Round, Rows, Time, Timed, each};

/// Rounds after which a recursion counts as one that does not end.
pub const ROUNDS_MAX: u64 = 10_000;

/// `build` gets the loop's scope and the recursive relation, and gives the relation's next value:
/// start and step together, made distinct where the query says UNION.
pub fn fixpoint<'scope>(
    scope: Scope<'scope, u64>,
    errors: Errors,
    build: impl for<'inner> FnOnce(Scope<'inner, Round>, Rows<'inner, Round>) -> Rows<'inner, Round>,
) -> Rows<'scope, u64> {
    scope.scoped::<Round, _, _>("Fixpoint", |inner| {
        let (handle, relation) = inner.feedback::<Vec<Timed<Round>>>(Product::new(0, 1));
        let next = build(inner, relation);
        next_round(next.clone(), errors).connect_loop(handle);
        leave(next).leave(scope)
    })
}

fn next_round<'scope>(rows: Rows<'scope, Round>, errors: Errors) -> Rows<'scope, Round> {
    each(rows, "NextRound", move |Timed { time, delta }, out| {
        if time.inner < ROUNDS_MAX {
            return out.push(Timed { time: Product::new(time.outer, time.inner + 1), delta });
        }
        let reason = format!("the recursion did not settle in {ROUNDS_MAX} rounds");
        errors.report(time.tick(), "Fixpoint", Failure { reason, diff: delta.diffs.iter().sum() });
    })
}

// Timely moves the message out of the loop; the times inside it must follow. Rounds fold into
// their tick: what a later round takes back is netted at rest.
fn leave<'inner>(rows: Rows<'inner, Round>) -> timely::dataflow::Stream<'inner, Round, Vec<Timed<u64>>> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::generic::operator::Operator;
    rows.unary(Pipeline, "LeaveRounds", |_, _| {
        |input, output| {
            input.for_each(|cap, data| {
                let ticks = data.drain(..).map(|Timed { time, delta }| Timed { time: time.outer, delta });
                output.session(&cap).give_iterator(ticks);
            });
        }
    })
}

/// Rows from outside, in round 0.
pub fn enter<'outer, 'inner>(rows: Rows<'outer, u64>, inner: Scope<'inner, Round>) -> Rows<'inner, Round> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::Enter;
    use timely::dataflow::operators::generic::operator::Operator;
    rows.enter(inner).unary(Pipeline, "EnterRounds", |_, _| {
        |input, output| {
            input.for_each(|cap, data: &mut Vec<Timed<u64>>| {
                let rounds = data.drain(..).map(|Timed { time, delta }| Timed { time: Product::new(time, 0), delta });
                output.session(&cap).give_iterator(rounds);
            });
        }
    })
}

/// Both streams' rows.
pub fn union<'scope, T: Time>(left: Rows<'scope, T>, right: Rows<'scope, T>) -> Rows<'scope, T> {
    left.concat(right)
}
