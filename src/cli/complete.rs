//! What shells complete by: the definition of the command line, and the names of peers, VRFs and
//! policies, which the running daemon knows.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Args, Command, CommandFactory};
use serde::Deserialize;

use super::ask::report;
use super::client::{Client, ClientError};
use super::{Cli, Shell};
use crate::config::ControlSettings;
use crate::ctl::Request;

/// How long a shell waits for the daemon; after that it completes without names.
const WAIT: Duration = Duration::from_secs(1);

/// The arguments of `complete`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CompleteArgs {
    /// The words after the program's name; the last one is being completed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What a word on the command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Peer,
    Vrf,
    Policy,
}

/// Prints the names that the last word may become, one a line; none if the daemon does not answer.
pub(super) fn complete(args: &CompleteArgs) -> ExitCode {
    let Some(named) = named(&args.words) else { return ExitCode::SUCCESS };
    let Ok(names) = names(named, &socket(&args.words)) else { return ExitCode::SUCCESS };
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    match io::stdout().write_all(lines.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(ClientError::Output(error)),
    }
}

fn named(words: &[String]) -> Option<Named> {
    let (last, before) = words.split_last()?;
    // An option, which the shell's script knows.
    if last.starts_with('-') {
        return None;
    }
    let mut root = Cli::command();
    root.build();
    let (mut command, mut given) = (&root, 0);
    let mut open: Option<&Arg> = None;
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if let Some(long) = word.strip_prefix("--") {
            let mut known = command.get_arguments();
            open =
                known.find(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values());
        } else if !word.starts_with('-') {
            match command.find_subcommand(word) {
                Some(sub) => (command, given) = (sub, 0),
                None => given += 1,
            }
        }
    }
    let arg = open.or_else(|| {
        // The last positional argument may be given several times.
        let all: Vec<&Arg> = command.get_positionals().collect();
        all.get(given).or(all.last().filter(|arg| arg.get_action().takes_values())).copied()
    })?;
    of_argument(command, arg)
}

/// What the value of an argument names, by the name of the value.
fn of_argument(command: &Command, arg: &Arg) -> Option<Named> {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match (value.unwrap_or(arg.get_id().as_str()), command.get_name()) {
        ("PEER" | "peer" | "peers", _) | ("NAME" | "name", "peer") => Some(Named::Peer),
        ("VRF", _) => Some(Named::Vrf),
        ("POLICY" | "policy", _) | ("NAME" | "name", "policy") => Some(Named::Policy),
        _ => None,
    }
}

/// The socket that the command will use.
fn socket(words: &[String]) -> PathBuf {
    let given = words.windows(2).find(|pair| pair[0] == "--socket").map(|pair| pair[1].clone());
    let given = given.or_else(|| std::env::var("MARGAY_SOCKET").ok());
    given.map_or_else(|| ControlSettings::DEFAULT_SOCKET.into(), PathBuf::from)
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    import: String,
    export: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    vrfs: Vec<Vrf>,
}

#[derive(Deserialize)]
struct Vrf {
    name: String,
}

fn names(named: Named, socket: &std::path::Path) -> Result<BTreeSet<String>, ClientError> {
    let mut client = Client::connect_for(socket, WAIT)?;
    let mut names = BTreeSet::new();
    if named == Named::Vrf {
        client.ask(&Request::ShowStatus, |item| {
            let status: Status = serde_json::from_str(item).map_err(ClientError::Answer)?;
            names.extend(status.vrfs.into_iter().map(|vrf| vrf.name));
            Ok(())
        })?;
        return Ok(names);
    }
    client.ask(&Request::ShowPeers, |item| {
        let peer: Peer = serde_json::from_str(item).map_err(ClientError::Answer)?;
        match named {
            Named::Policy => names.extend([peer.import, peer.export]),
            Named::Peer | Named::Vrf => names.extend([peer.name]),
        }
        Ok(())
    })?;
    Ok(names)
}

/// The script for a shell. Hidden commands are not in it.
pub fn completion_script(shell: Shell) -> String {
    let full = Cli::command();
    let shown = full.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut command = Command::new("margay").args(full.get_arguments().cloned()).subcommands(shown);
    let (generator, more) = match shell {
        Shell::Bash => (clap_complete::Shell::Bash, BASH),
        Shell::Zsh => (clap_complete::Shell::Zsh, ZSH),
        Shell::Fish => (clap_complete::Shell::Fish, FISH),
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut command, "margay", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash | Shell::Fish => script + more,
        // The function must be defined before the script, which is one itself, ends by calling it.
        Shell::Zsh => {
            let names = [":PEER:_default", ":VRF:_default"].iter().fold(script, |script, value| {
                script.replace(value, &value.replace("_default", "_margay_names"))
            });
            let positional = ["peer -- ", "name -- ", "policy -- ", "peers -- "];
            let lines = names.lines().map(|line| {
                let is_named = positional.iter().any(|start| line.contains(start));
                let line = if is_named {
                    line.replace(":_default'", ":_margay_names'")
                } else {
                    line.into()
                };
                line + "\n"
            });
            let script: String = lines.collect();
            script.replacen(
                "autoload -U is-at-least\n",
                &format!("autoload -U is-at-least\n{more}"),
                1,
            )
        }
    }
}

const BASH: &str = r#"
# Names of peers, VRFs and policies, from the daemon.
_margay_and_names() {
    _margay "$@"
    local word=${COMP_WORDS[COMP_CWORD]} name quoted
    local -a names=()
    # Names are text that others chose: compgen -W would expand them, and run what is in $(...).
    while IFS= read -r name; do
        printf -v quoted %q "$name"
        if [[ -n $name && ( $name == "$word"* || $quoted == "$word"* ) ]]; then
            names+=("$quoted")
        fi
    done <<< "$(margay complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)"
    if (( ${#names[@]} )); then
        COMPREPLY=("${names[@]}")
    fi
}
complete -F _margay_and_names -o bashdefault -o default margay
"#;

const ZSH: &str = r#"
# Names of peers, VRFs and policies, from the daemon.
_margay_names() {
    local -a names
    names=(${(f)"$(margay complete -- ${words[2,CURRENT]} 2>/dev/null)"})
    if (( $#names )); then compadd -a names; else _default; fi
}
"#;

const FISH: &str = r#"
# Names of peers, VRFs and policies, from the daemon.
complete -c margay -a '(margay complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_something_are_known() {
        for (line, wanted) in [
            ("show peer ", Some(Named::Peer)),
            ("show --json peer to", Some(Named::Peer)),
            ("show received ", Some(Named::Peer)),
            ("show routes --peer ", Some(Named::Peer)),
            ("show routes --peer tor --vrf ", Some(Named::Vrf)),
            ("show policy ", Some(Named::Policy)),
            ("policy test ", Some(Named::Policy)),
            ("peer stop ", Some(Named::Peer)),
            ("drain a b ", Some(Named::Peer)),
            ("debug ", Some(Named::Peer)),
            ("probe ", Some(Named::Peer)),
            ("show peer --js", None),
            ("show routes -", None),
            ("show ", None),
            ("show routes ", None),
            ("log-level ", None),
            ("reload --socket ", None),
            ("", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(named(&words), wanted, "{line:?}");
        }
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(socket(&words("show --socket /s peer ")), PathBuf::from("/s"));
    }

    /// A stand-in for margay prints names that bash would expand.
    #[test]
    fn bash_completes_names_as_text() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let program = "#!/bin/sh\nfor last; do :; done\ncase $last in -*) exit;; esac\n\
                       printf '%s\\n' '$(touch created)' '`touch created`' 'a b' 'ab;c' '*' tor\n";
        std::fs::write(at("margay"), program).unwrap();
        std::fs::set_permissions(at("margay"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at("script"), completion_script(Shell::Bash)).unwrap();
        let completed = |last: &str| {
            let command = format!(
                "PATH=$PWD:$PATH; . ./script; COMP_WORDS=(margay show peer '{last}'); \
                 COMP_CWORD=3; _margay_and_names margay '{last}' peer; \
                 printf '%s\\n' \"${{COMPREPLY[@]}}\""
            );
            let mut bash = std::process::Command::new("bash");
            let output = bash.args(["-c", &command]).current_dir(folder.path()).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let all = "\\$\\(touch\\ created\\)\n\\`touch\\ created\\`\na\\ b\nab\\;c\n\\*\ntor\n";
        assert_eq!(completed(""), all);
        assert_eq!(completed("t"), "tor\n");
        assert_eq!(completed("a\\ "), "a\\ b\n", "what is completed is quoted already");
        assert_eq!(completed("--js"), "--json\n");
        assert!(!at("created").exists());
    }

    #[test]
    fn scripts_ask_for_names_and_have_no_hidden_commands() {
        for (shell, asks) in [
            (Shell::Bash, "complete -F _margay_and_names"),
            (Shell::Zsh, ":PEER:_margay_names"),
            (Shell::Fish, "margay complete --"),
        ] {
            let script = completion_script(shell);
            assert!(script.contains(asks), "{script}");
            assert!(!script.contains("stand-in"), "{shell:?}");
        }
        let zsh = completion_script(Shell::Zsh);
        assert!(
            zsh.contains("_margay_names() {")
                && zsh.contains("name -- Its name or address:_margay_names'")
        );
    }
}
