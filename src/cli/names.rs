//! The role that margay takes from the name it was started as: BIRD's programs may be replaced by
//! links to it (`examples/calico-node`).

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// The role that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    /// margay, for any other name; this includes `bird`, because `calicoctl node status` looks for
    /// a process of that name, and `bird run` starts one.
    Margay,
    /// BIRD's client.
    Birdcl,
    /// A process that does nothing: margay serves both families, but `calicoctl node status` and
    /// the liveness probe also look for a process and a service named `bird6`.
    StandIn,
}

impl CalledAs {
    /// The role of this process, from its name.
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
    fn the_directory_of_the_name_is_ignored() {
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
