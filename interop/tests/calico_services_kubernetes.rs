//! Services as a real API server has them: the real confd, which reads them from there, writes BIRD's files,
//! and margay is given the same objects. What neighbours are told and what the kernel is given is the same.

use anyhow::Result;
use interop::calico::Scenario;

#[test]
#[ignore = "needs root, BIRD 1.6, confd and kube-apiserver"]
fn confd_writes_services_and_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    Scenario::with_confd_and_services(Scenario::one_after_the_other)
}
