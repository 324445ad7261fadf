//! Secrets in files: a changed one is put in force as a reload would, without reading the
//! configuration itself again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::Daemon;
use super::reload::one_line;
use crate::config::{Config, Secrets};
use crate::event_names::{SECRET_CHANGED, SECRET_LOST};

/// Most files that are named one by one in the log.
const LOGGED_MAX: usize = 20;

/// The files of which earlier content stays in force, and why.
#[derive(Default)]
pub(super) struct SecretFaults {
    files: Vec<(PathBuf, String)>,
    /// Why the files as they are now are not valid.
    refused: Option<String>,
}

impl SecretFaults {
    /// The files were read again, and are valid.
    pub(super) fn clear_refusal(&mut self) {
        self.refused = None;
    }

    /// For `show status`.
    pub(super) fn problems(&self) -> Vec<String> {
        let files = self.files.iter().take(LOGGED_MAX).map(|(path, why)| text_of(path, why));
        let more = self.files.len().saturating_sub(LOGGED_MAX);
        let more = (more > 0).then(|| format!("and {more} more files with secrets"));
        files.chain(more).chain(self.refused.clone()).collect()
    }
}

fn text_of(path: &Path, why: &str) -> String {
    format!("the secret in {} stays as it was: {why}; restore the file", path.display())
}

impl Daemon {
    /// A file with a secret is not the one that was read.
    pub(super) fn on_secrets_changed(&mut self) {
        let Some(path) = self.path.clone().filter(|_| self.node.is_none()) else { return };
        match self.config.with_secrets_again(&path) {
            Ok(fresh) => self.take_secrets(fresh),
            Err(errors) => {
                let text = format!(
                    "changed files with secrets are not used: {errors}; correct them: they are read \
                     again when they change"
                );
                if self.secret_faults.refused.as_ref() != Some(&text) {
                    warn!(event = SECRET_LOST, reason = text, "{text}");
                }
                self.secret_faults.refused = Some(text);
            }
        }
        self.review_descriptors();
    }

    fn take_secrets(&mut self, fresh: Config) {
        self.secret_faults.clear_refusal();
        let before = Arc::clone(&self.config);
        let changed: Vec<PathBuf> = fresh
            .origin
            .secrets()
            .changed_since(before.origin.secrets())
            .into_iter()
            .map(Path::to_owned)
            .collect();
        if changed.is_empty() {
            self.config = Arc::new(Config { origin: fresh.origin, ..Config::clone(&before) });
            self.views.publish(|state| state.config = Arc::clone(&self.config));
        } else {
            for path in changed.iter().take(LOGGED_MAX) {
                let object = path.display().to_string();
                info!(event = SECRET_CHANGED, object, "the secret in {object} has changed");
            }
            if changed.len() > LOGGED_MAX {
                info!("and the secrets in {} more files", changed.len() - LOGGED_MAX);
            }
            match self.put_in_force(fresh) {
                Ok(changes) => info!("changed secrets are in force: {}", one_line(&changes)),
                Err(reason) => {
                    warn!("changed secrets are not in force: {reason}; run margay reload");
                }
            }
        }
        self.follow_secrets();
    }

    /// Follows the files with secrets of the configuration in force, and logs those that were lost.
    pub(super) fn follow_secrets(&mut self) {
        let config = Arc::clone(&self.config);
        let secrets: &Secrets = config.origin.secrets();
        self.secret_watch.follow(secrets);
        let faults: Vec<(PathBuf, String)> =
            secrets.faults().map(|(path, why)| (path.to_owned(), why.to_owned())).collect();
        let before = std::mem::take(&mut self.secret_faults.files);
        for (path, why) in faults.iter().filter(|fault| !before.contains(fault)).take(LOGGED_MAX) {
            let object = path.display().to_string();
            warn!(event = SECRET_LOST, object, reason = why, "{}", text_of(path, why));
        }
        if faults.is_empty() && !before.is_empty() {
            info!("every file with a secret is read again");
        }
        self.secret_faults.files = faults;
    }
}
