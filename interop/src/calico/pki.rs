//! Certificates, made with openssl.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::lab::{Host, run_command};

/// An authority and what it signed, in a folder of a host.
#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
    address: String,
}

/// When a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// For decades.
    Always,
    /// Until 2021.
    Past,
}

impl Pki {
    /// An authority; the certificates that it issues are good for servers on this host.
    ///
    /// # Errors
    /// When openssl refuses.
    pub(super) fn new(host: &Host) -> Result<Self> {
        let pki = Self { folder: host.file("pki"), address: host.v4().to_string() };
        fs::create_dir_all(&pki.folder)?;
        fs::write(pki.folder.join("index.txt"), "")?;
        fs::write(pki.folder.join("serial"), "01")?;
        let settings = "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index.txt\nserial=serial\n\
                        new_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n\
                        [p]\ncommonName=supplied\n";
        fs::write(pki.folder.join("ca.cnf"), settings)?;
        pki.key("ca")?;
        pki.openssl(
            "req -x509 -new -key ca.key -sha256 -days 30 -subj /CN=authority -out ca.crt \
             -addext keyUsage=critical,keyCertSign,cRLSign",
        )?;
        Ok(pki)
    }

    /// Issues NAME.crt and NAME.key, in the place of what was there. NAME is the common name too.
    ///
    /// # Errors
    /// When openssl refuses.
    pub(super) fn issue(&self, name: &str, when: When) -> Result<()> {
        self.key(name)?;
        self.openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"))?;
        let extensions = format!(
            "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:{}\n",
            self.address
        );
        fs::write(self.folder.join("extensions"), extensions)?;
        let dates = match when {
            When::Always => "-startdate 20200101000000Z -enddate 20491231000000Z",
            When::Past => "-startdate 20200101000000Z -enddate 20210203040506Z",
        };
        self.openssl(&format!(
            "ca -batch -config ca.cnf -keyfile ca.key -cert ca.crt -in {name}.csr {dates} \
             -extfile extensions -notext -out {name}.new"
        ))?;
        Ok(fs::rename(
            self.folder.join(format!("{name}.new")),
            self.folder.join(name.to_owned() + ".crt"),
        )?)
    }

    /// The path of NAME.EXTENSION.
    #[must_use]
    pub(super) fn path(&self, name: &str, extension: &str) -> String {
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
