//! SQL to plans. Pure: the same catalog and text give the same plan.
//!
//! In reading order: a text becomes [`statement`]s, unless its [`load`] is too large, and errors have their
//! [`place`] in it; a query becomes DataFusion's optimised logical plan ([`sql`]), which is [`lower`]ed to [`node`]s, which
//! [`explain`] prints and the runtime renders; [`lookback`] tells what of the past they need.

pub mod catalog;
pub mod explain;
pub mod load;
pub mod lookback;
pub mod lower;
pub mod node;
pub mod place;
pub mod size;
pub mod sql;
pub mod statement;

pub use catalog::{Catalog, Relation, RelationKind};
pub use lookback::{Lookback, intakes, lookback, past};
pub use node::{Node, NodeRef, Op};
