//! `[[bmp]]`.

use bgp_proto::bmp::Rib;
use bgp_proto::table::{Mirroring, MonitoredPeers};

use super::*;

fn station(text: &str) -> Vec<BmpSettings> {
    accepted(&format!("{LEAST}{text}")).host.bmp
}

#[test]
fn stations_have_defaults_and_their_keys_are_read() {
    assert_eq!(station(""), []);
    let all = station("[[bmp]]\nname = \"noc\"\naddress = \"192.0.2.9\"\n");
    let [only] = &all[..] else { panic!("{all:?}") };
    let to = "192.0.2.9:11019".parse().unwrap();
    assert_eq!(only.station, BmpStation::Connect { to, source: None });
    assert_eq!((only.rib_names(), &only.peers), (vec!["loc-rib"], &MonitoredPeers::All));
    assert_eq!(only.mirror, Mirroring::Nothing);
    assert_eq!((only.statistics_interval.unwrap().as_secs(), only.memory_max), (60, 64 << 20));
    let text = "[[bmp]]\nname = \"noc\"\naddress = \"192.0.2.9\"\nport = 5000\nsource-address = \"192.0.2.1\"\n\
                ribs = [\"adj-rib-in-pre-policy\", \"adj-rib-out-post-policy\"]\nmirror = \"errors\"\npeers = [\"a\"]\n\
                statistics-interval = false\nmemory-max = 5\n\
                [[bmp]]\nname = \"far\"\nlisten = \"[::]:5001\"\nfrom = [\"2001:db8::/32\", \"192.0.2.7\"]\n";
    let all = station(text);
    assert_eq!(all[0].ribs, [Rib::AdjRibInPre, Rib::AdjRibOutPost].into());
    assert_eq!((all[0].mirror, all[1].mirror), (Mirroring::Errors, Mirroring::Nothing));
    assert_eq!((all[0].statistics_interval, all[0].memory_max), (None, 5 << 20));
    let from = vec!["2001:db8::/32".parse().unwrap(), "192.0.2.7/32".parse().unwrap()];
    assert_eq!(all[1].station, BmpStation::Listen { on: "[::]:5001".parse().unwrap(), from });
    let config = accepted(&format!("{LEAST}{text}"));
    let line = "monitoring station noc: at 192.0.2.9:5000, adj-rib-in-pre-policy, adj-rib-out-post-policy, mirrored errors of a\n";
    assert!(config.to_string().contains(line), "{config}");
    let changes = config.changes_to(&accepted(LEAST));
    assert!(changes.bmp_changed && changes.restart_needed.is_empty());
    assert!(!config.changes_to(&config).bmp_changed);
}

#[test]
fn what_cannot_be_a_station_is_refused_with_the_reason() {
    let at = "name = \"a\"\naddress = \"192.0.2.9\"\n";
    for (lines, wanted) in [
        ("address = \"192.0.2.9\"".to_owned(), "bmp[1].name: is missing; name the station"),
        ("name = \"a\"".to_owned(), "neither `address` nor `listen` is set"),
        (format!("{at}ribs = []"), "bmp[1].ribs: names no RIB"),
        (format!("{at}ribs = [\"rib\"]"), "bmp[1].ribs"),
        (format!("{at}mirror = \"all\""), "bmp[1].mirror: "),
        (format!("{at}listen = \"192.0.2.1:5000\""), "exclude each other"),
        (format!("{at}from = [\"192.0.2.0/24\"]"), "belongs to `listen`"),
        (format!("{at}source-address = \"2001:db8::1\""), "of different families"),
        (format!("{at}memory-max = 0"), "bmp[1].memory-max: "),
        (format!("{at}statistics-interval = 1"), "bmp[1].statistics-interval: "),
        ("name = \"a\"\nlisten = \"0.0.0.0:5000\"".to_owned(), "needs `from`"),
        (format!("{at}[[bmp]]\n{at}"), "\"a\" is empty or another station's"),
        (
            format!("{at}[[bmp]]\nname = \"b\"\naddress = \"192.0.2.9\""),
            "192.0.2.9:11019 is a already",
        ),
        (
            "name = \"a\"\naddress = \"127.0.0.1\"\n[[bmp]]\nname = \"b\"\nlisten = \"0.0.0.0:11019\"\n\
             from = [\"127.0.0.1\"]"
                .to_owned(),
            "127.0.0.1:11019 is where b has us listen ourselves",
        ),
    ] {
        let text = parse(&format!("{LEAST}[[bmp]]\n{lines}\n")).err().unwrap().to_string();
        assert!(text.contains(wanted), "{text}\nand not {wanted}");
    }
}
