//! The bad day, from a seed: an engine on a machine whose disk forgets, tears, fills up and rots,
//! whose clock steps back and whose power fails, among partners that lose answers.
//!
//! In reading order: the machine ([`machine`]) and its disk ([`disk`]), the world around it
//! ([`world`]); what happens ([`schedule`]), to an engine that may end at any point ([`process`]);
//! what must hold at every look ([`oracle`]) and in the end ([`owed`]); and all of it carried out
//! ([`scenario`]).

pub mod disk;
pub mod machine;
pub mod oracle;
pub mod owed;
pub mod process;
pub mod scenario;
pub mod schedule;
pub mod world;
