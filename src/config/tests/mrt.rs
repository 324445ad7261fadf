//! `[mrt]`.

use super::*;

#[test]
fn mrt_files_have_defaults_and_their_keys_are_read() {
    assert_eq!(accepted(LEAST).host.mrt, None);
    let mrt = accepted(&format!("{LEAST}[mrt]\ndirectory = \"mrt\"\nupdates = true\n")).host.mrt;
    let defaults = MrtSettings::in_folder(PathBuf::from("mrt"));
    assert_eq!(mrt, Some(MrtSettings { updates: MrtPeers::All, ..defaults.clone() }));
    let text = format!(
        "{LEAST}[mrt]\ndirectory = \"/var/mrt\"\nupdates = [\"a\", \"b\"]\nrotate-after = 60\ntable-interval = 120\n\
         rotate-bytes = 1048576\ncompression = \"gzip\"\nkeep = 5\n"
    );
    let config = accepted(&text);
    let mrt = config.host.mrt.clone().unwrap();
    assert!(mrt.updates.contains("b") && !mrt.updates.contains("c"));
    assert_eq!((mrt.directory, mrt.keep), (PathBuf::from("/var/mrt"), Some(5)));
    assert_eq!((mrt.rotate_after.as_secs(), mrt.rotate_bytes), (60, 1 << 20));
    assert_eq!(mrt.compression, MrtCompression::Gzip);
    assert!(
        config
            .to_string()
            .contains("MRT files in /var/mrt: messages of a, b, tables every 120 s\n")
    );
    let changes = config.changes_to(&accepted(LEAST));
    assert!(changes.mrt_changed && changes.restart_needed.is_empty());
    assert!(!config.changes_to(&config).mrt_changed);
}

#[test]
fn mrt_files_need_a_folder_and_sensible_limits() {
    for (lines, wanted) in [
        ("updates = true", "mrt.directory: is missing; name the folder for the files"),
        ("directory = \"/m\"\nrotate-after = 59", "mrt.rotate-after: "),
        ("directory = \"/m\"\nrotate-bytes = 1", "mrt.rotate-bytes: "),
        ("directory = \"/m\"\ncompression = \"zip\"", "mrt.compression: "),
        ("directory = \"/m\"\nkeep = 0", "mrt.keep: "),
        ("directory = \"/m\"\nupdate = true", "did you mean \"updates\"?"),
    ] {
        let errors = parse(&format!("{LEAST}[mrt]\n{lines}\n")).err().unwrap().to_string();
        assert!(errors.contains(wanted), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
