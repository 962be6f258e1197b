//! The first stage: the YAML as written, every scalar as text and every node with its place.
//!
//! Nothing is judged here but the syntax. Types are left to whoever reads a key, so that a wrong one
//! does not hide the next, and so that a number or a word of yes and no can come from a variable.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// One value of the file. Has no `Debug`: it may hold a password.
pub struct Node {
    pub place: Place,
    pub value: Value,
}

pub enum Value {
    /// Nothing was written, or `null`, or `~`.
    Null,
    /// A scalar as written, without its quotes.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

pub struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Node {
    /// What a person would call it.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A syntax error. The text quotes nothing of the file but keys.
#[derive(Debug)]
pub struct Syntax {
    pub place: Option<Place>,
    pub message: String,
}

/// Parses one document.
pub fn parse(source: &str) -> Result<Node, Syntax> {
    let source = shield(source).map_err(|message| Syntax { place: None, message })?;
    let options = serde_yaml::options! {
        // A snippet of the file in an error could show a password.
        with_snippet: false,
        // Far above any real configuration; stops a file that is built to explode.
        budget: serde_yaml::budget! {
            max_nodes: 20_000,
            max_events: 50_000,
            max_depth: 32,
            max_documents: 1,
            max_aliases: 200,
            max_total_scalar_bytes: 1 << 20,
        },
    };
    let document: Spanned<Untyped> =
        serde_yaml::from_str_with_options(&source, options).map_err(|error| Syntax {
            place: error.location().map(Place::from).filter(|place| place.line > 0),
            message: in_our_words(&error)
                .map_or_else(|| without_place(&unshield(&error.to_string())), str::to_owned),
        })?;
    Ok(resolve(document, &source))
}

/// What serde sees of a node.
enum Untyped {
    Null,
    Text(String),
    /// A plain scalar that looks like a number or a word of yes and no: its text is in the source. The
    /// string stands in where the source cannot be found.
    Plain(String),
    List(Vec<Spanned<Untyped>>),
    Map(Vec<(Spanned<String>, Spanned<Untyped>)>),
}

struct UntypedVisitor;

impl<'de> Visitor<'de> for UntypedVisitor {
    type Value = Untyped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Untyped, E> {
        Ok(Untyped::Null)
    }

    fn visit_none<E>(self) -> Result<Untyped, E> {
        Ok(Untyped::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Untyped, E> {
        Ok(Untyped::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Untyped, E> {
        Ok(Untyped::Text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Untyped, E> {
        Ok(Untyped::Plain(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Untyped, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Untyped::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Untyped, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Untyped>)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if entries.iter().any(|(other, _)| other.value == key.value) {
                return Err(A::Error::custom(format!("key `{}` is given twice", key.value)));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Untyped::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Untyped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UntypedVisitor)
    }
}

fn resolve(node: Spanned<Untyped>, source: &str) -> Node {
    let place = Place::from(node.referenced);
    let value = match node.value {
        Untyped::Null => Value::Null,
        Untyped::Text(text) => Value::Text(unshield(&text)),
        Untyped::Plain(text) => Value::Text(written(node.defined, source).unwrap_or(text)),
        Untyped::List(nodes) => {
            Value::List(nodes.into_iter().map(|node| resolve(node, source)).collect())
        }
        Untyped::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| Entry {
                    place: Place::from(key.referenced),
                    key: unshield(&key.value),
                    node: resolve(node, source),
                })
                .collect(),
        ),
    };
    Node { place, value }
}

/// A plain scalar as it stands in the file: `007` and `1_000` are not what a parser makes of them.
fn written(defined: Location, source: &str) -> Option<String> {
    let span = defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let text = source.get(start..end)?.trim();
    (!text.is_empty()).then(|| unshield(text))
}

/// The characters that would end a plain scalar inside `${...}`, and what stands for them while the
/// YAML is parsed: inside `{ password: ${VAR} }` a brace would otherwise open a mapping. Each stand-in is
/// one character too, so places stay right.
const SHIELDED: [(char, char); 7] = [
    ('{', '\u{f0000}'),
    ('}', '\u{f0001}'),
    (',', '\u{f0002}'),
    ('[', '\u{f0003}'),
    (']', '\u{f0004}'),
    (':', '\u{f0005}'),
    ('#', '\u{f0006}'),
];

/// Replaces those characters in every `${...}` that ends on its line.
fn shield(source: &str) -> Result<String, String> {
    if SHIELDED.iter().any(|(_, stand_in)| source.contains(*stand_in)) {
        return Err("holds a character from U+F0000 to U+F0006, which is reserved".to_owned());
    }
    let mut shielded = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("${") {
        shielded.push_str(before);
        let Some((token, after_token)) = after.split_once('}').filter(|(t, _)| !t.contains('\n'))
        else {
            shielded.push_str("${");
            rest = after;
            continue;
        };
        shielded.push('$');
        shielded.extend(format!("{{{token}}}").chars().map(|character| {
            SHIELDED
                .iter()
                .find(|(plain, _)| *plain == character)
                .map_or(character, |(_, stand_in)| *stand_in)
        }));
        rest = after_token;
    }
    shielded.push_str(rest);
    Ok(shielded)
}

fn unshield(text: &str) -> String {
    text.chars()
        .map(|character| {
            SHIELDED
                .iter()
                .find(|(_, stand_in)| *stand_in == character)
                .map_or(character, |(plain, _)| *plain)
        })
        .collect()
}

/// What the parser says in words of its own making, for whoever does not know the parser.
fn in_our_words(error: &serde_yaml::Error) -> Option<&'static str> {
    use serde_yaml::Error;
    use serde_yaml::budget::BudgetBreach;
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    match error {
        Error::MultipleDocuments { .. }
        | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            Some("a second document begins here, behind `---`: the file must be one document")
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            Some("an alias (`*name`) stands within the very value that it repeats")
        }
        Error::UnknownAnchor { .. } => Some(
            "an alias (`*name`) repeats nothing: there is no `&name` before it; a value that \
                  begins with `*` needs quotes",
        ),
        Error::Budget {
            breach: BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            Some("has too many aliases (`*name`), or they grow too large: write the values out")
        }
        Error::Budget { .. } => Some("is too large for a configuration, or nested too deeply"),
        _ => None,
    }
}

/// The parser's message without the place it repeats: the caller prints that itself.
fn without_place(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    let line = line.split(", set DuplicateKeyPolicy").next().unwrap_or(line);
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_end_matches([',', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &[Entry] {
        let Value::Map(entries) = &node.value else { panic!("{} is no mapping", node.kind()) };
        entries
    }

    fn text<'a>(node: &'a Node, key: &str) -> &'a str {
        let entry = map(node).iter().find(|entry| entry.key == key).unwrap();
        let Value::Text(text) = &entry.node.value else { panic!("{}", entry.node.kind()) };
        text
    }

    #[test]
    fn scalars_are_text_as_written() {
        let source = "a: 007\nb: 1_000\nc: yes\nd: 1.50\ne: 0x1F\nf: \"12\"\ng: é 9\nh: 99999999999999999999999\ni: -5\nj: {k: 010}\nk: |\n  x\n  y\n";
        let node = parse(source).unwrap_or_else(|e| panic!("{e:?}"));
        for (key, written) in [
            ("a", "007"),
            ("b", "1_000"),
            ("c", "yes"),
            ("d", "1.50"),
            ("e", "0x1F"),
            ("f", "12"),
            ("g", "é 9"),
            ("h", "99999999999999999999999"),
            ("i", "-5"),
            ("k", "x\ny\n"),
        ] {
            assert_eq!(text(&node, key), written, "{key}");
        }
        assert_eq!(text(&map(&node).iter().find(|e| e.key == "j").unwrap().node, "k"), "010");
    }

    #[test]
    fn keys_and_values_know_their_place() {
        let node = parse("# top\na:\n  b: 1\n  ccc:   x\nl:\n- p\n- {q: r}\n")
            .unwrap_or_else(|e| panic!("{e:?}"));
        let a = &map(&node)[0];
        assert_eq!(a.place, Place { line: 2, column: 1 });
        let ccc = &map(&a.node)[1];
        assert_eq!(ccc.place, Place { line: 4, column: 3 });
        assert_eq!(ccc.node.place, Place { line: 4, column: 10 });
        let Value::List(list) = &map(&node)[1].node.value else { panic!() };
        assert_eq!(list[1].place.line, 7);
        assert_eq!(map(&list[1])[0].place, Place { line: 7, column: 4 });
    }

    #[test]
    fn variables_may_stand_in_flow_mappings() {
        let source = "l: [ { id: g, db: { password: ${PW}, url: ${U:?set it, please: [#1]}, tls: x } }, \"${A}:1\" ]\n";
        let node = parse(source).unwrap_or_else(|e| panic!("{e:?}"));
        let Value::List(list) = &map(&node)[0].node.value else { panic!() };
        let db = &map(&list[0])[1].node;
        assert_eq!(text(db, "password"), "${PW}");
        assert_eq!(text(db, "url"), "${U:?set it, please: [#1]}");
        assert_eq!(text(db, "tls"), "x");
        let Value::Text(last) = &list[1].value else { panic!() };
        assert_eq!(last, "${A}:1");
    }

    #[test]
    fn nothing_is_null_and_quoted_null_is_text() {
        let node = parse("a:\nb: ~\nc: 'null'\nd: {}\ne: []\n").unwrap_or_else(|e| panic!("{e:?}"));
        let kinds: Vec<_> = map(&node).iter().map(|entry| entry.node.kind()).collect();
        assert_eq!(kinds, ["nothing", "nothing", "a single value", "a mapping", "a list"]);
        assert_eq!(parse("").map(|node| node.kind()).unwrap_or("error"), "nothing");
    }

    #[test]
    fn syntax_errors_have_a_place_and_quote_no_value() {
        for (source, line) in [
            ("a: 1\nb: [canary\n", 3),
            ("a: 1\n b: canary\n", 2),
            ("password: \"canary\na: 1\n", 3),
            ("a: canary\na: canary\n", 2),
            ("a: *alias\n", 1),
            ("a: 1\n\tb: canary\n", 2),
            ("password: canary: x\n", 1),
            ("password: @canary\n", 1),
            ("password: %canary\n", 1),
        ] {
            let error = parse(source).map(|_| ()).unwrap_err();
            let place = error.place.unwrap_or_default();
            assert!(place.line <= line && place.line > 0, "{source:?}: {error:?}");
            assert!(!error.message.contains("canary") && !error.message.contains(" at line "));
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_once() {
        let mut source = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let previous = format!("*a{},", level - 1).repeat(9);
            source.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        let began = std::time::Instant::now();
        assert!(parse(&source).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"a: [".repeat(10_000)).is_err());
        assert!(began.elapsed().as_secs() < 5);
    }

    #[test]
    fn what_the_parser_says_in_its_own_words_is_said_in_ours() {
        let bomb = "a: &a [x,x]\nb: [".to_owned() + &"*a,".repeat(300) + "]\n";
        let deep = "a: ".to_owned() + &"[".repeat(40) + &"]".repeat(40) + "\n";
        for (source, line, words) in [
            ("a: 1\n---\nb: 2\n", 2, "must be one document"),
            ("---\na: 1\n---\n---\nb: 2\n", 3, "must be one document"),
            ("a: &x\n  b: *x\n", 2, "within the very value"),
            ("a: 1\nb: *none\n", 2, "there is no `&name`"),
            (bomb.as_str(), 2, "too many aliases"),
            (deep.as_str(), 1, "nested too deeply"),
        ] {
            let error = parse(source).map(|_| ()).unwrap_err();
            assert!(error.message.contains(words), "{source:?}: {error:?}");
            assert_eq!(error.place.map(|place| place.line), Some(line), "{source:?}: {error:?}");
        }
    }
}
