//! Services, EndpointSlices and Secrets.

use tokio::sync::watch;

use super::*;
use crate::datastore::kubernetes::config::ServicesConfig;
use crate::datastore::kubernetes::source::{Services, Wanted, follow_services};

/// The second source on a double.
fn services(double: &Double, wanted: Option<Wanted>) -> (Lab, watch::Sender<Option<Wanted>>) {
    let (ask, wanted) = watch::channel(wanted);
    let (sender, receiver) = outbox();
    let api = Arc::new(Api::new(double.clone(), Random::seeded(1)));
    let config = ServicesConfig { api: ApiConfig::default(), namespace: "calico-system".into() };
    let task = tokio::spawn(async move { follow_services(&*api, &config, wanted, sender).await });
    (Lab::on(double.clone(), receiver, task), ask)
}

const SECRETS: &str = "/api/v1/namespaces/calico-system/secrets";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn wanted(secrets: &[&str], services: Services) -> Option<Wanted> {
    Some(Wanted { secrets: secrets.iter().map(|s| (*s).to_owned()).collect(), services })
}

#[tokio::test(start_paused = true)]
async fn only_what_the_plan_needs_is_requested() {
    let double = Double::new();
    double.put(
        SECRETS,
        "a",
        json!({"metadata": {"namespace": "calico-system"}, "data": {"k": "cGFzcw=="}}),
    );
    double.put(SERVICES, "s", json!({"metadata": {"namespace": "default"}, "spec": {}}));
    let (mut lab, ask) = services(&double, None);
    lab.run(MINUTE * 2).await;
    assert!(!lab.is_listed, "the plan has not stated its needs yet");
    ask.send_replace(wanted(&[], Services::Unused));
    lab.run(Duration::from_secs(1)).await;
    assert!(lab.is_listed && lab.is_current());
    assert_eq!(double.asked_in_all(), 0);
    ask.send_replace(wanted(&["a"], Services::Used));
    lab.run(MINUTE).await;
    assert_eq!(lab.objects.len(), 2);
    // Rotated, deleted, recreated.
    double.put(
        SECRETS,
        "a",
        json!({"metadata": {"namespace": "calico-system"}, "data": {"k": "eA=="}}),
    );
    lab.run(Duration::from_secs(1)).await;
    double.delete(SECRETS, "a");
    lab.run(Duration::from_secs(1)).await;
    assert_eq!(lab.withdrawn, ["Secret/calico-system/a"]);
    double.put(
        SECRETS,
        "a",
        json!({"metadata": {"namespace": "calico-system"}, "data": {"k": "eQ=="}}),
    );
    lab.run(Duration::from_secs(1)).await;
    assert_eq!((lab.objects.len(), lab.changes), (2, 5));
    ask.send_replace(wanted(&[], Services::Unused));
    lab.run(Duration::from_secs(1)).await;
    assert!(lab.objects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_delays_nothing_and_is_reported() {
    let double = Double::new();
    let text = "secrets \"a\" is forbidden: User \"system:serviceaccount:calico-system:calico-node\" cannot list";
    double.change(|state| {
        state.wrong.insert(SECRETS.into(), Wrong::Status(403, text));
        state.missing.insert(SLICES.into());
    });
    let (mut lab, _ask) = services(&double, wanted(&["a"], Services::Used));
    lab.run(Duration::from_secs(4)).await;
    assert!(!lab.is_listed, "a server that just started refuses wrongly");
    lab.run(Duration::from_secs(12)).await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
    let named = |object: &str, text: &str| {
        lab.problems.iter().any(|p| p.object == object && p.text.contains(text))
    };
    assert!(named("Secret/a", "calico-system:calico-node"), "{:?}", lab.problems);
    assert!(named("endpointslices", "404"), "{:?}", lab.problems);
    double.change(|state| {
        state.wrong.clear();
        state.missing.clear();
    });
    lab.run(MINUTE * 2).await;
    let absent = lab.problems.iter().all(|p| p.text.contains("there is no Secret"));
    assert!(absent && lab.problems.len() == 1, "{:?}", lab.problems);
    // Objects stay in force when access is forbidden later.
    double.put(
        SECRETS,
        "a",
        json!({"metadata": {"namespace": "calico-system"}, "data": {"k": "eA=="}}),
    );
    lab.run(MINUTE).await;
    assert_eq!((lab.problems.as_slice(), lab.objects.len()), (&[][..], 1));
    double.change(|state| {
        state.wrong.insert(SECRETS.into(), Wrong::Status(403, text));
    });
    double.end_watches();
    lab.run(MINUTE).await;
    assert_eq!((lab.objects.len(), lab.problems.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_delays_services_by_a_minute_at_most() {
    let double = Double::new();
    double.change(|state| state.refuses_connections = true);
    let (mut lab, _ask) = services(&double, wanted(&["a"], Services::Used));
    lab.run(Duration::from_secs(50)).await;
    assert!(!lab.is_listed);
    lab.run(Duration::from_secs(12)).await;
    assert!(lab.is_listed && lab.objects.is_empty());
    assert!(lab.reason().contains("refused"));
}
