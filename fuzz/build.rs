//! The modules ask which commit they are built from (../build.rs). Here it does not matter, and what is
//! fuzzed is not built anew for each commit.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=KALSHI_COMMIT=fuzz");
}
