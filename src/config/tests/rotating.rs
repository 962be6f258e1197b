//! Which databases and which secret a role has for `kalshi rotate-password`.

use super::super::rotation::{self, Wanted};
use super::*;
use crate::role::rotate_password::{Job, Strategy};

const FLEET: &str = "deduplicator_id: d
production: { host: prod, database: p, user: deduplicator, password_secret: 'aws:kalshi/d#password' }
gatherers:
  - { id: g1, database: { host: one, database: k, user: dedup_reader, password_secret: 'aws:kalshi/r' } }
  - { id: g2, database: { host: two, database: k, user: dedup_reader, password_secret: 'aws:kalshi/r' } }
admin: { user: boss, password: ${CANARY} }
";

const LIST: &str = "rotation:
  - { role: deduplicator }
  - { role: dedup_reader }
  - { role: gatherer, gatherers: [g1], secret: 'aws:kalshi/g1', admin: { user: root } }
  - { role: exporter, secret: 'file:/etc/kalshi/exporter.secret', strategy: alternating, reload: 'true' }
";

fn role(name: &str, secret: Option<&str>) -> Wanted {
    Wanted::Role {
        name: name.to_owned(),
        secret: secret.map(str::to_owned),
        strategy: Strategy::Single,
        reload: None,
    }
}

fn jobs(source: &str, wanted: &Wanted) -> Result<Vec<Job>, Vec<String>> {
    let place = Place::new();
    let read = |root: Root<'_>| rotation::read(root, wanted);
    parse(Path::new("x.yaml"), source, &place.environment(), read)
        .map(|loaded| loaded.config)
        .map_err(|errors| listed(&errors))
}

fn shown(job: &Job) -> String {
    let databases = job.databases.iter().map(|database| {
        let admin = database.admin.as_ref().map(|admin| format!(" by {}", admin.user));
        format!("{}{}", database.target, admin.unwrap_or_default())
    });
    let databases: Vec<String> = databases.collect();
    format!("{} in {}: {}", job.role, job.store.place(), databases.join(", "))
}

#[test]
fn a_role_has_the_databases_that_are_logged_in_to_as_it() {
    let one = |name, secret| {
        let jobs = jobs(FLEET, &role(name, secret)).unwrap();
        assert_eq!(jobs.len(), 1);
        shown(&jobs[0])
    };
    assert_eq!(
        one("deduplicator", None),
        "deduplicator in aws:kalshi/d#password: deduplicator@prod:5432/p by boss"
    );
    assert_eq!(
        one("dedup_reader", None),
        "dedup_reader in aws:kalshi/r: dedup_reader@one:5432/k, dedup_reader@two:5432/k"
    );
    assert_eq!(
        one("exporter", Some("aws:kalshi/e")),
        "exporter in aws:kalshi/e: exporter@prod:5432/p by boss"
    );
    let several = FLEET.replacen("aws:kalshi/r", "aws:kalshi/r1", 1);
    let jobs_of = jobs(&several, &role("dedup_reader", Some("aws:kalshi/r1"))).unwrap();
    assert_eq!(shown(&jobs_of[0]), "dedup_reader in aws:kalshi/r1: dedup_reader@one:5432/k");
}

#[test]
fn the_list_is_for_all() {
    let all = jobs(&format!("{FLEET}{LIST}"), &Wanted::All).unwrap();
    let shown: Vec<String> = all.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            "deduplicator in aws:kalshi/d#password: deduplicator@prod:5432/p by boss",
            "dedup_reader in aws:kalshi/r: dedup_reader@one:5432/k, dedup_reader@two:5432/k",
            "gatherer in aws:kalshi/g1: gatherer@one:5432/k by root",
            "exporter in file:/etc/kalshi/exporter.secret: exporter@prod:5432/p by boss",
        ]
    );
    assert_eq!(all[3].strategy, Strategy::Alternating);
    assert_eq!(all[3].reload.as_deref(), Some("true"));
    // A daemon reads the same file.
    let place = Place::new();
    place.deduplicator(&format!("{FLEET}{LIST}")).unwrap();
    let wrong = LIST.replace("{ role: deduplicator }", "{ rol: x }");
    assert!(place.deduplicator(&format!("{FLEET}{wrong}")).is_err());
}

#[test]
fn what_cannot_follow_a_rotation_is_refused() {
    let plain = "gatherer_id: g\ndatabase: { host: h, database: d, user: gatherer, password: ${NOT_THERE} }\n";
    for (source, wanted, words) in [
        (plain, role("gatherer", Some("aws:x")), "stands in `database.password` of this file"),
        (FLEET, role("exporter", None), "says not where the password of exporter is kept"),
        (FLEET, role("exporter", Some("vault:x")), "begins neither with aws: nor with file:"),
        (FLEET, Wanted::All, "lists no role"),
    ] {
        let problems = jobs(source, &wanted).map(|_| ()).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
    }
    let entry = "rotation: [ { role: deduplicator, strategy: alternating } ]\n";
    let problems = jobs(&format!("{FLEET}{entry}"), &Wanted::All).map(|_| ()).unwrap_err();
    assert!(
        problems[0].contains("log in as deduplicator and read the secret again"),
        "{problems:?}"
    );
    let several = FLEET.replacen("aws:kalshi/r", "aws:kalshi/r1", 1);
    let problems = jobs(&several, &role("dedup_reader", None)).map(|_| ()).unwrap_err();
    assert!(problems[0].contains("has several secrets in this file"), "{problems:?}");
    let unknown = LIST.replace("[g1]", "[g9]");
    let problems = jobs(&format!("{FLEET}{unknown}"), &Wanted::All).map(|_| ()).unwrap_err();
    assert!(problems[0].contains("names a gatherer \"g9\" for gatherer"), "{problems:?}");
}
