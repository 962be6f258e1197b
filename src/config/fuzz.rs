//! What must hold of any text as a configuration file. Fuzzing looks for texts of which it does not.

use std::fmt::Debug;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use base64::Engine as _;

use super::*;

/// What the variables of secrets hold. No message may show it.
const SECRET: &str = "canary-5e1f";

/// A key that can be used, made anew in each process: none is kept in the repository.
static KEY: LazyLock<String> = LazyLock::new(|| {
    let der = aws_lc_rs::signature::Ed25519KeyPair::generate().ok();
    let der = der.and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).ok());
    let der = der.expect("a key can be made");
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
});

/// The variables of the examples, and nothing beside the text.
fn environment() -> Environment {
    let password = format!("{SECRET}: \"#\n{{");
    let secrets = [
        "TIMESCALEDB_PASSWORD",
        "DEDUP_READER_PASSWORD",
        "PRODUCTION_PASSWORD",
        "PRODUCTION_ADMIN_PASSWORD",
        "EXPORTER_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "SECRET",
    ];
    let plain = [
        ("KALSHI_KEY_ID", "key-1"),
        ("KALSHI_PRIVATE_KEY", KEY.as_str()),
        ("PRODUCTION_HOST", "production.internal"),
        ("AWS_ACCESS_KEY_ID", "access-1"),
        ("PORT", "6000"),
        ("EMPTY", ""),
    ];
    let secrets = secrets.into_iter().map(|name| (name, password.as_str()));
    Environment::given(secrets.chain(plain)).closed()
}

/// Reads bytes as every kind of file that there is, and checks what is said of them.
///
/// # Panics
/// When it is not what it must be.
pub fn check(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let environment = environment();
    let gatherer = |root: Root<'_>| {
        root.expect_kind(Kind::Gatherer)?;
        gatherer::read(root.section)
    };
    judge(source, &environment, gatherer);
    let deduplicator = |root: Root<'_>| {
        root.expect_kind(Kind::Deduplicator)?;
        deduplicator::read(root.section)
    };
    judge(source, &environment, deduplicator);
    judge(source, &environment, |root| archive::read_alone(root.section));
    judge(source, &environment, |root| verify::read(root.section));
    judge(source, &environment, either);
    judge(source, &environment, |root| rotation::read(root, &Wanted::All));
}

fn judge<T: Debug>(
    source: &str,
    environment: &Environment,
    read: impl Fn(Root<'_>) -> Option<(T, telemetry::Config)>,
) {
    let path = Path::new("any.yaml");
    let errors = match parse(path, source, environment, &read) {
        Ok(loaded) => {
            // Whoever prints it must be able to.
            let _text = format!("{loaded:?}");
            return;
        }
        Err(errors) => errors,
    };
    let said = errors.to_string();
    assert!(said.starts_with("any.yaml"), "{said}");
    // A text that has it itself may see it quoted.
    assert!(source.contains(SECRET) || !said.contains(SECRET), "a secret is shown: {said}");
    assert!(!errors.problems().is_empty(), "refused without a reason");
    let lines = u64::try_from(source.split(['\n', '\r']).count()).unwrap_or(u64::MAX);
    for problem in errors.problems() {
        assert!(!problem.message.is_empty(), "nothing is said about {:?}", problem.key);
        match problem.place {
            Some(place) => {
                let is_there = (1..=lines.saturating_add(1)).contains(&place.line);
                assert!(is_there && place.column >= 1, "{problem:?} in {lines} lines");
            }
            None => assert!(problem.key.is_empty(), "{problem:?} has no place"),
        }
    }
    let again = parse(path, source, environment, &read).err();
    assert_eq!(again, Some(errors), "two readings of one text");
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::ops::corpus;

    #[test]
    fn what_fuzzing_begins_with_holds() {
        corpus::replay("fuzz/corpus/config", check);
        corpus::replay("etc/kalshi", check);
    }
}
