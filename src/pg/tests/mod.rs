//! Tests of this module against a real server, one server a test.

mod admitting;
mod authority;
mod copying;
mod dividing;
mod interrupted;
mod locking;
mod migrating;
mod roles;
mod securing;
mod sessions;
mod targets;
