//! `admin`: the access of whoever migrates, which no daemon reads.

use super::*;

const GATHERER: &str = "gatherer_id: g\ndatabase: { host: db.internal, port: 6000, database: d, user: u, \
                        password: ${NOT_THERE}, sslmode: require }\n";

fn load(place: &Place, source: &str) -> Result<Database, Vec<String>> {
    parse(Path::new("x.yaml"), source, &place.environment(), either)
        .map(|loaded| loaded.config)
        .map_err(|errors| listed(&errors))
}

#[test]
fn it_takes_what_it_does_not_say_from_the_database_beside_it() {
    let place = Place::new();
    let loaded = load(&place, &format!("{GATHERER}admin: {{ user: postgres }}\n")).unwrap();
    let admin = loaded.admin.unwrap();
    assert_eq!(admin.to_string(), "postgres@db.internal:6000/d");
    assert_eq!(admin.tls, TlsMode::Require);
    assert!(admin.password.is_none(), "the other login's password is not even read");

    let own = "admin: { host: /var/run/postgresql, port: 5432, user: boss, password: ${CANARY}, sslmode: \
               disable }\n";
    let admin = load(&place, &format!("{GATHERER}{own}")).unwrap().admin.unwrap();
    assert_eq!(admin.to_string(), "boss@/var/run/postgresql:5432/d");
    assert_eq!(admin.tls, TlsMode::Disable);
    assert_eq!(admin.password.as_ref().unwrap().expose(), CANARY);
    assert!(!format!("{admin:?}").contains(CANARY));

    let production = "deduplicator_id: d\nproduction: { url: 'postgres://u@h/p?sslmode=verify-full' }\n\
                      admin: { user: boss, password: x }\n";
    let admin = load(&place, production).unwrap().admin.unwrap();
    assert_eq!((admin.to_string().as_str(), admin.tls), ("boss@h:5432/p", TlsMode::VerifyFull));

    let without = "deduplicator_id: d\nproduction: { host: h, database: p, user: u }\nadmin:\n";
    assert!(load(&place, without).unwrap().admin.is_none());
}

#[test]
fn what_is_wrong_with_it_is_told_by_its_key() {
    let place = Place::new();
    let problems = load(
        &place,
        &format!(
            "{GATHERER}admin: {{ port: 0, sslmode: on, database: other, password: a, password_file: b }}\n"
        ),
    )
    .unwrap_err();
    for key in
        ["admin.port", "admin.sslmode", "admin.user", "admin.database", "admin.password_file"]
    {
        assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:?}");
    }
    let both = load(&place, "gatherer_id: g\ndatabase: { host: h }\nadmin: {}\n").unwrap_err();
    assert!(both.iter().any(|p| p.contains("database.database")), "{both:?}");
    assert!(both.iter().any(|p| p.contains("admin.user")), "{both:?}");
}

/// A daemon's environment does not have the administrator's password.
#[test]
fn a_daemon_reads_nothing_of_it() {
    let place = Place::new();
    let admin = "admin: { user: postgres, password: ${NOT_THERE} }\n";
    place.gatherer(&with_database(&format!("{DATABASE}{admin}"))).unwrap();
    let file = "deduplicator_id: d\ngatherers: [{ id: g, database: { host: h, database: d, user: u } }]\n\
                production: { host: p, database: d, user: u }\n";
    place.deduplicator(&format!("{file}{admin}")).unwrap();
    let unknown = "admin: { user: postgres, pasword: x }\n";
    assert_eq!(place.problems(&with_database(&format!("{DATABASE}{unknown}"))).len(), 1);
}

/// `verify` is another login of production, for the command of that name alone.
#[test]
fn verify_reads_production_with_a_login_of_its_own() {
    let place = Place::new();
    let file = "deduplicator_id: d\ngatherers: [{ id: g, database: { host: h, database: d, user: u } }]\n\
                production: { host: p, database: d, user: u, password: ${CANARY} }\n";
    let load = |more: &str| {
        let source = format!("{file}{more}");
        parse(Path::new("x.yaml"), &source, &place.environment(), |root| {
            crate::config::verify::read(root.section)
        })
    };
    let own = load("verify: { user: exporter }\n").unwrap().config;
    assert_eq!(own.production.to_string(), "exporter@p:5432/d");
    assert!(own.production.password.is_none(), "the other login's password is not handed on");
    assert_eq!(own.writer.to_string(), "u@p:5432/d");
    assert_eq!(own.gatherers[0].database.to_string(), "u@h:5432/d");
    assert_eq!(load("").unwrap().config.production.to_string(), "u@p:5432/d");
    place
        .deduplicator(&format!("{file}verify: {{ user: e, password: ${{NOT_THERE}} }}\n"))
        .unwrap();
    assert!(load("verify: { host: x }\n").is_err(), "a login has a user");
}
