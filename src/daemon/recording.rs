//! `[mrt]`: what is recorded.

use std::sync::Arc;

use crate::config::{MrtCompression, MrtPeers, MrtSettings};
use crate::mrt::{Recorder, Recording};

/// Records what these settings say, from here on.
pub(super) fn set(recorder: &Recorder, settings: Option<&MrtSettings>) {
    let recording = settings.filter(|settings| settings.updates != MrtPeers::None);
    recorder.set(recording.map(|settings| {
        let peers = settings.updates.clone();
        Recording {
            directory: settings.directory.clone(),
            chooses: Arc::new(move |name| peers.contains(name)),
            rotate_after: settings.rotate_after,
            rotate_bytes: settings.rotate_bytes,
            gzip: settings.compression == MrtCompression::Gzip,
            keep: settings.keep,
        }
    }));
}
