//! Files that only their owner may read.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use cloakroom::SigningKey;

/// Makes a file with this content. A file that exists already stays as it is.
///
/// The file has its permissions from the start. If this function set them later, others could open
/// the file before that.
pub(crate) fn create(path: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("cannot create {}: {error}", path.display()),
            ));
        }
    };
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // If half a key stayed in the file, the next start would fail.
        let _ = fs::remove_file(path);
    }
    written
}

/// Makes a file with a new signing key, on the first start.
pub(crate) fn create_key(path: &Path) -> Result<(), Box<dyn Error>> {
    Ok(create(
        path,
        &format!("{}\n", SigningKey::generate()?.to_hex()),
    )?)
}
