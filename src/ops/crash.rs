//! Places where a test may end the process as kill -9 does: without unwinding, flushing or goodbye.
//!
//! Only a build with `--features failpoints` has them; `FAILPOINTS="name=40*off->return"` then ends
//! the process when the place is passed for the 41st time. In all other builds they are nothing.

/// Passes a place by its name.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    fail::fail_point!(name, |_| std::process::abort());
}

/// Passes a place by its name.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn point(_name: &str) {}

/// Arms the places that the environment names, for the life of the process.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Dropping the scenario would disarm them.
    std::mem::forget(fail::FailScenario::setup());
}
