//! Sections that both kinds of file have.

use std::net::SocketAddr;

use super::read::Section;
use super::units;
use crate::ops::{http, telemetry};

/// `server`: where `/health` and `/metrics` are.
pub fn server(root: &Section<'_>) -> Option<http::Config> {
    let section = root.section("server");
    let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let health = section.get("health", everywhere(8080), units::listen_address);
    let metrics = section.get("metrics", everywhere(9090), units::listen_address);
    section.finish();
    Some(http::Config { health: health?, metrics: metrics? })
}

/// `logging`.
pub fn logging(root: &Section<'_>) -> Option<telemetry::Config> {
    let section = root.section("logging");
    let default = telemetry::Config::default();
    let level = section.get("level", default.level, |text| {
        // The filter's own words quote the value, which can come from a variable.
        let error = "is no log level: give off, error, warn, info, debug, trace, \
                     or levels by module like info,kalshi::pg=debug";
        telemetry::Config::check_level(text)
            .map(|()| text.trim().to_owned())
            .map_err(|_| error.to_owned())
    });
    let format = section.get("format", default.format, |text| text.trim().parse());
    section.finish();
    Some(telemetry::Config { level: level?, format: format? })
}
