use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use bgp_proto::mrt::Record;
use bgp_proto::types::Asn;
use tempfile::TempDir;

use super::*;

mod path_ids;

fn recording(folder: &Path) -> Recording {
    Recording {
        directory: folder.to_owned(),
        chooses: Arc::new(|name| name == "tor"),
        rotate_after: Duration::from_secs(3600),
        rotate_bytes: 1 << 30,
        gzip: false,
        keep: None,
    }
}

fn session() -> Session {
    let address = |last| std::net::IpAddr::from([192, 0, 2, last]);
    Session {
        peer_asn: Asn(65001),
        local_asn: Asn(64512),
        interface: 0,
        peer: address(1),
        local: address(2),
    }
}

fn keepalives(count: usize) -> Vec<u8> {
    let mut one = vec![0xff; 16];
    one.extend([0, 19, 4]);
    one.repeat(count)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The number of messages and of changes of state in a file.
fn contents(file: &Path) -> (usize, usize) {
    let mut octets = fs::read(file).unwrap();
    if file.extension().is_some_and(|end| end == "gz") {
        let packed = std::mem::take(&mut octets);
        flate2::read::MultiGzDecoder::new(&*packed).read_to_end(&mut octets).unwrap();
    }
    let (mut rest, mut found) = (octets.as_slice(), (0, 0));
    while let Some((record, after)) = Record::split(rest).unwrap() {
        rest = after;
        match record {
            Record::Message(message) => {
                assert_eq!(message.session, session());
                assert_eq!(message.message, keepalives(1));
                found.0 += 1;
            }
            Record::StateChange(change) => {
                assert_eq!((change.old, change.new), (5, 6));
                found.1 += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(rest.is_empty(), "the file ends within a record");
    found
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn records_of_the_chosen_peers_are_in_a_file_that_appears_complete() {
    for gzip in [false, true] {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(".updates.20200101T000000.000Z.mrt.part"), "torn").unwrap();
        let writer = Writer::start().unwrap();
        let mut tap = Tap::new(writer.recorder().clone());
        assert!(!tap.is_on("tor"), "nothing is recorded yet");
        writer.recorder().set(Some(Recording { gzip, ..recording(folder.path()) }));
        assert!(tap.is_on("tor") && !Tap::new(writer.recorder().clone()).is_on("other"));
        tap.received(&session(), Encoding::default(), &keepalives(3));
        wait_for("the first records", || writer.recorder().counts().written == 3);
        assert!(names(folder.path()).iter().all(|name| name.ends_with(".part")));
        tap.state_changed(&session(), State::OpenConfirm, State::Established);
        tap.received(&session(), Encoding::default(), &keepalives(2));
        let recorder = writer.recorder().clone();
        writer.stop();
        let names = names(folder.path());
        let [name] = &names[..] else { panic!("{names:?}") };
        assert!(name.starts_with("updates.2") && name.ends_with(if gzip { ".gz" } else { ".mrt" }));
        assert_eq!(contents(&folder.path().join(name)), (5, 1));
        assert_eq!(recorder.counts(), Counts { written: 6, dropped: 0, files: 1 });
    }
}

#[test]
fn files_rotate_and_the_oldest_are_deleted() {
    let folder = TempDir::new().unwrap();
    let writer = Writer::start().unwrap();
    let recorder = writer.recorder().clone();
    recorder.set(Some(Recording { rotate_bytes: 1, keep: Some(2), ..recording(folder.path()) }));
    let tap = Tap::new(recorder.clone());
    for file in 1..=4 {
        tap.received(&session(), Encoding::default(), &keepalives(1));
        wait_for("a complete file", || recorder.counts().files == file);
    }
    writer.stop();
    assert_eq!(names(folder.path()).len(), 2, "{:?}", names(folder.path()));
    assert!(names(folder.path()).iter().all(|name| name.ends_with(".mrt")));
}

#[test]
fn what_cannot_be_written_is_dropped_and_recording_goes_on() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let writer = Writer::start().unwrap();
    let recorder = writer.recorder().clone();
    recorder.set(Some(recording(&missing)));
    let tap = Tap::new(recorder.clone());
    tap.received(&session(), Encoding::default(), &keepalives(7));
    wait_for("the fault", || recorder.counts().dropped == 7);
    let faults = recorder.faults().join("");
    assert!(faults.contains("missing cannot be written: No such file"), "{faults}");
    fs::create_dir(&missing).unwrap();
    tap.received(&session(), Encoding::default(), &keepalives(1));
    wait_for("a record", || recorder.counts().written == 1);
    assert!(recorder.faults().is_empty());
    writer.stop();
    assert_eq!(names(&missing).len(), 1);
}

#[test]
fn records_are_of_the_recording_at_their_time() {
    // No thread takes what is put in.
    let recorder = Recorder::idle();
    let tap = Tap::new(recorder.clone());
    let put = |count| tap.received(&session(), Encoding::default(), &keepalives(count));
    let directory = |change: Option<Option<Recording>>| change.flatten().map(|of| of.directory);
    let set = |folder| recorder.set(Some(recording(Path::new(folder))));
    set("/first");
    put(1);
    let taken = recorder.queue.take(Vec::new(), None);
    assert_eq!((taken.octets.len(), taken.records), (0, 0));
    assert_eq!(directory(taken.change), Some("/first".into()));
    put(1);
    set("/between");
    put(4);
    set("/last");
    put(3);
    recorder.queue.end();
    let taken = recorder.queue.take(Vec::new(), None);
    assert_eq!((taken.records, taken.has_ended), (2, false));
    assert_eq!(directory(taken.change), Some("/last".into()));
    assert_eq!(recorder.counts().dropped, 4);
    let taken = recorder.queue.take(Vec::new(), None);
    assert_eq!((taken.records, taken.change.is_none(), taken.has_ended), (3, true, true));
}

#[test]
fn a_full_queue_drops_and_counts() {
    // No thread takes what is put in.
    let recorder = Recorder::idle();
    recorder.set(Some(recording(Path::new("/nonexistent"))));
    let tap = Tap::new(recorder.clone());
    let burst = keepalives(1000);
    let mut put = 0;
    while recorder.counts().dropped == 0 {
        tap.received(&session(), Encoding::default(), &burst);
        put += 1000;
        assert!(put < 1_000_000, "the queue has no bound");
    }
    // The change, and what is behind it.
    recorder.queue.take(Vec::new(), None);
    let taken = recorder.queue.take(Vec::new(), None);
    assert!(taken.octets.len() < queue::OCTETS_MAX + 200);
    assert_eq!(taken.records + recorder.counts().dropped, put);
}

#[test]
fn files_of_tables_are_kept_apart_from_others() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    for name in [".table.20200101T000000.000Z.mrt.part", "table-blue.20200101T000000.000Z.mrt"] {
        fs::write(path.join(name), "x").unwrap();
    }
    for _ in 0..3 {
        let mut file = TableFile::create(path, None, false).unwrap();
        file.append(b"some").unwrap();
        assert!(names(path)[0].starts_with(".table.2"), "{:?}", names(path));
        file.complete(Some(1)).unwrap();
    }
    let found = names(path);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "table-blue.20200101T000000.000Z.mrt");
    TableFile::create(path, None, true).unwrap().discard().unwrap();
    assert_eq!(names(path), found);
    // The task that dumps is aborted.
    let mut aborted = TableFile::create(path, None, true).unwrap();
    aborted.append(b"some").unwrap();
    drop(aborted);
    assert_eq!(names(path), found);
}

#[test]
fn only_files_of_the_same_stem_are_removed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let time = "20200101T000000.000Z";
    let others = [
        format!(".table-red.100.{time}.mrt.part"),
        ".table-red.notes.mrt.part".to_owned(),
        format!("table-red.{time}.mrt.xz"),
        format!("table-red.100.{time}.mrt"),
        format!("table-red.100.{time}.mrt.gz"),
        "table-red.2020.mrt".to_owned(),
        "table-red.tar.gz".to_owned(),
        format!("updates.{time}.tar.gz"),
        "updates.tar.gz".to_owned(),
    ];
    let ours = [
        format!(".table-red.{time}.mrt.part"),
        format!(".table-red.{time}.mrt.gz.part"),
        format!("table-red.{time}.mrt"),
        format!("table-red.{time}.mrt.gz"),
        format!("updates.{time}.mrt"),
    ];
    for name in others.iter().chain(&ours) {
        fs::write(path.join(name), "x").unwrap();
    }
    for stem in ["table-red", "updates"] {
        file::remove_torn(path, stem).unwrap();
        file::remove_old(path, stem, 0).unwrap();
    }
    let mut others = others.to_vec();
    others.sort();
    assert_eq!(names(path), others);
}

#[test]
fn a_complete_file_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    for _ in 0..3 {
        let mut open =
            file::Open::create(folder.path(), "updates", false, SystemTime::UNIX_EPOCH).unwrap();
        open.append(b"some").unwrap();
        assert!(open.complete().unwrap());
    }
    let of = |millis| format!("updates.19700101T000000.00{millis}Z.mrt");
    assert_eq!(names(folder.path()), [of(0), of(1), of(2)]);
}

#[test]
fn a_fault_of_tables_that_are_no_longer_dumped_is_forgotten() {
    let recorder = Recorder::idle();
    recorder.note_tables(Path::new("/nonexistent"), Err(std::io::ErrorKind::NotFound.into()));
    assert_eq!(recorder.faults().len(), 1);
    recorder.forget_tables();
    assert!(recorder.faults().is_empty());
}
