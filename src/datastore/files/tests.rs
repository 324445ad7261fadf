//! Tests with real files in a temporary folder, watched with the kernel's inotify.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::time::timeout_at;

use crate::calico::model::{Object, ObjectId};
use crate::datastore::{
    Change, EndpointsConfig, Event, FilesConfig, Receiver, Source, State, start,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A BGPPeer in YAML.
fn peer(name: &str, asn: u32) -> String {
    format!(
        "kind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {{name: {name}}}\nspec: \
         {{asNumber: {asn}}}\n---\n"
    )
}

struct Consumer {
    receiver: Receiver,
    known: BTreeMap<ObjectId, Object>,
    faults: usize,
    problems: Vec<String>,
    states: Vec<State>,
    lists: usize,
    changes: usize,
}

impl Consumer {
    fn of(source: Source) -> Consumer {
        let (receiver, _) = start(source);
        Consumer {
            receiver,
            known: BTreeMap::new(),
            faults: 0,
            problems: Vec::new(),
            states: Vec::new(),
            lists: 0,
            changes: 0,
        }
    }

    fn files(path: &Path) -> Consumer {
        Consumer::of(Source::Files(FilesConfig { paths: vec![path.to_owned()] }))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Listed(objects) => {
                self.lists += 1;
                objects.into_iter().for_each(|o| self.take_change(Change::Put(o)));
            }
            Event::Changed(changes) => {
                self.changes += changes.len();
                changes.into_iter().for_each(|change| self.take_change(change));
            }
            Event::Problems(problems) => {
                self.problems =
                    problems.into_iter().map(|p| format!("{}: {}", p.object, p.text)).collect();
            }
            Event::State(state) => self.states.push(state),
        }
    }

    fn take_change(&mut self, change: Change) {
        match change {
            Change::Withdraw(id) => drop(self.known.remove(&id)),
            Change::Put(decoded) => match decoded.object {
                Ok(Some(object)) => drop(self.known.insert(decoded.id, object)),
                Ok(None) => drop(self.known.remove(&decoded.id)),
                Err(_) => self.faults += 1,
            },
        }
    }

    /// Reads events until a condition holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Consumer) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !holds(self) {
            match timeout_at(end, self.receiver.recv()).await {
                Ok(event) => self.take(event.unwrap()),
                Err(_) => panic!("{what}: {:?}, {:?}", self.peers(), self.states),
            }
        }
    }

    /// Reads events until these BGPPeers are known with these AS numbers.
    async fn until_peers(&mut self, peers: &[(&str, u32)]) {
        let what = format!("{peers:?}");
        let wanted: Vec<(String, u32)> =
            peers.iter().map(|(name, asn)| ((*name).to_owned(), *asn)).collect();
        self.until(&what, |c| c.peers() == wanted).await;
    }

    fn peers(&self) -> Vec<(String, u32)> {
        let peer = |(id, object): (&ObjectId, &Object)| match object {
            Object::BgpPeer(peer) => (id.name.clone(), peer.asn.map_or(0, |asn| asn.0)),
            Object::LocalEndpoint(endpoint) => (endpoint.peer.to_string(), 0),
            other => panic!("{other:?}"),
        };
        self.known.iter().map(peer).collect()
    }

    async fn read_for(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(event) = timeout_at(end, self.receiver.recv()).await {
            self.take(event.unwrap());
        }
    }
}

#[tokio::test]
async fn files_are_made_changed_renamed_replaced_and_withdrawn() {
    let folder = Folder::new();
    folder.write("a.yaml", &peer("a", 1));
    folder.write("notes.md", "no objects");
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1)]).await;
    folder.write("b.json", "{\"kind\":\"BGPPeer\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"b\"},\"spec\":{\"asNumber\":2}}");
    consumer.until_peers(&[("a", 1), ("b", 2)]).await;
    // Overwritten in place with the same length, twice in a row.
    folder.write("a.yaml", &peer("a", 3));
    folder.write("a.yaml", &peer("a", 4));
    consumer.until_peers(&[("a", 4), ("b", 2)]).await;
    let known = consumer.changes;
    fs::rename(folder.path("a.yaml"), folder.path("c.yaml")).unwrap();
    consumer.read_for(Duration::from_millis(300)).await;
    assert_eq!(consumer.changes, known, "the same object from a file of another name");
    // Replaced by a rename.
    folder.write(".c.yaml.new", &(peer("a", 5) + &peer("c", 6)));
    fs::rename(folder.path(".c.yaml.new"), folder.path("c.yaml")).unwrap();
    consumer.until_peers(&[("a", 5), ("b", 2), ("c", 6)]).await;
    // Renamed to a name that is not read, and removed.
    fs::rename(folder.path("c.yaml"), folder.path("c.yaml.off")).unwrap();
    consumer.until_peers(&[("b", 2)]).await;
    fs::remove_file(folder.path("b.json")).unwrap();
    consumer.until_peers(&[]).await;
    assert_eq!(consumer.lists, 1);
    assert_eq!(consumer.states, [State::Current]);
}

#[tokio::test]
async fn folders_come_and_go() {
    let folder = Folder::new();
    let root = folder.path("one/two");
    let mut consumer = Consumer::files(&root);
    consumer.until("away", |c| matches!(c.states[..], [State::Away { .. }])).await;
    consumer.read_for(Duration::from_millis(200)).await;
    assert_eq!(consumer.lists, 0);
    fs::create_dir_all(root.join("sub/deeper")).unwrap();
    fs::write(root.join("sub/deeper/a.yaml"), peer("a", 1)).unwrap();
    consumer.until_peers(&[("a", 1)]).await;
    fs::create_dir(root.join("late")).unwrap();
    consumer.read_for(Duration::from_millis(200)).await;
    fs::write(root.join("late/b.yaml"), peer("b", 1)).unwrap();
    consumer.until_peers(&[("a", 1), ("b", 1)]).await;
    // The whole folder is replaced by another, which is then watched.
    let new = folder.path("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("c.yaml"), peer("c", 1)).unwrap();
    fs::rename(&root, folder.path("old")).unwrap();
    consumer.until("away", |c| matches!(c.states.last(), Some(State::Away { .. }))).await;
    assert_eq!(consumer.peers().len(), 2, "the last known objects stay in force");
    fs::rename(&new, &root).unwrap();
    consumer.until_peers(&[("c", 1)]).await;
    fs::write(root.join("c.yaml"), peer("c", 2)).unwrap();
    consumer.until_peers(&[("c", 2)]).await;
    // Cyclic links are followed once.
    symlink(&root, root.join("circle")).unwrap();
    symlink("/nowhere", root.join("nowhere.yaml")).unwrap();
    fs::write(root.join("d.yaml"), peer("d", 1)).unwrap();
    consumer.until_peers(&[("c", 2), ("d", 1)]).await;
    assert_eq!(consumer.lists, 1);
}

/// Changes files as kubelet does in a mounted ConfigMap: they are links through `..data`, which is
/// replaced atomically.
#[tokio::test]
async fn a_config_map_is_changed_by_its_link() {
    let folder = Folder::new();
    let version = |number: u32, peers: &str| {
        fs::create_dir(folder.path(&format!("..{number}"))).unwrap();
        folder.write(&format!("..{number}/a.yaml"), peers);
        symlink(format!("..{number}"), folder.path("..data_tmp")).unwrap();
        fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    };
    version(1, &peer("a", 1));
    symlink("..data/a.yaml", folder.path("a.yaml")).unwrap();
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1)]).await;
    for number in 2..5 {
        version(number, &(peer("a", number) + &peer("b", number)));
        consumer.until_peers(&[("a", number), ("b", number)]).await;
        fs::remove_dir_all(folder.path(&format!("..{}", number - 1))).unwrap();
    }
    // Removing the old version changes nothing.
    consumer.read_for(Duration::from_millis(200)).await;
    assert_eq!(consumer.changes, 6);
}

#[tokio::test]
async fn a_link_to_elsewhere_is_watched_where_it_leads() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    elsewhere.write("real", &peer("a", 1));
    symlink(elsewhere.path("real"), folder.path("a.yaml")).unwrap();
    let mut consumer = Consumer::files(&folder.path("a.yaml"));
    consumer.until_peers(&[("a", 1)]).await;
    elsewhere.write("real", &peer("a", 2));
    consumer.until_peers(&[("a", 2)]).await;
}

#[tokio::test]
async fn broken_files_keep_their_objects_and_are_reported() {
    let folder = Folder::new();
    folder.write("a.yaml", &(peer("a", 1) + &peer("b", 1)));
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1), ("b", 1)]).await;
    let broken: [&[u8]; 4] = [b"kind: [", b"\xff\xfe", b"- x: 1", b"{{{{"];
    for octets in broken {
        fs::write(folder.path("a.yaml"), octets).unwrap();
        consumer.until("named", |c| c.problems.len() == 1).await;
        assert!(consumer.problems[0].contains("a.yaml"), "{:?}", consumer.problems);
        assert_eq!(consumer.peers().len(), 2);
        folder.write("a.yaml", &(peer("a", 1) + &peer("b", 1)));
        consumer.until("well", |c| c.problems.is_empty()).await;
    }
    assert_eq!(consumer.changes, 0);
    // One object that cannot be read and one that can.
    let bad = peer("a", 1).replace("asNumber: 1", "asNumber: many");
    folder.write("a.yaml", &(bad + &peer("b", 2)));
    consumer.until_peers(&[("a", 1), ("b", 2)]).await;
    assert_eq!((consumer.faults, consumer.changes), (1, 2));
    // A pipe is not read, as that would block.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path("pipe.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    folder.write("a.yaml", &peer("a", 3));
    consumer.until_peers(&[("a", 3)]).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_read_when_it_is_complete() {
    use std::io::Write;
    let folder = Folder::new();
    folder.write("a.yaml", &(peer("a", 1) + &peer("b", 1)));
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1), ("b", 1)]).await;
    // Truncated and rewritten in pieces, each of which causes an event.
    let text = peer("a", 2) + &peer("b", 2);
    let mut file = fs::File::create(folder.path("a.yaml")).unwrap();
    for piece in text.as_bytes().chunks(12) {
        file.write_all(piece).unwrap();
        consumer.read_for(Duration::from_millis(15)).await;
        assert_eq!(consumer.known.len(), 2);
    }
    drop(file);
    consumer.until_peers(&[("a", 2), ("b", 2)]).await;
    assert_eq!((consumer.changes, consumer.problems.len()), (2, 0));
}

/// `calicoctl get … > file`: the shell truncates the file long before anything is written.
#[tokio::test]
async fn a_file_that_is_truncated_and_filled_later_withdraws_nothing() {
    use std::io::Write;
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let whole = peer("a", 1) + &peer("b", 1);
    folder.write("a.yaml", &whole);
    elsewhere.write("real.yaml", &peer("c", 1));
    symlink(elsewhere.path("real.yaml"), folder.path("c.yaml")).unwrap();
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1), ("b", 1), ("c", 1)]).await;
    let mut file = fs::File::create(folder.path("a.yaml")).unwrap();
    let mut linked = fs::File::create(elsewhere.path("real.yaml")).unwrap();
    consumer.read_for(Duration::from_millis(400)).await;
    // Half of the content is valid to a parser.
    file.write_all(peer("a", 1).as_bytes()).unwrap();
    linked.write_all(b"kind: BGPPeer\n").unwrap();
    // A change of another file meanwhile is followed.
    folder.write("d.yaml", &peer("d", 1));
    consumer.until_peers(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
    consumer.read_for(Duration::from_millis(400)).await;
    assert_eq!((consumer.changes, consumer.problems.len(), consumer.faults), (1, 0, 0));
    file.write_all(peer("b", 2).as_bytes()).unwrap();
    drop(file);
    consumer.until_peers(&[("a", 1), ("b", 2), ("c", 1), ("d", 1)]).await;
    drop(linked);
    fs::write(elsewhere.path("real.yaml"), peer("c", 2)).unwrap();
    consumer.until_peers(&[("a", 1), ("b", 2), ("c", 2), ("d", 1)]).await;
    // Shorter, but closed: this is the new content.
    folder.write("a.yaml", &peer("a", 1));
    consumer.until_peers(&[("a", 1), ("c", 2), ("d", 1)]).await;
}

const FOLLOWED: Duration = Duration::from_millis(20);
const CHANGES: u32 = 41;

/// Checks the median, as other work on the machine delays single changes.
fn assert_followed(mut times: Vec<Duration>) {
    times.sort_unstable();
    assert!(times[times.len() / 2] <= FOLLOWED, "{times:?}");
}

#[tokio::test]
async fn a_change_is_followed_within_milliseconds() {
    let folder = Folder::new();
    folder.write("a.yaml", &peer("a", 1));
    let mut consumer = Consumer::files(folder.0.path());
    consumer.until_peers(&[("a", 1)]).await;
    let mut times = Vec::new();
    for number in 2..2 + CHANGES {
        let began = Instant::now();
        folder.write("a.yaml", &peer("a", number));
        consumer.until_peers(&[("a", number)]).await;
        times.push(began.elapsed());
    }
    assert_followed(times);
}

#[tokio::test]
async fn an_endpoint_is_followed_within_milliseconds() {
    let folder = Folder::new();
    let status = folder.path("endpoint-status");
    fs::create_dir_all(&status).unwrap();
    let mut consumer = Consumer::of(Source::Endpoints(EndpointsConfig { folder: status.clone() }));
    consumer.until("an empty list", |c| c.lists == 1).await;
    let file = status.join("k8s default-web");
    let mut times = Vec::new();
    for _ in 0..CHANGES {
        let endpoint = "{\"ifaceName\":\"cali1\",\"ipv4Nets\":[\"10.65.1.7/32\"],\"ipv6Nets\":[],\
                        \"bgpPeerName\":\"child\"}";
        let began = Instant::now();
        fs::write(&file, endpoint).unwrap();
        consumer.until_peers(&[("child", 0)]).await;
        times.push(began.elapsed());
        fs::remove_file(&file).unwrap();
        consumer.until_peers(&[]).await;
    }
    assert_followed(times);
}

#[tokio::test]
async fn endpoints_appear_when_felix_makes_them() {
    let folder = Folder::new();
    let status = folder.path("calico/endpoint-status");
    let mut consumer = Consumer::of(Source::Endpoints(EndpointsConfig { folder: status.clone() }));
    consumer.until("an empty list", |c| c.lists == 1 && c.states.len() == 1).await;
    assert_eq!(consumer.known.len(), 0);
    fs::create_dir_all(&status).unwrap();
    let endpoint = |peer: &str| {
        format!(
            "{{\"ifaceName\":\"cali1\",\"ipv4Nets\":[\"10.65.1.7/32\"],\"ipv6Nets\":[],\
             \"bgpPeerName\":\"{peer}\"}}"
        )
    };
    fs::write(status.join("k8s default-web"), endpoint("child")).unwrap();
    consumer.until_peers(&[("child", 0)]).await;
    // A file that is empty only when first read is not reported.
    fs::write(status.join("k8s default-db"), "").unwrap();
    fs::write(status.join("k8s default-db"), endpoint("other")).unwrap();
    consumer.until_peers(&[("other", 0), ("child", 0)]).await;
    assert_eq!(consumer.faults, 0);
    fs::write(status.join("k8s default-db"), "{").unwrap();
    consumer.until("a fault", |c| c.faults == 1).await;
    assert_eq!(consumer.known.len(), 2);
    fs::remove_dir_all(&status).unwrap();
    consumer.until_peers(&[]).await;
    fs::create_dir_all(&status).unwrap();
    fs::write(status.join("k8s default-web"), endpoint("child")).unwrap();
    consumer.until_peers(&[("child", 0)]).await;
    assert!(!consumer.states.iter().any(|s| matches!(s, State::Away { .. })));
}

#[tokio::test]
async fn the_task_ends_with_its_receiver() {
    let folder = Folder::new();
    let source = Source::Files(FilesConfig { paths: vec![folder.0.path().to_owned()] });
    let (mut receiver, task) = start(source);
    assert!(matches!(receiver.recv().await, Some(Event::Listed(_))));
    drop(receiver);
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

/// In the folder above there may be everybody's log.
#[tokio::test]
async fn above_a_missing_folder_only_what_is_created_counts() {
    for missing in ["calico/endpoint-status", "calico"] {
        let folder = Folder::new();
        folder.write("log", "a line\n");
        let (mut watch, folders) = watch::watch().unwrap();
        let root = folder.path(missing);
        let mut scanner = Scanner::new(Layout::Endpoints(root.clone()), Some(folders));
        scanner.scan().unwrap();
        folder.write("log", "another line\n");
        let heard = timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(heard.is_err(), "a log is nothing to be looked at: {missing}");
        fs::create_dir(folder.path("calico")).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();

        // The folder itself is watched for everything, once it is there.
        fs::create_dir_all(&root).unwrap();
        scanner.scan().unwrap();
        let file = root.join("a");
        fs::write(&file, "x").unwrap();
        while let Some(Ok(())) = watch.changed().now_or_never() {}
        fs::write(&file, "y").unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }
}

/// The file is created first, and written then.
#[tokio::test]
async fn a_missing_file_is_read_when_it_comes() {
    let folder = Folder::new();
    let mut consumer = Consumer::files(&folder.path("peers.yaml"));
    consumer.until("the file is missing", |c| !c.states.is_empty()).await;
    let mut file = fs::File::create(folder.path("peers.yaml")).unwrap();
    consumer.read_for(Duration::from_millis(100)).await;
    std::io::Write::write_all(&mut file, peer("a", 1).as_bytes()).unwrap();
    drop(file);
    consumer.until_peers(&[("a", 1)]).await;
}
