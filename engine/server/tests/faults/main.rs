//! The bad day on the real machine, with the real binary: [`kill`] ends it at any moment, [`overload`] brings
//! more than it can take, [`full`] fills its disk, [`past`] asks what it was like before, [`refused`] changes its pack in
//! vain. [`door`] speaks to it, [`load`] brings it rows, [`ledger`] holds what is in it against what clients were told,
//! [`memory`] says what it takes; the benchmarks use these four as well.

mod door;
mod full;
mod kill;
mod ledger;
mod load;
mod memory;
mod overload;
mod past;
mod refused;
#[path = "../../../../connectors/tests/compliance/server.rs"]
mod postgres;
