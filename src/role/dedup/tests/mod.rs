//! The role and its transaction over real PostgreSQL: a rig of databases, and what must hold.

mod contributions;
mod disk;
mod partitions;
mod property;
mod rig;
mod role;
mod status;
mod transaction;
