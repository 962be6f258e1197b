//! Tests of this module against a real server, one server a test.

mod copying;
mod dividing;
mod locking;
mod migrating;
mod securing;
mod sessions;
mod targets;
