//! Services in a real API server: the real confd reads them there and writes BIRD's files, and
//! margay is given the same objects. What neighbours receive and what the kernel has must be the
//! same.

use anyhow::Result;
use interop::calico::Scenario;

#[test]
#[ignore = "needs root, BIRD 1.6, confd and kube-apiserver"]
fn confd_writes_services_and_margay_matches_bird() -> Result<()> {
    Scenario::with_confd_and_services(Scenario::one_after_the_other)
}
