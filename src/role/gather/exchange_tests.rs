//! The watcher against a REST server that answers as each test says.

use std::sync::Mutex;

use super::*;
use crate::kalshi::Api;
use crate::kalshi::rest::Settings;
use crate::kalshi::testing::{serve_rest, soon};
use crate::model::Micros;

const ON: &str = r#"{"exchange_active":true,"trading_active":true}"#;
const OFF: &str = r#"{"exchange_active":false,"trading_active":false,
    "exchange_estimated_resume_time":"2026-11-05T10:00:00Z"}"#;

struct Watching {
    state: watch::Receiver<Exchange>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(api: &Api, now: Micros) -> Watching {
    let settings = Settings { tokens_per_second: 100_000, ..Settings::default() };
    let rest = Arc::new(Rest::new(api, settings).unwrap());
    let (sender, state) = watch::channel(Exchange::default());
    let shutdown = CancellationToken::new();
    let clock: Clock = Arc::new(move || now);
    let troubled = Box::new(|| false);
    let watcher = Watcher { rest, state: sender, troubled, clock };
    let task = tokio::spawn(watcher.run(shutdown.clone()));
    Watching { state, shutdown, task }
}

impl Watching {
    async fn until(&mut self, what: &str, holds: impl Fn(&Exchange) -> bool) -> Exchange {
        soon(what, self.state.wait_for(|state| holds(state))).await.unwrap().clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon("the end", self.task).await.unwrap();
    }
}

/// Answers the status and the schedule that stand there at the moment.
async fn exchange(status: Arc<Mutex<(u16, &'static str)>>, schedule: (u16, &'static str)) -> Api {
    serve_rest(move |request| match request.target.rsplit('/').next().unwrap() {
        "status" => {
            let (code, body) = *status.lock().unwrap();
            (code, body.to_owned())
        }
        "schedule" => (schedule.0, schedule.1.to_owned()),
        other => panic!("{other}"),
    })
    .await
}

fn at(text: &str) -> Micros {
    Micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

#[tokio::test]
async fn a_pause_is_seen_and_so_is_its_end() {
    let status = Arc::new(Mutex::new((200, ON)));
    let schedule = (200, r#"{"schedule":{"standard_hours":[],"maintenance_windows":[]}}"#);
    let api = exchange(Arc::clone(&status), schedule).await;
    *status.lock().unwrap() = (503, OFF);
    let mut watching = start(&api, at("2026-11-05T08:00:00Z"));
    // The status comes with HTTP 503 while the exchange is away.
    let paused = watching.until("a pause", |state| state.exchange_active == Some(false)).await;
    assert!(paused.is_paused() && !paused.is_trading() && paused.window.is_none());
    *status.lock().unwrap() = (200, ON);
    let began = Instant::now();
    let back = watching.until("the end", |state| state.exchange_active == Some(true)).await;
    assert!(back.is_trading() && !back.is_paused());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    watching.stop().await;
}

#[tokio::test]
async fn an_announced_window_counts_with_its_own_offset() {
    // The clocks go back on 2026-11-01, between these two: each time says its offset.
    let schedule = r#"{"schedule":{"standard_hours":[{"monday":[]}],"maintenance_windows":[
        {"start_datetime":"2026-10-29T03:00:00-04:00","end_datetime":"2026-10-29T05:00:00-04:00"},
        {"start_datetime":"2026-11-05T03:00:00-05:00","end_datetime":"2026-11-05T05:00:00-05:00"}]}}"#;
    for (now, paused) in [
        ("2026-10-29T06:59:59Z", false),
        ("2026-10-29T07:00:00Z", true),
        ("2026-10-29T09:00:00Z", false),
        ("2026-11-05T07:30:00Z", false),
        ("2026-11-05T08:00:00Z", true),
        ("2026-11-05T09:59:59Z", true),
        ("2026-11-05T10:00:00Z", false),
    ] {
        let status = Arc::new(Mutex::new((200, ON)));
        let api = exchange(status, (200, schedule)).await;
        let mut watching = start(&api, at(now));
        let state = watching.until("a status", |state| state.trading_active.is_some()).await;
        assert_eq!(state.is_paused(), paused, "{now}");
        assert_eq!(state.window.is_some(), paused, "{now}");
        watching.stop().await;
    }
}

#[tokio::test]
async fn an_unreadable_schedule_is_no_window() {
    let status = Arc::new(Mutex::new((200, ON)));
    let schedule = r#"{"schedule":{"maintenance_windows":[{"start_datetime":"Thursday",
        "end_datetime":"2030-01-01T00:00:00Z"}]}}"#;
    let api = exchange(status, (200, schedule)).await;
    let mut watching = start(&api, at("2026-11-05T08:00:00Z"));
    let state = watching.until("a status", |state| state.trading_active.is_some()).await;
    assert!(state.schedule_unknown && !state.is_paused());
    watching.stop().await;
}

#[tokio::test]
async fn no_answer_says_nothing_about_a_pause() {
    let status = Arc::new(Mutex::new((500, "broken")));
    let api = exchange(status, (500, "broken")).await;
    let mut watching = start(&api, at("2026-11-05T08:00:00Z"));
    let state = watching.until("no answer", |state| state.unreachable).await;
    assert!(!state.is_paused() && !state.is_trading() && !state.schedule_unknown);
    watching.stop().await;
}
