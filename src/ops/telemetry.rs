//! Log lines on stderr: text for people, one JSON object a line for machines.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::tasks;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is not one of json, text".to_owned()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A level (`info`), or directives by module (`info,kalshi::pg=debug`).
    pub level: String,
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Json }
    }
}

impl Config {
    /// Whether `level` can be used; the error says what is wrong with it.
    pub fn check_level(level: &str) -> Result<(), String> {
        filter(level).map(drop)
    }
}

/// What a level for everything does not mean.
const QUIET: &str = "hyper_util=warn";

static INSTALLED: OnceLock<Format> = OnceLock::new();
/// Replaces the filter that is in force.
static RELOAD: OnceLock<Reload> = OnceLock::new();

type Reload = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// Sends lines of another level from now on. Fails when the level is malformed, or before `init`.
pub fn set_level(level: &str) -> anyhow::Result<()> {
    let filter = filter(level).map_err(anyhow::Error::msg).context("set log level")?;
    let reload = RELOAD.get().context("log output is not installed")?;
    reload(filter)
}

/// Prints the error that ends the process: as a log line where stderr is one JSON object a line, else
/// for a person.
pub fn report(error: &anyhow::Error) {
    use std::io::Write as _;
    let chain = super::exit::chain(error);
    if INSTALLED.get() == Some(&Format::Json) {
        tracing::error!(exit_code = super::exit::Exit::of(error).code(), "{chain}");
    } else {
        // Nobody is left to tell when stderr is closed.
        writeln!(std::io::stderr(), "error: {chain}").ok();
    }
}

/// Sends the process's log lines to stderr from now on. Fails when the level is malformed, or when it
/// is called twice.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let filter = filter(&config.level).map_err(anyhow::Error::msg).context("set log level")?;
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (subscriber, reload) = subscriber(config.format, filter, colour, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).context("install log output")?;
    RELOAD.get_or_init(|| reload);
    INSTALLED.get_or_init(|| config.format);
    if config.format == Format::Json {
        // A panic's own text on stderr would break the one object a line.
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!(
                location = panic.location().map(tracing::field::display),
                thread = std::thread::current().name(),
                backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
                    .then(|| tracing::field::display(&backtrace)),
                "panicked: {}",
                tasks::panic_message(panic.payload())
            );
        }));
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let level = level.trim();
    if level.is_empty() {
        return Err("is empty: give error, warn, info, debug or trace".to_owned());
    }
    // The filter's own parser takes a lone word that is no level for the name of a module.
    for directive in level.split(',').map(str::trim) {
        let bare = !directive.contains(['=', '[', ':']);
        if bare && directive.parse::<tracing::level_filters::LevelFilter>().is_err() {
            return Err(format!(
                "`{directive}` is not one of off, error, warn, info, debug, trace"
            ));
        }
    }
    let filter = EnvFilter::builder().parse(level).map_err(|error| error.to_string())?;
    // The HTTP library tells of every idle connection; who wants to know names it.
    let is_chatty = level.contains("debug") || level.contains("trace");
    if !is_chatty || level.contains("hyper") {
        return Ok(filter);
    }
    Ok(filter.add_directive(QUIET.parse().map_err(|error| format!("{QUIET}: {error}"))?))
}

fn subscriber<W>(
    format: Format,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> (Box<dyn tracing::Subscriber + Send + Sync>, Reload)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A log line that cannot be written is dropped in silence: reporting it on a closed stderr panics.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .log_internal_errors(false);
    match format {
        Format::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(true)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = move |filter| handle.reload(filter).context("replace log level");
            (Box::new(builder.finish()), Box::new(reload))
        }
        Format::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = move |filter| handle.reload(filter).context("replace log level");
            (Box::new(builder.finish()), Box::new(reload))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: &str, colour: bool) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, _) =
            subscriber(format, filter(level).unwrap(), colour, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(addr = "127.0.0.1:1", rows = 3, "serving\nhealth \x1b[31m");
            tracing::debug!("hidden at info");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, "info", true);
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line.get("level").unwrap(), "INFO");
        assert_eq!(line.get("message").unwrap(), "serving\nhealth \x1b[31m");
        assert_eq!(line.get("rows").unwrap(), 3);
        let time = line.get("timestamp").unwrap().as_str().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    }

    #[test]
    fn text_has_colour_only_when_asked_and_escapes_that_of_others() {
        assert!(!logged(Format::Text, "info", false).contains('\x1b'));
        assert!(logged(Format::Text, "info", true).contains('\x1b'));
        assert_eq!(logged(Format::Text, "info,kalshi=debug", false).lines().count(), 3);
    }

    #[test]
    fn a_library_is_as_chatty_only_when_it_is_named() {
        for (level, hyper) in
            [("debug", "warn"), ("info,kalshi=debug", "warn"), ("debug,hyper_util=trace", "trace")]
        {
            let text = filter(level).unwrap().to_string();
            assert!(text.contains(&format!("hyper_util={hyper}")), "{level} became {text}");
        }
        assert_eq!(filter("error").unwrap().to_string(), "error");
    }

    #[test]
    fn a_level_that_means_nothing_is_an_error() {
        for good in ["info", "WARN", "off", "info,kalshi::pg=debug", "kalshi=trace"] {
            Config::check_level(good).unwrap();
        }
        for bad in ["", "loud", "info,loud", "kalshi=loud"] {
            assert!(Config::check_level(bad).is_err(), "{bad}");
        }
    }
}
