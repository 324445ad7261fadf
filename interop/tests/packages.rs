//! The packages of `interop/package.sh`: their content, and what installing, upgrading and removing
//! them does to a running daemon and to its neighbour.
//!
//! `MARGAY_PACKAGES` names their folder, that of one target of `interop/package.sh`; by default
//! they are made here from the binary under test. With packages for another machine only the tests
//! of their content can pass: those with `hold`, `sbom` or `line_tables` in their names.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, run_command};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, neighbor};
use interop::require;
use interop::speaker::{Config, Kind, Origin, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, wait_until};
use serde_json::Value;

const OWN_ROUTE: &str = "192.0.2.0/24";
const PEER_ROUTE: &str = "198.51.100.0/24";
const KEY: &str = "a-key-of-this-session";
/// Largest size of the image in octets, compressed, as a registry counts.
const IMAGE_MAX: u64 = 16_000_000;
/// A minimal Debian 12; `interop/setup.sh package` makes it.
const CLEAN_ROOT: &str = "/opt/interop/package/root";

/// The folder with the packages. Makes them once, unless `MARGAY_PACKAGES` names it.
fn packages() -> Result<PathBuf> {
    static MADE: LazyLock<Mutex<Option<PathBuf>>> = LazyLock::new(Mutex::default);
    if let Some(folder) = std::env::var_os("MARGAY_PACKAGES") {
        return Ok(PathBuf::from(folder));
    }
    let mut made = MADE.lock().map_err(|_| anyhow!("the packages could not be made"))?;
    if let Some(folder) = made.as_ref() {
        return Ok(folder.clone());
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // In the target folder, and not removed: the next run replaces it.
    let own = std::env::current_exe()?;
    let out = own.ancestors().nth(3).context("the test runs outside a target folder")?;
    let out = out.join("packages-of-tests");
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/package.sh"));
    script.arg(&target).env("MARGAY_PACKAGE_BINARY", margay::binary()?);
    script.env("MARGAY_PACKAGE_DIR", &out);
    // Every test run builds it; a build of its own would use other features of the dependencies.
    let manual = own.with_file_name("../examples/manual");
    if manual.is_file() {
        script.env("MARGAY_PACKAGE_MANUAL", manual);
    }
    run_command(&mut script)?;
    Ok(made.insert(out.join(target)).clone())
}

/// The file in the folder whose name ends with `end`.
fn file(folder: &Path, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.to_string_lossy().ends_with(end));
    found.with_context(|| format!("no *{end} in {}", folder.display()))
}

/// The packages' architecture, by the target that the folder is named after, as readelf, dpkg, rpm
/// and OCI name it.
fn machine(folder: &Path) -> Result<[&'static str; 4]> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match name.split('-').next() {
        Some("x86_64") => Ok(["Advanced Micro Devices X86-64", "amd64", "x86_64", "amd64"]),
        Some("aarch64") => Ok(["AArch64", "arm64", "aarch64", "arm64"]),
        _ => Err(anyhow!("{} does not have the name of a target", folder.display())),
    }
}

fn shell(script: &str) -> Result<String> {
    run_command(Command::new("sh").args(["-ec", script]))
}

/// What both packages hold, beside the manual pages.
const FILES: [&str; 9] = [
    "/usr/bin/margay",
    "/etc/margay/margay.toml",
    "/usr/lib/systemd/system/margay.service",
    "/usr/share/man/man1/margay.1",
    "/usr/share/bash-completion/completions/margay",
    "/usr/share/fish/vendor_completions.d/margay.fish",
    "/usr/share/doc/margay/margay.cdx.json",
    "/usr/share/doc/margay/docs/src/configuration.md",
    "/usr/share/doc/margay/examples/full.toml",
];

fn ensure_files(listed: &str, zsh: &str) -> Result<()> {
    let names: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.trim_start_matches('.').trim_end_matches(".gz"))
        .collect();
    for file in FILES.into_iter().chain([zsh]) {
        ensure!(names.contains(file), "{file} is missing in {listed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs interop/setup.sh package"]
fn both_packages_hold_everything() -> Result<()> {
    require::programs(&["dpkg-deb", "rpm"])?;
    let folder = packages()?;
    let (deb, rpm) = (file(&folder, ".deb")?, file(&folder, ".rpm")?);
    let (deb, rpm) = (deb.display(), rpm.display());
    let [of_elf, of_deb, of_rpm, _] = machine(&folder)?;
    let header = shell(&format!("readelf --file-header {}", folder.join("margay").display()))?;
    ensure!(header.contains(of_elf), "{header}");
    let architecture = shell(&format!("rpm --query --package --queryformat '%{{ARCH}}' {rpm}"))?;
    ensure!(architecture == of_rpm, "{architecture}");
    let listed = shell(&format!("dpkg-deb --contents {deb}"))?;
    ensure_files(&listed, "/usr/share/zsh/vendor-completions/_margay")?;
    let conffiles = shell(&format!("dpkg-deb --info {deb} conffiles"))?;
    ensure!(conffiles.trim() == "/etc/margay/margay.toml", "{conffiles}");
    let fields = shell(&format!("dpkg-deb --field {deb} Depends Version Architecture"))?;
    ensure!(fields.contains("libc6 (>= 2.17)") && fields.contains("passwd"), "{fields}");
    ensure!(fields.contains(&format!("Architecture: {of_deb}\n")), "{fields}");
    // It restarts a running daemon after an upgrade.
    let postinst = shell(&format!("dpkg-deb --info {deb} postinst"))?;
    ensure!(
        postinst.contains("try-restart") || postinst.contains("deb-systemd-invoke"),
        "{postinst}"
    );

    let listed = shell(&format!("rpm --query --package --list {rpm}"))?;
    ensure_files(&listed, "/usr/share/zsh/site-functions/_margay")?;
    let config = shell(&format!("rpm --query --package --configfiles {rpm}"))?;
    ensure!(config.trim() == "/etc/margay/margay.toml", "{config}");
    let scripts = shell(&format!("rpm --query --package --scripts {rpm}"))?;
    ensure!(scripts.contains("systemctl try-restart margay.service"), "{scripts}");
    let owner = shell(&format!("rpm --query --package --dump {rpm} | grep margay.toml"))?;
    ensure!(owner.contains(" 0100640 root margay "), "{owner}");
    Ok(())
}

#[test]
#[ignore = "needs interop/setup.sh package"]
fn the_sbom_names_what_is_linked() -> Result<()> {
    let text = fs::read_to_string(packages()?.join("margay.cdx.json"))?;
    let bom: Value = serde_json::from_str(&text)?;
    ensure!(bom["bomFormat"] == "CycloneDX", "{}", bom["bomFormat"]);
    ensure!(bom["metadata"]["component"]["name"] == "margay", "{}", bom["metadata"]);
    let components = bom["components"].as_array().context("no components")?;
    let names: BTreeSet<&str> = components.iter().filter_map(|c| c["name"].as_str()).collect();
    for wanted in ["tokio", "bgp-proto", "rustls", "rtnetlink"] {
        ensure!(names.contains(wanted), "{wanted} is missing in {names:?}");
    }
    // What only tests use is not shipped.
    for other in ["criterion", "proptest", "clap_mangen", "interop"] {
        ensure!(!names.contains(other), "{other} is not linked");
    }
    Ok(())
}

#[test]
#[ignore = "needs interop/setup.sh package"]
fn line_tables_are_beside_the_program() -> Result<()> {
    let folder = packages()?;
    let (program, debug) = (folder.join("margay"), folder.join("margay.debug"));
    let sections =
        |path: &Path| run_command(Command::new("readelf").args(["--sections", "--wide"]).arg(path));
    let (program, debug) = (sections(&program)?, sections(&debug)?);
    ensure!(!program.contains(".debug_line") && !program.contains(".symtab"), "{program}");
    // Debuggers find the other file by the build-id.
    ensure!(program.contains(".note.gnu.build-id"), "{program}");
    ensure!(debug.contains(".debug_line"), "{debug}");
    Ok(())
}

/// A clean root in a folder of the lab's, with what `chroot` needs.
fn clean_root(host: &Host) -> Result<PathBuf> {
    ensure!(Path::new(CLEAN_ROOT).is_dir(), "no {CLEAN_ROOT}: interop/setup.sh package makes it");
    let root = host.file("root");
    run_command(Command::new("cp").args(["--archive", CLEAN_ROOT]).arg(&root))?;
    Ok(root)
}

/// A command that runs in the root and in the host's network namespace. Its mounts are its own.
fn inside(host: &Host, root: &Path, program: &str) -> Command {
    let root = root.display();
    let mut command = host.command("sh");
    command.args(["-ec", &format!("mount -t proc proc {root}/proc; exec chroot {root} {program}")]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command
}

/// Starts the installed margay as its unit does: its user, capabilities, folder and arguments.
/// Stands in for systemd, which does not run in a chroot.
fn start_unit(host: &Host, root: &Path, log: &str) -> Result<(Daemon, Control)> {
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/margay.service"))?;
    let setting = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.with_context(|| format!("the unit has no {key}"))
    };
    let capabilities = setting("AmbientCapabilities")?.to_lowercase().replace("cap_", "+");
    let capabilities = capabilities.replace(' ', ",");
    let user = setting("User")?;
    run_command(&mut inside(host, root, &format!("install -d -o {user} -g {user} /run/margay")))?;
    let program = format!(
        "setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs \
         --bounding-set=-all,{capabilities} --inh-caps=-all,{capabilities} \
         --ambient-caps=-all,{capabilities} {}",
        setting("ExecStart")?
    );
    let daemon = Daemon::start(inside(host, root, &program), &host.file(&format!("{log}.log")))?;
    let control = Control::at(&root.join("run/margay/margay.sock"));
    let mut daemon = daemon;
    wait_until(PATIENCE, "the installed margay's control socket", || {
        ensure!(daemon.exited()?.is_none(), "it ended: {}", daemon.output());
        control.text(&["show", "status"]).map(drop)
    })?;
    Ok((daemon, control))
}

/// The same package with a higher version, to exercise dpkg and the package's scripts.
fn newer(deb: &Path, host: &Host) -> Result<PathBuf> {
    let (tree, newer) = (host.file("newer"), host.file("newer.deb"));
    shell(&format!(
        "dpkg-deb --raw-extract {deb} {tree}; sed -i 's/^Version: .*/&+newer/' {tree}/DEBIAN/control; \
         dpkg-deb -Zgzip --root-owner-group --build {tree} {newer}",
        deb = deb.display(),
        tree = tree.display(),
        newer = newer.display(),
    ))?;
    Ok(newer)
}

fn dpkg(host: &Host, root: &Path, arguments: &str) -> Result<String> {
    run_command(&mut inside(host, root, &format!("dpkg --force-confold {arguments}")))
}

/// Copies a package into the root and installs it.
fn install(host: &Host, root: &Path, deb: &Path) -> Result<String> {
    fs::copy(deb, root.join("tmp/margay.deb"))?;
    dpkg(host, root, "--install /tmp/margay.deb")
}

/// The neighbour: BIRD 2 at port 179 with a key, which retains routes over a graceful restart.
fn bird(of: &Host, margay: &Host) -> Result<Bird2> {
    let mut n = neighbor(margay.v4(), of.v4(), SUBJECT_AS);
    n.port = 179;
    n.graceful_restart = true;
    n.password = Some(KEY.to_owned());
    let config = Config {
        asn: PEER_AS,
        router_id: of.router_id(),
        port: 179,
        neighbors: vec![n],
        origins: vec![Origin::plain(PEER_ROUTE)],
    };
    Bird2::start(of, &config)
}

/// The administrator's configuration: port 179, a key, kernel routes. All of it needs a capability.
fn configure(host: &Host, root: &Path, peer: IpAddr) -> Result<()> {
    let text = format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nconnect-retry-time = 1\n\n\
         [[bgp.peers]]\nname = \"bird\"\naddress = \"{}\"\nremote-asn = {PEER_AS}\n\
         password = \"{KEY}\"\nimport = \"all\"\nexport = \"all\"\nbfd = {{ passive = true }}\n\n\
         [[originate]]\nprefix = \"{OWN_ROUTE}\"\n",
        host.router_id(),
        peer
    );
    // Written in place, so that owner and mode stay as the package has set them.
    Ok(fs::write(root.join("etc/margay/margay.toml"), text)?)
}

/// Checks what a fresh installation has left in the root.
fn ensure_installed(host: &Host, root: &Path) -> Result<()> {
    let version = run_command(&mut inside(host, root, "margay --version"))?;
    ensure!(version.starts_with("margay ") && version.contains("\ncommit "), "{version}");
    let checked =
        run_command(&mut inside(host, root, "margay check --config /etc/margay/margay.toml"));
    checked.context("the configuration that is installed is not valid")?;
    ensure_private(host, root)
}

/// The configuration may hold passwords: it is for root and the daemon, which may not write it.
fn ensure_private(host: &Host, root: &Path) -> Result<()> {
    let folder = root.join("etc/margay");
    let (file, folder) = (fs::metadata(folder.join("margay.toml"))?, fs::metadata(folder)?);
    ensure!(file.permissions().mode() & 0o777 == 0o640, "{file:?}");
    ensure!(folder.permissions().mode() & 0o777 == 0o750, "{folder:?}");
    let group = run_command(&mut inside(host, root, "getent group margay"))?;
    ensure!(group.split(':').nth(2) == Some(&*file.gid().to_string()), "{group}: {}", file.gid());
    ensure!(file.uid() == 0, "the daemon may not write its configuration");
    Ok(())
}

/// Installs the package, upgrades it while margay runs, and removes it. The neighbour keeps every
/// route until the removal, which withdraws them.
#[test]
#[ignore = "needs root, BIRD 2 and interop/setup.sh package"]
fn an_upgrade_loses_no_route_and_a_removal_leaves_none() -> Result<()> {
    let folder = packages()?;
    lab::run_margay("packages-upgrade", &[Kind::Bird2], &["dpkg-deb", "setpriv"], |lab| {
        let (host, peer) = (lab.host("a")?, lab.host("b")?);
        let deb = file(&folder, ".deb")?;
        let root = clean_root(&host)?;
        install(&host, &root, &deb)?;
        ensure_installed(&host, &root)?;
        configure(&host, &root, peer.v4())?;
        let (mut daemon, control) = start_unit(&host, &root, "margay")?;
        let bird = bird(&peer, &host)?;
        wait_established(&bird, host.v4())?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        kernel::wait_gateways(&host, PEER_ROUTE, &[peer.v4().to_string()])?;
        let bfd = control.json(&["show", "bfd"])?;
        ensure!(bfd[0]["peers"][0] == "bird" && bfd[0]["error"].is_null(), "{bfd}");
        let (own, theirs) = (RouteMonitor::start(&host)?, RouteMonitor::start(&peer)?);

        install(&host, &root, &newer(&deb, &host)?)?;
        let installed = run_command(&mut inside(&host, &root, "dpkg-query --show margay"))?;
        ensure!(installed.trim().ends_with("+newer"), "{installed}");
        ensure!(daemon.exited()?.is_none(), "the package's scripts have ended it");
        let config = fs::read_to_string(root.join("etc/margay/margay.toml"))?;
        ensure!(config.contains(KEY), "the configuration was replaced: {config}");
        ensure_private(&host, &root)?;
        // The restart that deb-systemd-invoke asks systemd for: KillSignal, then ExecStart.
        daemon.signal("TERM")?;
        let ended = daemon.wait(Duration::from_secs(10))?;
        ensure!(ended.success(), "{ended}: {}", daemon.output());
        let (mut daemon, control) = start_unit(&host, &root, "margay-newer")?;
        wait_until(PATIENCE, "the session with the newer margay", || {
            let state = control.peer(peer.v4())?["state"].clone();
            ensure!(state == "Established" && bird.sessions(host.v4())? == 2, "{state}");
            Ok(())
        })?;
        wait_until(PATIENCE, "the end of the restart", || {
            let status = control.json(&["show", "status"])?;
            ensure!(status["not_ready"].is_null(), "{}", status["not_ready"]);
            Ok(())
        })?;
        ensure!(bird.paths(OWN_ROUTE)?.len() == 1, "BIRD has lost {OWN_ROUTE}");
        let (own, theirs) = (own.changes()?, theirs.changes()?);
        ensure!(!own.contains(&format!("Deleted {PEER_ROUTE}")), "{own}");
        ensure!(!theirs.contains(&format!("Deleted {OWN_ROUTE}")), "{theirs}");

        dpkg(&host, &root, "--remove margay")?;
        let ended = daemon.wait(Duration::from_secs(10))?;
        ensure!(ended.success(), "{ended}: {}", daemon.output());
        kernel::wait_gone(&host, PEER_ROUTE)?;
        kernel::wait_gone(&host, OWN_ROUTE)?;
        wait_paths(&bird, OWN_ROUTE, 0)?;
        ensure!(!root.join("usr/bin/margay").exists() && !root.join("run/margay").exists(), "left");
        ensure!(root.join("etc/margay/margay.toml").exists(), "a removal keeps the configuration");
        dpkg(&host, &root, "--purge margay")?;
        ensure!(!root.join("etc/margay").exists(), "a purge does not");
        Ok(())
    })
}

/// rpm runs the package's scripts in a Debian root, where its dependencies have other names and so
/// are not checked.
#[test]
#[ignore = "needs root and interop/setup.sh package"]
fn the_rpm_creates_the_user_and_can_be_erased() -> Result<()> {
    let folder = packages()?;
    lab::run_margay("packages-rpm", &[], &["rpm"], |lab| {
        let host = lab.host("a")?;
        let root = clean_root(&host)?;
        let rpm = |arguments: &str| {
            shell(&format!("rpm --root {} --nodeps --nosignature {arguments}", root.display()))
        };
        rpm(&format!("--install {}", file(&folder, ".rpm")?.display()))?;
        ensure_installed(&host, &root)?;
        fs::write(root.join("etc/margay/margay.toml"), "# mine\n")?;
        rpm("--erase margay")?;
        ensure!(!root.join("usr/bin/margay").exists(), "the program is left");
        let kept = fs::read_to_string(root.join("etc/margay/margay.toml.rpmsave"))?;
        ensure!(kept == "# mine\n", "{kept}");
        Ok(())
    })
}

/// A blob of an OCI layout, by its descriptor, as JSON.
fn blob(layout: &Path, descriptor: &Value) -> Result<Value> {
    let digest = descriptor["digest"].as_str().context("no digest")?.replace(':', "/");
    let text = fs::read_to_string(layout.join("blobs").join(digest))?;
    Ok(serde_json::from_str(&text)?)
}

/// Unpacks the image's layers into a folder.
fn unpack_image(folder: &Path, root: &Path) -> Result<()> {
    let layout = folder.join("oci");
    let index: Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json"))?)?;
    let manifest = blob(&layout, &index["manifests"][0])?;
    let config = blob(&layout, &manifest["config"])?;
    ensure!(config["os"] == "linux", "{config}");
    ensure!(config["architecture"] == machine(folder)?[3], "{config}");
    ensure!(config["config"]["Entrypoint"][0] == "/usr/bin/margay", "{config}");
    ensure!(config["config"]["Cmd"][2] == "/etc/margay/margay.toml", "{config}");
    fs::create_dir_all(root)?;
    let mut size = 0;
    for layer in manifest["layers"].as_array().context("no layers")? {
        size += layer["size"].as_u64().context("a layer without size")?;
        let digest = layer["digest"].as_str().context("no digest")?.replace(':', "/");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--gzip", "--directory"]).arg(root).arg("--file");
        run_command(tar.arg(layout.join("blobs").join(digest)))?;
    }
    ensure!(size < IMAGE_MAX, "{size} octets");
    Ok(())
}

#[test]
#[ignore = "needs root and interop/setup.sh package"]
fn the_image_holds_the_program_and_what_it_loads() -> Result<()> {
    let folder = packages()?;
    lab::run_margay("packages-files", &[], &["tar"], |lab| {
        let root = lab.host("a")?.file("image");
        unpack_image(&folder, &root)?;
        for file in
            ["usr/bin/margay", "etc/passwd", "etc/nsswitch.conf", "usr/share/doc/libc6/copyright"]
        {
            ensure!(root.join(file).is_file(), "{file} is missing");
        }
        // The folder that examples/packaging/Dockerfile copies holds the same.
        run_command(Command::new("diff").arg("-r").arg(folder.join("rootfs")).arg(&root)).map(drop)
    })
}

/// The image's layers, unpacked, are a root in which the program runs with nothing of the
/// machine's.
#[test]
#[ignore = "needs root and interop/setup.sh package"]
fn the_image_runs_by_itself() -> Result<()> {
    let folder = packages()?;
    lab::run_margay("packages-image", &[], &["tar"], |lab| {
        let host = lab.host("a")?;
        let root = host.file("image");
        unpack_image(&folder, &root)?;
        fs::create_dir_all(root.join("proc"))?;
        configure(&host, &root, lab.host("b")?.v4())?;
        let run = "/usr/bin/margay run --config /etc/margay/margay.toml";
        let mut daemon = Daemon::start(inside(&host, &root, run), &host.file("image.log"))?;
        let control = Control::at(&root.join("run/margay/margay.sock"));
        wait_until(PATIENCE, "the image's margay", || {
            ensure!(daemon.exited()?.is_none(), "it ended: {}", daemon.output());
            kernel::route(&host, OWN_ROUTE)?.context("no kernel route yet")?;
            control.text(&["show", "status"]).map(drop)
        })?;
        ensure!(daemon.terminate()?.success(), "{}", daemon.output());
        Ok(())
    })
}
