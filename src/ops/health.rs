//! The body of `/health`: one verdict and what it is made of.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// How a component, or the whole, is doing. Ordered: the worst of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    Degraded,
    Unhealthy,
}

impl Status {
    /// The worst of several; healthy when there are none.
    pub fn worst(statuses: impl IntoIterator<Item = Self>) -> Self {
        statuses.into_iter().max().unwrap_or(Self::Healthy)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What `/health` answers: 200 when healthy or degraded, 503 when unhealthy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub status: Status,
    /// One member a component, as the role defines them. Never a secret: anybody may read it.
    pub components: Value,
    /// What `/ready` answers: whether the role does its work.
    #[serde(skip)]
    pub is_ready: bool,
}

impl Report {
    /// Ready unless unhealthy.
    pub fn new(status: Status, components: Value) -> Self {
        Self { status, components, is_ready: status != Status::Unhealthy }
    }

    /// The same with readiness by a criterion of its own.
    pub fn ready(self, is_ready: bool) -> Self {
        Self { is_ready, ..self }
    }
}

type ReportFuture = Pin<Box<dyn Future<Output = Report> + Send>>;

/// Where the server gets the report from, at every request.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> ReportFuture + Send + Sync>);

impl Source {
    /// Asks `report` at every request. It must answer within 5 s, or the answer is unhealthy.
    pub fn from_fn<F, R>(report: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Report> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(report())))
    }

    /// Gives the value that the role last sent.
    pub fn watch(reports: watch::Receiver<Report>) -> Self {
        Self::from_fn(move || {
            let report = reports.borrow().clone();
            async move { report }
        })
    }

    pub async fn report(&self) -> Report {
        (self.0)().await
    }
}

impl From<watch::Receiver<Report>> for Source {
    fn from(reports: watch::Receiver<Report>) -> Self {
        Self::watch(reports)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_worst_component_decides() {
        use Status::{Degraded, Healthy, Unhealthy};
        assert_eq!(Status::worst([]), Healthy);
        assert_eq!(Status::worst([Healthy, Degraded]), Degraded);
        assert_eq!(Status::worst([Unhealthy, Degraded, Healthy]), Unhealthy);
    }

    #[tokio::test]
    async fn a_watched_report_is_the_last_one_sent() {
        let (send, receive) = watch::channel(Report::new(Status::Unhealthy, json!({})));
        let source = Source::from(receive);
        assert_eq!(source.report().await.status, Status::Unhealthy);
        send.send_replace(Report::new(Status::Healthy, json!({"timescaledb": "connected"})));
        let body = serde_json::to_string(&source.report().await).unwrap();
        assert_eq!(body, r#"{"status":"healthy","components":{"timescaledb":"connected"}}"#);
    }
}
