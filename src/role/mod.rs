//! The roles of the program; each plugs into the core and knows no other role.

pub mod archive;
pub mod dedup;
pub mod gather;
pub mod migrate;
pub mod rotate_password;
pub mod sandbox;
pub mod verify;
