//! A gatherer whose database is cut off by the network: no reset, no refusal, only silence, as when
//! a cable is pulled. In a network namespace of its own, whose link goes down.

#![allow(clippy::indexing_slicing, reason = "tests say what must hold")]

mod support;

use std::fs;
use std::process::Command;

use support::{Cluster, Exchange, Process, gatherer_file, migrate, wait_for};

/// The two ends of the link: the database's and the gatherer's.
const DATABASE: &str = "10.231.77.1";
const GATHERER: &str = "10.231.77.2";

/// A network namespace with a link to this one; both go with it.
struct Namespace {
    name: String,
    link: String,
}

impl Namespace {
    fn new() -> Self {
        let id = std::process::id();
        let space = Self { name: format!("kalshi-{id}"), link: format!("kal{id}a") };
        let far = format!("kal{id}b");
        let (name, link) = (space.name.as_str(), space.link.as_str());
        ip(&["netns", "add", name]);
        ip(&["link", "add", link, "type", "veth", "peer", "name", &far, "netns", name]);
        ip(&["addr", "add", &format!("{DATABASE}/30"), "dev", link]);
        ip(&["link", "set", link, "up"]);
        ip(&["-n", name, "addr", "add", &format!("{GATHERER}/30"), "dev", &far]);
        ip(&["-n", name, "link", "set", &far, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        space
    }

    /// What a command line begins with to run inside.
    fn inside(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    fn set(&self, state: &str) {
        ip(&["link", "set", &self.link, state]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with either end.
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("run ip (package iproute2)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {errors}: this test needs root");
}

#[test]
fn a_database_behind_a_dead_link_costs_time_and_no_frame() {
    let root = tempfile::tempdir().expect("a directory");
    let namespace = Namespace::new();
    let cluster =
        Cluster::start_with(root.path(), &format!("-c listen_addresses=127.0.0.1,{DATABASE}"));
    cluster.admit(&format!("{GATHERER}/32"));
    cluster.sql("postgres", "CREATE DATABASE g1");
    let exchange = Exchange::start_in(
        &namespace.inside(),
        &["--markets", "20", "--rate", "300", "--seed", "4"],
    );
    let file = gatherer_file(root.path(), "g1", "gatherer-1", &exchange, &cluster, "g1");
    // Over loopback, from here; the gatherer itself goes over the link.
    migrate(&file.path);
    let text = fs::read_to_string(&file.path).expect("the configuration");
    let text = text.replace(
        &format!("host: 127.0.0.1, port: {}", cluster.port),
        &format!("host: {DATABASE}, port: {}", cluster.port),
    );
    fs::write(&file.path, text).expect("write the configuration");
    let path = file.path.to_str().expect("UTF-8");
    let mut gatherer = Process::start_in(
        &namespace.inside(),
        &["gather", "--config", path],
        root.path().join("g1.log"),
    );
    let head = || cluster.number("g1", "SELECT head FROM logs WHERE name = 'orderbook_deltas'");
    wait_for("changes over the link", || (head() >= 500).then_some(()));

    namespace.set("down");
    wait_for("the gatherer to notice", || {
        gatherer.log().contains("batch waits for the database").then_some(())
    });
    let before = head();
    // Long enough that the database has given up on the old sessions, or still holds them: either
    // way the gatherer must come back by itself.
    wait_for("frames to pile up in the journal", || {
        let bytes = fs::read_dir(&file.journal).expect("the journal").flatten();
        let bytes = bytes.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len());
        (bytes.sum::<u64>() > 2 << 20).then_some(())
    });
    assert_eq!(head(), before, "nothing can have arrived");
    namespace.set("up");
    wait_for("the changes of the time without a link", || (head() >= before + 5_000).then_some(()));
    assert!(gatherer.stop().success(), "{}", gatherer.log());

    // Nothing was missed: every stretch ended because we stopped (or its market went), and each
    // counts exactly the rows that are there.
    let reasons = "SELECT string_agg(DISTINCT ended_by, ',' ORDER BY ended_by) FROM coverage \
                   WHERE ended_by NOT IN ('stop', 'unsubscribed', 'continues')";
    assert_eq!(cluster.sql("g1", reasons), "", "{}", gatherer.log());
    let counted = "SELECT sum(records) FROM coverage WHERE channel = 'orderbook_delta'";
    assert_eq!(cluster.number("g1", counted), head());
    let dense = "SELECT count(*) - max(log_seq) FROM orderbook_deltas";
    assert_eq!(cluster.number("g1", dense), 0);
}
