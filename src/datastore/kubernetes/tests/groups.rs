//! Calico's API groups: missing, wrongly named, and being installed.

use super::*;

#[tokio::test(start_paused = true)]
async fn crds_that_are_missing_are_waited_for() {
    let double = cluster();
    double.change(|state| state.groups.clear());
    let mut lab = Lab::new(double);
    lab.run(MINUTE * 5).await;
    assert!(!lab.is_listed);
    assert!(lab.reason().contains("CRDs are not installed"), "{}", lab.reason());
    lab.double.change(|state| state.groups.insert("crd.projectcalico.org".into()));
    lab.run(MINUTE).await;
    assert!(lab.is_listed && lab.is_current());
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_wrongly_configured_group_is_reported_with_the_other() {
    let double = cluster();
    double.change(|state| state.groups = ["projectcalico.org".to_owned()].into());
    let mut lab = Lab::with(double, KubernetesConfig { group: Some(Group::V1), ..config() }, 1);
    lab.run(MINUTE).await;
    assert!(!lab.is_listed);
    for part in ["CALICO_API_GROUP", "api-group", "name projectcalico.org/v3"] {
        assert!(lab.reason().contains(part), "{}", lab.reason());
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_fails_is_not_called_the_wrong_one_because_the_other_is_there() {
    let double = cluster();
    let v3 =
        |collection: &str| collection.replace("crd.projectcalico.org/v1", "projectcalico.org/v3");
    double.change(|state| {
        state.groups.insert("projectcalico.org".into());
        for collection in CALICO {
            state.wrong.insert(v3(collection), Wrong::Status(503, "service unavailable"));
        }
    });
    let given = KubernetesConfig { group: Some(Group::V3), ..config() };
    let mut lab = Lab::with(double, given, 1);
    for _ in 0..5 {
        lab.run(MINUTE).await;
        assert_eq!(lab.receiver.watcher().followed().cause, Some("server-error"));
        assert!(lab.reason().contains("503"), "{}", lab.reason());
    }
    // Not there at all, and then failing again: the first says nothing about the second.
    let wrong = lab.double.change(|state| {
        state.groups.remove("projectcalico.org");
        std::mem::take(&mut state.wrong)
    });
    lab.run(MINUTE * 2).await;
    assert!(lab.reason().contains("CALICO_API_GROUP"), "{}", lab.reason());
    lab.double.change(|state| {
        state.groups.insert("projectcalico.org".into());
        state.wrong = wrong;
    });
    // The longest pause after many failures, the last of them 404.
    lab.run(MINUTE * 6).await;
    assert_eq!(lab.receiver.watcher().followed().cause, Some("server-error"));
    lab.double.change(|state| state.wrong.clear());
    lab.run(MINUTE).await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
}

#[tokio::test(start_paused = true)]
async fn kinds_that_appear_are_listed_together() {
    for seed in 0..20 {
        let double = cluster();
        double.change(|state| state.groups.clear());
        let given = KubernetesConfig { group: Some(Group::V1), ..config() };
        let mut lab = Lab::with(double, given, seed);
        lab.run(MINUTE).await;
        assert!(!lab.is_listed);
        lab.double.change(|state| state.groups.insert("crd.projectcalico.org".into()));
        while !lab.is_listed {
            lab.run(Duration::from_millis(100)).await;
        }
        // All kinds together, not each at the end of its own pause after 404.
        lab.assert_same();
    }
}

/// One after the other, as `kubectl apply` creates CRDs.
#[tokio::test(start_paused = true)]
async fn kinds_that_appear_one_after_the_other_are_listed_together() {
    for (seed, group) in (0..30).flat_map(|seed| [(seed, None), (seed, Some(Group::V1))]) {
        let double = cluster();
        double.change(|state| {
            state.groups.clear();
            state.missing.extend(CALICO.map(str::to_owned));
        });
        let mut lab = Lab::with(double, KubernetesConfig { group, ..config() }, seed);
        lab.run(MINUTE).await;
        if seed.is_multiple_of(3) {
            // A failure in between changes nothing.
            let wrong = Wrong::Status(503, "service unavailable");
            lab.double.change(|state| state.wrong.insert(String::new(), wrong));
            lab.run(MINUTE).await;
            lab.double.change(|state| state.wrong.clear());
        }
        assert!(!lab.is_listed);
        let apply = |name: &str| {
            lab.double.change(|state| state.groups.insert("crd.projectcalico.org".into()));
            lab.double.restore_crd(name);
        };
        let mut left: Vec<&str> = CALICO.to_vec();
        left.rotate_left(usize::try_from(seed).unwrap() % CALICO.len());
        left.iter().take(1).for_each(|name| apply(name));
        for name in left.iter().skip(1) {
            lab.run(Duration::from_millis(300)).await;
            assert!(!lab.is_listed, "{seed}, {group:?}: without {name}");
            lab.double.restore_crd(name);
        }
        lab.run(MINUTE).await;
        assert!(lab.is_listed && lab.withdrawn.is_empty(), "{seed}, {group:?}");
        assert_eq!(lab.changes, 0, "{seed}, {group:?}: one kind after the other");
        lab.assert_same();
    }
}
