//! Secrets in files and values: which are taken, and that none is ever shown.

use super::*;

#[test]
fn secrets_in_files() {
    let place = Place::new();
    let read = |name: &str, text: &str, mode| {
        let path = place.write(name, text, mode).display().to_string();
        let section =
            format!("database: {{ host: h, database: d, user: u, password_file: {path} }}\n");
        place
            .gatherer(&with_database(&section))
            .map_err(|e| listed(&e).remove(0).replace(&path, "F"))
    };
    let password = |loaded: Loaded<Gatherer>| loaded.config.database.password.unwrap().expose();
    assert_eq!(read("a", "p w\n", 0o600).map(password), Ok("p w".to_owned()));
    assert_eq!(read("b", "p\r\n", 0o440).map(password), Ok("p".to_owned()));
    assert_eq!(read("c", "p\n\n", 0o600).map(password), Ok("p\n".to_owned()));
    let problem = |loaded: Result<Loaded<Gatherer>, String>| loaded.map(|_| ()).unwrap_err();
    assert_eq!(
        problem(read("d", CANARY, 0o644)),
        "7: database.password_file: `F` is open to everybody (mode 0644): run `chmod 0640 F`"
    );
    assert_eq!(problem(read("e", "\n", 0o600)), "7: database.password_file: gives an empty secret");
    assert_eq!(
        problem(read("f", &"x".repeat(70_000), 0o600)),
        "7: database.password_file: `F` is larger than 65536 bytes"
    );
    for path in ["/nonexistent/canary", "/etc", "/dev/zero"] {
        let section =
            format!("database: {{ host: h, database: d, user: u, password_file: {path} }}\n");
        let problems = place.database_problems(&section);
        assert!(
            problems[0].contains("cannot be read") || problems[0].ends_with("is not a file"),
            "{problems:?}"
        );
    }
    assert_eq!(
        place.database_problems(
            "database: { host: h, database: d, user: u, password: x, password_file: y }\n"
        ),
        ["7: database.password_file: is given beside `password`: keep one of them"]
    );
    assert_eq!(
        place.database_problems(
            "database: { host: h, database: d, user: u, password_secret: vault:x }\n"
        ),
        ["7: database.password_secret: `vault:x` begins neither with aws: nor with file:"]
    );
}

/// A database's password is read when it is needed; a key is needed at once.
#[test]
fn secrets_that_are_kept_elsewhere() {
    let place = Place::new();
    let kept = |name: &str| format!("file:{}", place.path(name).display());
    let section = format!(
        "database: {{ host: h, database: d, user: u, password_secret: '{}' }}\n",
        kept("db.secret")
    );
    let loaded = place.gatherer(&with_database(&section)).unwrap();
    let password = loaded.config.database.password.unwrap();
    assert_eq!(password.store().unwrap().place().to_string(), kept("db.secret"));

    let source = with_database(DATABASE);
    let key = source.replace(
        "private_key_file: ${KEY_FILE}",
        &format!("private_key_secret: '{}'", kept("key.secret")),
    );
    let problems = place.problems(&key);
    assert!(problems[0].starts_with("6: api.private_key_secret: file:/"), "{problems:?}");
    assert!(problems[0].ends_with("has no current version"), "{problems:?}");
    let held = serde_json::json!({
        "kalshi_secret": 1,
        "current": { "id": "1", "created_at": 1, "value": private_key() },
    });
    place.write("key.secret", &held.to_string(), 0o640);
    place.write("id.secret", "key-2\n", 0o640);
    let id = format!("key_id_secret: '{}'", kept("id.secret"));
    let loaded = place.gatherer(&key.replace("key_id: ${KALSHI_KEY_ID}", &id)).unwrap();
    assert_eq!(loaded.config.api.credentials.unwrap().current().key_id(), "key-2");
    place.write("id.txt", "key-3\n", 0o640);
    let id = format!("key_id_file: {}", place.path("id.txt").display());
    let loaded = place.gatherer(&source.replace("key_id: ${KALSHI_KEY_ID}", &id)).unwrap();
    assert_eq!(loaded.config.api.credentials.unwrap().current().key_id(), "key-3");
}

#[test]
fn keys_are_for_their_owner_only() {
    let place = Place::new();
    let source = with_database(DATABASE);
    let path = place.path("key.pem");
    for (mode, fine) in
        [(0o400, true), (0o600, true), (0o440, false), (0o644, false), (0o602, false)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let result = place.gatherer(&source);
        assert_eq!(result.is_ok(), fine, "{mode:o}");
        if let Err(error) = result {
            let cure = format!("run `chmod 0400 {}`", path.display());
            assert!(error.to_string().ends_with(&cure), "{error}");
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    let directory = place.dir.path().display().to_string();
    let environment = Environment::given([
        ("KALSHI_KEY_ID", "k".to_owned()),
        ("KEY_FILE", path.display().to_string()),
        ("CREDENTIALS_DIRECTORY", directory),
    ]);
    let read = |root: Root<'_>| gatherer::read(root.section);
    assert!(parse(Path::new("g.yaml"), &source, &environment, read).is_ok());

    let inline = source.replace("private_key_file: ${KEY_FILE}", "private_key: ${PEM}");
    assert!(place.gatherer(&inline).is_ok());
    let garbage = source.replace("private_key_file: ${KEY_FILE}", "private_key: ${CANARY}");
    let problems = place.problems(&garbage);
    assert!(problems[0].starts_with("6: api.private_key: is no usable key"), "{problems:?}");
    let none = source.replace("  private_key_file: ${KEY_FILE}\n", "");
    assert_eq!(place.problems(&none), ["2: api.private_key_file: is required"]);
}

#[test]
fn no_secret_is_ever_shown() {
    let place = Place::new();
    let loaded = place
        .gatherer(&with_database(
            "database: { host: h, database: d, user: u, password: ${CANARY} }\n",
        ))
        .unwrap();
    let url =
        place.gatherer(&with_database("database: { url: postgres://u:${CANARY}@h/d }\n")).unwrap();
    let dedup = place
        .deduplicator("deduplicator_id: d\nproduction: { url: postgres://u:canary-5e1f@h/d }\ngatherers: [ { id: a, database: { host: h, database: d, user: u, password: canary-5e1f } } ]\n")
        .unwrap();
    for debug in [format!("{loaded:?}"), format!("{:#?}", url), format!("{dedup:?}")] {
        assert!(!debug.contains(CANARY) && !debug.contains("PRIVATE"), "{debug}");
        assert!(debug.contains("redacted"), "{debug}");
    }
    // A secret in every wrong place: messages quote the file, never what a variable holds.
    for (from, to) in [
        ("g1", "${CANARY} x"),
        ("https://h/trade-api/v2", "${CANARY}"),
        ("wss://h/ws", "ws://${CANARY}"),
        ("${KALSHI_KEY_ID}", "\"${CANARY} é\""),
        ("${KEY_FILE}", "/none/${CANARY}"),
        ("host: h", "host: a/${CANARY}"),
        ("user: u", "user: \"${CANARY}\\a\""),
        ("user: u", "user: u, password: \"${CANARY}\\0\""),
        ("user: u", "user: u, port: ${CANARY}"),
        ("user: u", "user: u, sslmode: ${CANARY}"),
        ("user: u", "user: u, password_secret: ${CANARY}"),
        ("user: u", "user: u, sslrootcert: ${CANARY}"),
        ("database: {", "logging: { level: ${CANARY}, format: ${CANARY} }\ndatabase: {"),
        (
            "database: {",
            "server: { health: ${CANARY} }\njournal: { max_age: ${CANARY}, max_bytes: ${CANARY} }\ndatabase: {",
        ),
    ] {
        let source = with_database(DATABASE);
        assert!(source.contains(from), "{from}");
        let source = source.replacen(from, to, 1);
        let error = place.gatherer(&source).map(|_| to).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(CANARY), "{error}");
    }
}
