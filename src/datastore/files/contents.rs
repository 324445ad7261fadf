//! Merges the contents of all files; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::calico::Problem;
use crate::calico::load::Loaded;
use crate::calico::model::{Decoded, ObjectId};
use crate::datastore::{Change, Event};

/// The objects of each file, and the merged state last sent.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By path; of two files with one object, the one whose path sorts last takes precedence.
    files: BTreeMap<PathBuf, File>,
    /// Problems of folders and paths.
    problems: Vec<Problem>,
    sent: Option<Sent>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectId, Decoded>,
    problems: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Sent {
    objects: BTreeMap<ObjectId, Decoded>,
    problems: Vec<Problem>,
}

impl Contents {
    /// Stores the content of a file.
    ///
    /// If a part of it cannot be read, objects that it held before and that are not in the rest are
    /// kept: they may be in that part.
    pub(super) fn put(&mut self, path: &Path, loaded: Loaded) {
        let Loaded { objects, problems, .. } = loaded;
        let mut file = File { objects: BTreeMap::new(), problems };
        let old = self.files.remove(path).unwrap_or_default();
        if !file.problems.is_empty() {
            file.objects = old.objects;
        }
        for object in objects {
            file.objects.insert(object.id.clone(), object);
        }
        self.files.insert(path.to_owned(), file);
    }

    /// Removes the files that no longer exist, except below unreadable folders.
    pub(super) fn retain(&mut self, there: &BTreeSet<PathBuf>, unknown: &BTreeSet<PathBuf>) {
        self.files.retain(|path, _| {
            there.contains(path) || path.ancestors().any(|folder| unknown.contains(folder))
        });
    }

    /// Replaces the problems of folders.
    pub(super) fn set_problems(&mut self, problems: Vec<Problem>) {
        self.problems = problems;
    }

    /// The events to send since the last call.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut objects: BTreeMap<ObjectId, Decoded> = BTreeMap::new();
        let mut problems = self.problems.clone();
        for file in self.files.values() {
            problems.extend(file.problems.iter().cloned());
            objects.extend(file.objects.iter().map(|(id, object)| (id.clone(), object.clone())));
        }
        let mut events = Vec::new();
        match &self.sent {
            None => events.push(Event::Listed(objects.values().cloned().collect())),
            Some(sent) => {
                let changes = changes(&sent.objects, &objects);
                if !changes.is_empty() {
                    events.push(Event::Changed(changes));
                }
            }
        }
        if self.sent.as_ref().map_or(&[][..], |sent| &sent.problems) != problems {
            events.push(Event::Problems(problems.clone()));
        }
        self.sent = Some(Sent { objects, problems });
        events
    }
}

fn changes(old: &BTreeMap<ObjectId, Decoded>, new: &BTreeMap<ObjectId, Decoded>) -> Vec<Change> {
    let gone = old.keys().filter(|id| !new.contains_key(id)).cloned().map(Change::Withdraw);
    let put = new.iter().filter(|(id, object)| old.get(id) != Some(object));
    gone.chain(put.map(|(_, object)| Change::Put(object.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calico::load;

    fn put(contents: &mut Contents, path: &str, text: &str) {
        let mut loaded = Loaded::default();
        load::parse(path, text, &mut loaded);
        contents.put(Path::new(path), loaded);
    }

    fn peer(name: &str, asn: u32) -> String {
        format!(
            "kind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {{name: {name}}}\nspec: \
             {{asNumber: {asn}}}\n---\n"
        )
    }

    fn sent(contents: &mut Contents) -> Vec<String> {
        let mut lines = Vec::new();
        for event in contents.events() {
            match event {
                Event::Listed(objects) => {
                    lines.extend(objects.iter().map(|o| format!("={}", o.id)))
                }
                Event::Changed(changes) => {
                    lines.extend(changes.iter().map(|change| match change {
                        Change::Put(decoded) => format!("+{}", decoded.id),
                        Change::Withdraw(id) => format!("-{id}"),
                    }))
                }
                Event::Problems(problems) => {
                    lines.push(format!("!{}", problems.len()));
                }
                Event::State(state) => panic!("{state:?}"),
            }
        }
        lines
    }

    fn retain(contents: &mut Contents, there: &[&str], unknown: &[&str]) {
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        contents.retain(&set(there), &set(unknown));
    }

    #[test]
    fn only_what_differs_is_sent() {
        let mut contents = Contents::default();
        put(&mut contents, "/d/a.yaml", &(peer("p", 1) + &peer("q", 1)));
        assert_eq!(sent(&mut contents), ["=BGPPeer/p", "=BGPPeer/q"]);
        put(&mut contents, "/d/a.yaml", &(peer("p", 1) + &peer("q", 2) + &peer("r", 1)));
        assert_eq!(sent(&mut contents), ["+BGPPeer/q", "+BGPPeer/r"]);
        put(&mut contents, "/d/a.yaml", &peer("p", 1));
        assert_eq!(sent(&mut contents), ["-BGPPeer/q", "-BGPPeer/r"]);
        assert!(sent(&mut contents).is_empty());
        assert_eq!(contents.sent.as_ref().unwrap().objects.len(), 1);
    }

    #[test]
    fn the_later_file_takes_precedence_and_the_earlier_one_once_it_is_gone() {
        let mut contents = Contents::default();
        put(&mut contents, "/d/b.yaml", &peer("p", 2));
        put(&mut contents, "/d/a.yaml", &peer("p", 1));
        sent(&mut contents);
        put(&mut contents, "/d/a.yaml", &peer("p", 3));
        assert!(sent(&mut contents).is_empty());
        retain(&mut contents, &["/d/a.yaml"], &[]);
        assert_eq!(sent(&mut contents), ["+BGPPeer/p"]);
        retain(&mut contents, &[], &[]);
        assert_eq!(sent(&mut contents), ["-BGPPeer/p"]);
    }

    #[test]
    fn a_broken_file_keeps_its_objects_and_is_reported() {
        let mut contents = Contents::default();
        put(&mut contents, "/d/a.yaml", &(peer("p", 1) + &peer("q", 1)));
        sent(&mut contents);
        put(&mut contents, "/d/a.yaml", "kind: [\n");
        assert_eq!(sent(&mut contents), ["!1"]);
        // Broken in another way: a part of it can be read.
        put(&mut contents, "/d/a.yaml", &(peer("p", 2) + "x: 1\n"));
        assert_eq!(sent(&mut contents), ["+BGPPeer/p", "!1"]);
        put(&mut contents, "/d/a.yaml", &peer("p", 2));
        assert_eq!(sent(&mut contents), ["-BGPPeer/q", "!0"]);
    }

    #[test]
    fn objects_below_an_unreadable_folder_are_kept() {
        let mut contents = Contents::default();
        put(&mut contents, "/d/sub/a.yaml", &peer("p", 1));
        put(&mut contents, "/d/sub2/a.yaml", &peer("q", 1));
        sent(&mut contents);
        retain(&mut contents, &[], &["/d/sub"]);
        contents.set_problems(vec![Problem::new("/d/sub", "permission denied")]);
        assert_eq!(sent(&mut contents), ["-BGPPeer/q", "!1"]);
        contents.set_problems(Vec::new());
        retain(&mut contents, &["/d/sub/a.yaml"], &[]);
        assert_eq!(sent(&mut contents), ["!0"]);
    }
}
