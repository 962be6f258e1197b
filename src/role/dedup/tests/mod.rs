//! The role and its transaction over real PostgreSQL: a rig of databases, and what must hold.

pub(super) mod rig;
mod role;
mod transaction;
