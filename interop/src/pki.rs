//! Certificates, made with openssl(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::lab::run_command;

/// A certificate authority and the certificates that it signed, in a folder. The caller removes the
/// folder.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    alternative_names: String,
}

/// The validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// For decades.
    Always,
    /// Until 2021.
    Past,
    /// From 2048 on.
    Future,
}

impl Pki {
    /// Creates an authority with a name, which must be unique: two with the same name could not be
    /// distinguished. Its certificates are valid for servers with these names, such as
    /// `DNS:localhost,IP:127.0.0.1`.
    ///
    /// # Errors
    /// When the folder cannot be written or openssl refuses.
    pub fn new(folder: &Path, name: &str, alternative_names: &str) -> Result<Self> {
        let pki = Self { folder: folder.to_owned(), alternative_names: alternative_names.into() };
        fs::create_dir_all(&pki.folder)?;
        fs::write(pki.folder.join("index.txt"), "")?;
        fs::write(pki.folder.join("serial"), "01")?;
        let settings = "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index.txt\nserial=serial\n\
                        new_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n\
                        [p]\ncommonName=supplied\n";
        fs::write(pki.folder.join("ca.cnf"), settings)?;
        pki.key("ca")?;
        pki.openssl(&format!(
            "req -x509 -new -key ca.key -sha256 -days 30 -subj /CN={name} -out ca.crt \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ))?;
        Ok(pki)
    }

    /// Issues NAME.crt and NAME.key, replacing existing files.
    ///
    /// # Errors
    /// When openssl refuses.
    pub fn issue(&self, name: &str, common_name: &str, when: When) -> Result<()> {
        self.key(name)?;
        self.openssl(&format!("req -new -key {name}.key -subj /CN={common_name} -out {name}.csr"))?;
        let extensions = format!(
            "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={}\n",
            self.alternative_names
        );
        fs::write(self.folder.join("extensions"), extensions)?;
        let dates = match when {
            When::Always => "-startdate 20200101000000Z -enddate 20491231000000Z",
            When::Past => "-startdate 20200101000000Z -enddate 20210203040506Z",
            When::Future => "-startdate 20480203040506Z -enddate 20491231000000Z",
        };
        self.openssl(&format!(
            "ca -batch -config ca.cnf -keyfile ca.key -cert ca.crt -in {name}.csr {dates} \
             -extfile extensions -notext -out {name}.new"
        ))?;
        // Replaced atomically, so that a concurrent reader never sees a partial file.
        Ok(fs::rename(self.path(name, "new"), self.path(name, "crt"))?)
    }

    /// The path of NAME.EXTENSION.
    #[must_use]
    pub fn path(&self, name: &str, extension: &str) -> String {
        self.folder.join(format!("{name}.{extension}")).display().to_string()
    }

    fn key(&self, name: &str) -> Result<()> {
        self.openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
        ))
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(&self.folder);
        run_command(&mut command).map(drop)
    }
}
