//! Prometheus: scrapes daemons and evaluates queries.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::lab::{Host, run_command};
use crate::wait::{PATIENCE, wait_until};

/// Programs that these tests need.
pub const PROGRAMS: [&str; 3] = ["prometheus", "promtool", "curl"];

/// Port on which daemons under test serve metrics.
pub const PORT: u16 = 9479;

/// Requests a path over HTTP on the loopback interface of a host; returns the status and the body.
///
/// # Errors
/// When there is no answer.
pub fn get(host: &Host, path: &str) -> Result<(u16, String)> {
    let url = format!("http://127.0.0.1:{PORT}{path}");
    let answer = host.run("curl", &["-sS", "--max-time", "20", "-w", "\n%{http_code}", &url])?;
    let (body, status) = answer.rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// Fails if promtool objects to the output of `/metrics`.
///
/// # Errors
/// What promtool says.
pub fn check_metrics(host: &Host, text: &str) -> Result<()> {
    let path = host.write("metrics.txt", text)?;
    let file = std::fs::File::open(path)?;
    let output =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::from(file)).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    Ok(())
}

/// Runs promtool in a folder.
///
/// # Errors
/// What promtool says.
pub fn promtool(folder: &Path, args: &[&str]) -> Result<String> {
    run_command(Command::new("promtool").args(args).current_dir(folder))
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    host: Host,
    _daemon: Daemon,
}

impl Prometheus {
    /// Starts it; it scrapes `targets` as job `margay` and evaluates `rules`, both every second.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &Host, targets: &[&Host], rules: &Path) -> Result<Self> {
        let targets: Vec<String> =
            targets.iter().map(|target| format!("\"{}:{PORT}\"", target.v4())).collect();
        let groups = format!("      - targets: [{}]\n", targets.join(", "));
        Self::start_on(host, 1, &groups, rules)
    }

    /// Starts it as if there were `nodes` nodes, each of which exports one of these texts, which real
    /// daemons have exported: they differ by the label `instance`. A server of the host's hands them out.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_of_copies(
        host: &Host,
        texts: &[String],
        nodes: usize,
        rules: &Path,
    ) -> Result<(Self, Daemon)> {
        let folder = host.file("copies");
        std::fs::create_dir_all(&folder)?;
        for (at, text) in texts.iter().enumerate() {
            std::fs::write(folder.join(format!("{at}.txt")), text)?;
        }
        let folder = folder.to_string_lossy();
        let args = ["-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory", &folder];
        let server = host.daemon("copies", "python3", &args)?;
        let group = |node: usize| {
            format!(
                "      - targets: ['127.0.0.1:8000']\n        labels: {{instance: 'node-{node}', \
                 __metrics_path__: '/{}.txt'}}\n",
                node % texts.len()
            )
        };
        let groups: String = (0..nodes).map(group).collect();
        Ok((Self::start_on(host, 5, &groups, rules)?, server))
    }

    fn start_on(host: &Host, seconds: u32, groups: &str, rules: &Path) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, \
             evaluation_interval: {seconds}s}}\nrule_files: ['{}']\n\
             scrape_configs:\n  - job_name: margay\n    static_configs:\n{groups}",
            rules.display(),
        );
        let config = host.write("prometheus.yml", &config)?;
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", host.file("tsdb").display()),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut daemon = host.daemon("prometheus", "prometheus", &args)?;
        let own = host.clone();
        wait_until(PATIENCE, "prometheus", || {
            if let Some(status) = daemon.exited()? {
                bail!("prometheus exited with {status}: {}", daemon.output());
            }
            own.run("curl", &["-sSf", "http://127.0.0.1:9090/-/ready"]).map(drop)
        })?;
        Ok(Self { host: host.clone(), _daemon: daemon })
    }

    /// The result of an instant query.
    ///
    /// # Errors
    /// When the query is invalid.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let query = format!("query={query}");
        let url = "http://127.0.0.1:9090/api/v1/query";
        let answer = self.host.run("curl", &["-sS", "--data-urlencode", &query, url])?;
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().context("no result")?;
        Ok(result.clone())
    }

    /// Waits until every target was scraped `times` at least.
    ///
    /// # Errors
    /// When one is not scraped in time.
    pub fn wait_scrapes(&self, targets: usize, times: u32) -> Result<()> {
        let up = format!("count_over_time(up[5m]) >= {times} and up == 1");
        wait_until(Duration::from_secs(60), "scrapes", || {
            let found = self.query(&up)?.len();
            ensure!(found == targets, "{found} of {targets} targets");
            Ok(())
        })
    }
}

/// A metric that a query selects, with the labels in its selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The metric.
    pub name: String,
    /// Labels in braces.
    pub labels: BTreeSet<String>,
}

/// The selectors of a query: every word that begins like one of our metrics.
#[must_use]
pub fn selectors(query: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        if !["margay_", "process_"].iter().any(|prefix| word.starts_with(prefix)) && word != "up" {
            continue;
        }
        let braces = rest.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let labels = match braces {
            Some((inside, behind)) => {
                rest = behind;
                label_names(inside)
            }
            None => BTreeSet::new(),
        };
        found.push(Selector { name: word.to_owned(), labels });
    }
    found
}

/// `a="x,y", b!~"z"` to `a` and `b`.
fn label_names(inside: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // Every second piece is inside quotes.
    for outside in inside.split('"').step_by(2) {
        let name = outside.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if !name.is_empty() {
            names.insert(name.to_owned());
        }
    }
    names
}

/// The labels that a query groups by or joins on.
#[must_use]
pub fn groupings(query: &str) -> BTreeSet<String> {
    let lists = query
        .match_indices("by (")
        .chain(query.match_indices("on ("))
        .filter_map(|(at, word)| query[at + word.len()..].split(')').next());
    lists.flat_map(|list| list.split(',').map(|name| name.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_with_their_labels() {
        let query =
            r#"sum by (a, b) (rate(margay_x_total{a="1,2", c!~"d|e"}[5m])) / on (a) margay_y"#;
        let selector = |name: &str, labels: &[&str]| Selector {
            name: name.to_owned(),
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        };
        assert_eq!(
            selectors(query),
            [selector("margay_x_total", &["a", "c"]), selector("margay_y", &[])]
        );
        assert_eq!(groupings(query).into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(selectors("up == 0"), [selector("up", &[])]);
    }
}
