//! `${VAR}` in values: the only place that reads the environment for the configuration.

#[cfg(any(test, fuzzing))]
use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where variables come from, and whether a file may point to anything beside itself.
pub struct Environment {
    source: Source,
    is_closed: bool,
}

enum Source {
    Process,
    #[cfg(any(test, fuzzing))]
    Given(HashMap<String, String>),
}

impl Environment {
    /// The variables of this process.
    pub fn process() -> Self {
        Self { source: Source::Process, is_closed: false }
    }

    /// The same where no secret is read from a file or fetched from a place: for texts of which nobody
    /// knows what they name.
    #[cfg(any(test, fuzzing))]
    pub fn closed(self) -> Self {
        Self { is_closed: true, ..self }
    }

    /// Whether secrets that are kept elsewhere stay unread.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Exactly these variables.
    #[cfg(any(test, fuzzing))]
    pub fn given<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self { source: Source::Given(variables), is_closed: false }
    }

    fn get(&self, name: &str) -> Option<OsString> {
        match &self.source {
            Source::Process => env::var_os(name),
            #[cfg(any(test, fuzzing))]
            Source::Given(variables) => variables.get(name).map(OsString::from),
        }
    }

    /// Where systemd put the credentials that it loaded for this unit.
    pub fn credentials_directory(&self) -> Option<PathBuf> {
        self.get("CREDENTIALS_DIRECTORY").map(PathBuf::from)
    }

    /// Replaces `${VAR}`, `${VAR:-default}` and `${VAR:?message}`; `$${` stands for a literal `${`. A
    /// dollar without a brace is itself. What a variable holds is never looked at again.
    ///
    /// The errors name variables, never what they hold.
    pub fn expand(&self, text: &str) -> Result<String, Vec<String>> {
        let mut expanded = String::with_capacity(text.len());
        let mut errors = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = after;
                continue;
            }
            expanded.push_str(before);
            let Some((token, after_token)) = after.split_once('}') else {
                errors.push("`${` is not closed by `}`; write `$${` for a literal `${`".to_owned());
                rest = "";
                break;
            };
            match self.variable(token) {
                Ok(value) => expanded.push_str(&value),
                Err(error) => errors.push(error),
            }
            rest = after_token;
        }
        expanded.push_str(rest);
        if errors.is_empty() { Ok(expanded) } else { Err(errors) }
    }

    fn variable(&self, token: &str) -> Result<String, String> {
        let end =
            token.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(token.len());
        let (name, rule) = token.split_at_checked(end).unwrap_or((token, ""));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("`${` is not followed by the name of a variable".to_owned());
        }
        let value = match self.get(name) {
            None => None,
            Some(value) => Some(
                value.into_string().map_err(|_| format!("variable {name} does not hold UTF-8"))?,
            ),
        };
        // Like a shell's: with a colon, a variable that is set to nothing counts as not set.
        let filled = || value.as_ref().filter(|value| !value.is_empty()).cloned();
        if rule.is_empty() {
            value.ok_or_else(|| format!("variable {name} is not set"))
        } else if let Some(default) = rule.strip_prefix(":-") {
            Ok(filled().unwrap_or_else(|| default.to_owned()))
        } else if let Some(message) = rule.strip_prefix(":?") {
            let message = message.trim();
            filled().ok_or_else(|| match message {
                "" => format!("variable {name} is not set or empty"),
                _ => format!("variable {name} is not set or empty: {message}"),
            })
        } else {
            Err(format!(
                "variable {name}: only `${{{name}}}`, `${{{name}:-default}}` and `${{{name}:?message}}` are understood"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment::given([("A", "1"), ("EMPTY", ""), ("PW", "a: ${A} #}\n\"'")])
    }

    #[test]
    fn forms() {
        for (text, expanded) in [
            ("", ""),
            ("plain $5 $$ {x}", "plain $5 $$ {x}"),
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${EMPTY}", ""),
            ("${NONE:-d:e,f}", "d:e,f"),
            ("${NONE:-}", ""),
            ("${EMPTY:-d}", "d"),
            ("${A:-d}${A:?m}", "11"),
            ("$${A}", "${A}"),
            ("a$${b", "a${b"),
            ("${PW}", "a: ${A} #}\n\"'"),
        ] {
            assert_eq!(environment().expand(text).unwrap(), expanded, "{text}");
        }
    }

    #[test]
    fn errors_name_the_variable_and_all_of_them() {
        let errors = environment().expand("${NONE} ${A} ${EMPTY:?set it} ${ALSO:?}").unwrap_err();
        assert_eq!(
            errors,
            [
                "variable NONE is not set",
                "variable EMPTY is not set or empty: set it",
                "variable ALSO is not set or empty"
            ]
        );
        for bad in ["${", "${A", "${}", "${1A}", "${-x}", "${A-x}", "${A:x}", "${A?x}", "${PW+x}"] {
            let errors = environment().expand(bad).unwrap_err();
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(!errors[0].contains("#}"), "{errors:?}");
        }
    }
}
