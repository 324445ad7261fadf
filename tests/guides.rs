//! The guides in `docs/`: every page is in the table of contents, every link leads somewhere. Every command
//! of margay's there and in the other documents is one that the command line accepts.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use margay::cli::Cli;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Path and text of every page.
fn pages() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join("docs/src")).unwrap();
    let mut pages: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    pages.sort();
    assert!(pages.len() > 5, "{} pages", pages.len());
    pages
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_page_is_in_the_contents() {
    let contents = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    for (path, _) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || contents.contains(&format!("({name})")), "{name}");
    }
}

/// Whoever is woken by an alert finds what it means: each rule leads to a section of its own, which says
/// something, and no section is about a rule that does not exist.
#[test]
fn every_alert_has_a_section() {
    let rules = fs::read_to_string(root().join("examples/monitoring/alerts.yml")).unwrap();
    let page = fs::read_to_string(root().join("docs/src/alerts.md")).unwrap();
    let mut sections: Vec<(&str, &str)> =
        page.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 20, "{} alerts", alerts.len());
    for rule in alerts {
        let (name, rule) = rule.split_once('\n').unwrap();
        let at = sections.iter().position(|(title, _)| *title == name);
        let (_, text) = sections.remove(at.unwrap_or_else(|| panic!("no section {name}")));
        let text = text.split("\n## ").next().unwrap();
        assert!(text.split_whitespace().count() > 25, "{name}: {text}");
        let url = rule.lines().find_map(|line| line.trim().strip_prefix("runbook_url: "));
        let url = url.unwrap_or_else(|| panic!("{name} has no runbook_url"));
        let leads = format!("/docs/src/alerts.md#{}\"", anchor(name));
        assert!(url.ends_with(&leads), "{name}: {url}");
    }
    assert!(sections.is_empty(), "no rule for {sections:?}");
}

/// Documents beside the pages, with links and commands of their own.
const OTHERS: [&str; 3] = ["README.md", "examples/kubernetes/README.md", "benches/README.md"];

/// Path and text of every page and of the documents beside them.
fn documents() -> Vec<(PathBuf, String)> {
    let others = OTHERS.map(|name| root().join(name));
    let others = others.map(|path| (path.clone(), fs::read_to_string(path).unwrap()));
    pages().into_iter().chain(others).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        for after in text.split("](").skip(1) {
            let link = after.split(')').next().unwrap();
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            // Pages of the book lead to the rest of the repository like this: mdbook moves them elsewhere.
            let of_repository = file.strip_prefix(concat!(env!("CARGO_PKG_REPOSITORY"), "/"));
            let in_repository = of_repository.and_then(|file| {
                file.strip_prefix("blob/main/").or(file.strip_prefix("tree/main/"))
            });
            let target = match (file, in_repository) {
                ("", _) => path.clone(),
                (_, Some(file)) => root().join(file),
                _ if link.contains("://") => continue,
                _ => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            let is_page = file.is_empty() || file.ends_with(".md");
            let leads = |heading| anchors(&target).iter().any(|at| at == heading);
            let known = heading.is_empty() || !is_page || leads(heading);
            assert!(known, "{}: {link}", path.display());
            links += 1;
        }
    }
    assert!(links > 20, "{links} links");
}

/// Where a command stands: a block is to be typed, the text may name a command without its arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Block,
    Text,
}

/// The commands of margay's in a page. Words in capitals stand for what the reader knows.
fn commands(text: &str) -> Vec<(Place, String)> {
    let mut found = Vec::new();
    for (at, part) in text.split("```").enumerate() {
        if at % 2 == 1 {
            let lines = part.lines().map(|line| line.trim_start().trim_start_matches("$ "));
            found.extend(lines.map(|line| (Place::Block, line.to_owned())));
        } else {
            let code = part.split('`').skip(1).step_by(2);
            found.extend(code.map(|code| (Place::Text, code.replace('\n', " "))));
        }
    }
    found.retain(|(_, command)| command.starts_with("margay "));
    let without_comment = |line: String| line.split(" #").next().unwrap_or_default().to_owned();
    found.into_iter().map(|(place, line)| (place, without_comment(line))).collect()
}

/// Its words, as a shell would split them. Of a synopsis: everything in brackets, the first alternative.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let command = command.split(" > ").next().unwrap_or_default();
    for c in command.trim().chars().filter(|c| !matches!(c, '[' | ']' | '…')) {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().map(|word| word.split('|').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn commands_are_those_of_the_command_line() {
    use clap::error::ErrorKind::{
        DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion, MissingRequiredArgument,
        MissingSubcommand,
    };
    let (mut checked, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        for (place, command) in commands(&text) {
            let words = words(&command).into_iter().map(|word| match word.as_str() {
                "PREFIX" => "10.65.0.0/26".to_owned(),
                _ => word,
            });
            checked += 1;
            let Err(error) = Cli::try_parse_from(words) else { continue };
            let is_name = matches!(
                error.kind(),
                DisplayHelpOnMissingArgumentOrSubcommand
                    | DisplayVersion
                    | MissingRequiredArgument
                    | MissingSubcommand
            );
            if place == Place::Block || !is_name {
                wrong.push(format!("{}: {command}: {error}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 60, "{checked} commands");
}
