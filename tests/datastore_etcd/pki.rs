//! Certificates, made with openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority in a folder.
pub(crate) struct Pki {
    folder: PathBuf,
}

/// When a certificate counts.
pub(crate) enum When {
    Always,
    Past,
}

impl Pki {
    /// One with a name; two of one name would be taken for each other.
    pub(crate) fn new(folder: &Path, name: &str) -> Pki {
        fs::create_dir_all(folder).unwrap();
        let pki = Pki { folder: folder.to_owned() };
        fs::write(folder.join("index.txt"), "").unwrap();
        fs::write(folder.join("serial"), "01").unwrap();
        let settings = "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index.txt\nserial=serial\n\
                        new_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n\
                        [p]\ncommonName=supplied\n";
        fs::write(folder.join("ca.cnf"), settings).unwrap();
        pki.key("ca");
        pki.openssl(&format!(
            "req -x509 -new -key ca.key -sha256 -days 30 -subj /CN={name} -out ca.crt \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        pki
    }

    /// Issues NAME.crt and NAME.key, in the place of what was there.
    pub(crate) fn issue(&self, name: &str, common_name: &str, when: When) {
        self.key(name);
        self.openssl(&format!("req -new -key {name}.key -subj /CN={common_name} -out {name}.csr"));
        let extensions = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                          extendedKeyUsage=serverAuth,clientAuth\n\
                          subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n";
        fs::write(self.folder.join("extensions"), extensions).unwrap();
        let dates = match when {
            When::Always => "-startdate 20200101000000Z -enddate 20491231000000Z",
            When::Past => "-startdate 20200101000000Z -enddate 20210203040506Z",
        };
        self.openssl(&format!(
            "ca -batch -config ca.cnf -keyfile ca.key -cert ca.crt -in {name}.csr {dates} \
             -extfile extensions -notext -out {name}.new"
        ));
        fs::rename(self.folder.join(format!("{name}.new")), self.path(name, "crt")).unwrap();
    }

    pub(crate) fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }

    fn key(&self, name: &str) {
        self.openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let run = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "openssl {arguments}: {errors}");
    }
}
