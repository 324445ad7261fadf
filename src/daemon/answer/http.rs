//! Answers over HTTP.

use std::sync::Arc;

use bgp_proto::types::ParseError;

use super::control::ControlView;
use super::liveness::LivenessView;
use super::metrics::MetricsView;
use super::rates::RateHistory;
use super::readiness::ReadinessView;
use crate::config::PageSettings;
use crate::ctl::{Backend, Destination, ErrorKind, Page, Refusal, Request};
use crate::http::{Answer, Failure, MetricsSnapshot, Question, Source};

/// Events that the status page shows.
const EVENTS: u32 = 50;
/// Longest name of a peer or destination that is looked for, in octets.
const NAME_LEN_MAX: usize = 256;

/// The view for scrapers, probes and the status page.
pub(in crate::daemon) struct HttpView {
    pub(super) metrics: MetricsView,
    pub(super) liveness: LivenessView,
    pub(super) readiness: ReadinessView,
    /// Answers the page's questions.
    pub(super) control: Arc<ControlView>,
    pub(super) rates: RateHistory,
}

impl HttpView {
    /// Records what the status page plots, until the future is dropped.
    pub(in crate::daemon) async fn record_rates(&self) {
        self.rates.record(&self.metrics.sources).await;
    }
}

impl Source for HttpView {
    async fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot().await
    }

    async fn not_alive(&self) -> Vec<String> {
        self.liveness.not_alive().await
    }

    async fn not_ready(&self) -> Option<String> {
        self.readiness.not_ready()
    }

    fn page(&self) -> Option<Arc<PageSettings>> {
        self.metrics.sources.state().config.host.http.as_ref()?.page.clone()
    }

    async fn answer(&self, question: &Question) -> Result<Answer, Failure> {
        let request = request(question)?;
        let page = self.control.page(&request, None).await.map_err(failure)?;
        Ok(Answer(match question {
            Question::Events => list(&page),
            _ => page.items().next().unwrap_or("null").as_bytes().to_vec(),
        }))
    }
}

/// The request of the control protocol that answers a question: none of them changes anything.
fn request(question: &Question) -> Result<Request, Failure> {
    Ok(match question {
        Question::Status => Request::ShowStatus,
        Question::Overview => Request::ShowOverview,
        Question::Rates => Request::ShowRates,
        Question::Events => {
            Request::Events { peer: None, last: Some(EVENTS), follow: false, messages: false }
        }
        Question::Peer { name } => Request::ShowPeer { name: bounded(name)?.to_owned() },
        Question::Explain { destination, vrf } => {
            let Destination { prefix, lookup } = parse(bounded(destination)?)?;
            if let Some(vrf) = vrf {
                bounded(vrf)?;
            }
            Request::Explain { prefix, lookup, vantage: None, vrf: vrf.clone(), peer: None }
        }
    })
}

fn bounded(text: &str) -> Result<&str, Failure> {
    if text.len() > NAME_LEN_MAX {
        let text = format!("a name or prefix has at most {NAME_LEN_MAX} octets");
        return Err(Failure::BadRequest(text));
    }
    Ok(text)
}

fn parse(destination: &str) -> Result<Destination, Failure> {
    destination.trim().parse().map_err(|error: ParseError| Failure::BadRequest(error.to_string()))
}

fn failure(refusal: Refusal) -> Failure {
    match refusal.kind {
        ErrorKind::NotFound => Failure::NotFound(refusal.text),
        ErrorKind::BadRequest => Failure::BadRequest(refusal.text),
        _ => Failure::Failed(refusal.text),
    }
}

fn list(page: &Page) -> Vec<u8> {
    let mut list = b"[".to_vec();
    for (at, item) in page.items().enumerate() {
        if at > 0 {
            list.push(b',');
        }
        list.extend_from_slice(item.as_bytes());
    }
    list.push(b']');
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::Lookup;

    #[test]
    fn a_destination_is_read_as_by_the_command_line() {
        let read = |text: &str| parse(text).map(|read| (read.prefix.to_string(), read.lookup));
        assert_eq!(read("10.0.0.0/8"), Ok(("10.0.0.0/8".into(), Lookup::Exact)));
        assert_eq!(read(" 10.1.2.3 "), Ok(("10.1.2.3/32".into(), Lookup::Longest)));
        assert_eq!(read("fd00::1"), Ok(("fd00::1/128".into(), Lookup::Longest)));
        for wrong in ["", "10.0.0.1/8", "<script>", "10.0.0.0/33", "a/b"] {
            assert!(matches!(read(wrong), Err(Failure::BadRequest(_))), "{wrong}");
        }
    }

    #[test]
    fn questions_change_nothing_and_have_a_bound() {
        let name = |length| Question::Peer { name: "x".repeat(length) };
        assert!(request(&name(256)).is_ok());
        assert!(matches!(request(&name(257)), Err(Failure::BadRequest(_))));
        let vrf = Some("x".repeat(257));
        let question = Question::Explain { destination: "10.0.0.0/8".into(), vrf };
        assert!(matches!(request(&question), Err(Failure::BadRequest(_))));
    }

    #[test]
    fn a_list_has_every_item() {
        assert_eq!(list(&Page::last([1, 2]).unwrap()), b"[1,2]");
        assert_eq!(list(&Page::last([0; 0]).unwrap()), b"[]");
    }
}
