//! The role and its transaction over real PostgreSQL: a rig of databases, and what must hold.

mod disk;
mod property;
mod rig;
mod role;
mod transaction;
