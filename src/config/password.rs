//! Passwords in the configuration file, or in separate files.

use std::path::Path;

use super::reader::{Table, Value};

/// Reads `password` or `password-file`. Returns the octets, and the value to which faults belong.
/// No fault ever contains the password.
pub(super) fn read_password<'a>(table: &Table<'a>, folder: &Path) -> Option<(Value<'a>, Vec<u8>)> {
    read_secret(table, folder, ["password", "password-file"])
}

/// Like [`read_password`], with these names of the keys.
pub(super) fn read_secret<'a>(
    table: &Table<'a>,
    folder: &Path,
    [inline, in_file]: [&'static str; 2],
) -> Option<(Value<'a>, Vec<u8>)> {
    let password = table.get(inline);
    let file = table.get(in_file);
    if let (Some(_), Some(file)) = (&password, &file) {
        file.fault_key(format_args!("excludes {inline}"), "keep one of them");
        return None;
    }
    match (password, file) {
        (Some(value), _) => {
            let octets = value.text()?.as_bytes().to_vec();
            Some((value, octets))
        }
        (None, Some(value)) => {
            let path = folder.join(value.text()?);
            match value.read_secret(&path) {
                Ok(octets) => Some((value, octets)),
                Err(error) => {
                    value.fault(
                        format_args!("{} cannot be read: {error}", path.display()),
                        format_args!("name a readable file that holds the {inline}"),
                    );
                    None
                }
            }
        }
        (None, None) => None,
    }
}
