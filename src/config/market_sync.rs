//! `api` and `markets` of `deduplicator.yaml`: whether series, events and markets are copied, from
//! where and how often.

use std::time::Duration;

use super::read::Section;
use super::secret::{KEY_ID, PRIVATE_KEY};
use super::units;
use crate::kalshi::Api;
use crate::kalshi::auth::{Credentials, Signer};
use crate::role::dedup::markets::Config;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The outer `None` means a problem, the inner one that nothing is copied.
pub fn read(root: &Section<'_>) -> Option<Option<Config>> {
    let (section, markets) = (root.section("api"), root.section("markets"));
    let context = root.context();
    let given = root.has("api");
    let enabled = markets.get("enabled", given, units::flag);
    let interval =
        units::duration_within(Duration::from_secs(1), DAY, "an interval from 1s to 24h");
    // What the interval was called before there was a section for it.
    let former = section.get("market_sync_interval", None, |text| interval(text).map(Some));
    if section.has("market_sync_interval") && markets.has("refresh_interval") {
        markets.problem("refresh_interval", "is given beside `api.market_sync_interval`: keep one");
    }
    let refresh_interval = markets.get("refresh_interval", None, |text| interval(text).map(Some));
    let full_interval = markets.get(
        "full_interval",
        DAY / 4,
        units::duration_within(MINUTE, DAY.saturating_mul(30), "an interval from 1m to 30d"),
    );
    let multivariate = markets.get("multivariate", false, |text| match text.trim() {
        "exclude" => Ok(false),
        "include" => Ok(true),
        _ => Err("is not one of exclude, include".to_owned()),
    });
    markets.finish();
    let api = api(section, given);
    if !given && enabled == Some(true) {
        root.problem("api", "is required by `markets.enabled`");
        return None;
    }
    if !given {
        context.notice("`api` is not given: series, events and markets are not copied");
    }
    let refresh_interval = refresh_interval?.or(former?).unwrap_or(MINUTE.saturating_mul(5));
    let (enabled, api) = (enabled?, api?);
    let (full_interval, multivariate) = (full_interval?, multivariate?);
    let config = api.filter(|_| enabled);
    Some(config.map(|api| Config { api, refresh_interval, full_interval, multivariate }))
}

/// The exchange's REST; its WebSocket is the gatherers' business.
fn api(section: Section<'_>, given: bool) -> Option<Option<Api>> {
    if !given {
        return Some(None);
    }
    let rest_url = section.require("rest_url", units::rest_url);
    let credentials = credentials(&section);
    section.finish();
    let api = Api { rest_url: rest_url?, ws_url: String::new(), credentials: credentials? };
    Some(Some(api))
}

/// Both or neither: market data is public, and a signature only tells whose budget it takes.
fn credentials(section: &Section<'_>) -> Option<Option<Signer>> {
    let (key_id, key) = (KEY_ID.read(section), PRIVATE_KEY.read(section));
    match (key_id?, key?) {
        (None, None) => Some(None),
        (Some(_), None) => {
            section.problem(PRIVATE_KEY.file, "is required beside `key_id`");
            None
        }
        (None, Some(_)) => {
            section.problem("key_id", "is required beside the private key");
            None
        }
        (Some(key_id), Some(key)) => {
            let (id, pem) = (key_id.secret.expose().trim(), key.secret.expose().as_bytes());
            match Credentials::from_pem(id, pem) {
                Ok(credentials) => Some(Some(Signer::new(credentials))),
                Err(error) => {
                    let message = format!("is no usable key: {error}");
                    key.field.secret_problem(section.context(), &message);
                    None
                }
            }
        }
    }
}
