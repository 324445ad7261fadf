//! What margay is by the name that it is called by: in place of BIRD's programs, links with their
//! names lead to it (`examples/calico-node`).

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// What the name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    /// margay, under whatever name: `bird` too, because `calicoctl node status` looks for a process
    /// of that name and `bird run` is one.
    Margay,
    /// BIRD's client.
    Birdcl,
    /// A process that is only there: margay speaks both families, and `calicoctl node status` and
    /// the liveness probe look for a process and a service of the name `bird6` too.
    StandIn,
}

impl CalledAs {
    /// By the name of this process.
    pub fn of_process() -> Self {
        std::env::args_os().next().map_or(CalledAs::Margay, |name| CalledAs::of(&name))
    }

    fn of(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("birdcl" | "birdc") => CalledAs::Birdcl,
            Some("bird6") => CalledAs::StandIn,
            _ => CalledAs::Margay,
        }
    }
}

/// Waits until a signal ends the process.
pub fn stand_in() -> ExitCode {
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_without_their_folder() {
        for (name, wanted) in [
            ("margay", CalledAs::Margay),
            ("/usr/bin/bird", CalledAs::Margay),
            ("bird", CalledAs::Margay),
            ("/bin/birdcl", CalledAs::Birdcl),
            ("birdc", CalledAs::Birdcl),
            ("bird6", CalledAs::StandIn),
            ("./bird6", CalledAs::StandIn),
            ("", CalledAs::Margay),
        ] {
            assert_eq!(CalledAs::of(OsStr::new(name)), wanted, "{name}");
        }
    }
}
