//! The role and its transaction over real PostgreSQL: a rig of databases, and what must hold.

mod answers;
mod contributions;
mod disk;
mod partitions;
mod property;
pub(super) mod rig;
mod role;
mod status;
mod transaction;
