//! `margay dump`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::types::Family;
use clap::{Args, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::client::{Client, ClientError};
use super::{Daemon, FAILED};
use crate::ctl::Request;
use crate::ctl::item::DumpPart;
use crate::replace_file::replace_file;

/// Size of the buffer for output, in octets.
const BUFFER: usize = 1 << 16;

/// The arguments of `dump`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DumpArgs {
    /// Where it is written: a file, which appears under this name when it is complete, readable by its
    /// owner only; - is stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Compress it.
    #[arg(long)]
    gzip: bool,
    /// The table of this VRF instead of the default one.
    #[arg(long, value_name = "VRF")]
    vrf: Option<String>,
    /// Only this family.
    #[arg(long, value_name = "FAMILY")]
    family: Option<DumpFamily>,
    /// Which daemon to query.
    #[command(flatten)]
    pub(super) daemon: Daemon,
}

/// A family on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DumpFamily {
    Ipv4,
    Ipv6,
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
enum DumpError {
    #[error("a dump is binary: name a file with --output, or redirect stdout")]
    Terminal,
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("the reader of the dump has closed the pipe: what it has read is incomplete")]
    Pipe,
    #[error("cannot write the dump: {0}; what was written is incomplete")]
    Written(#[source] io::Error),
    #[error("cannot write {}: {source}; nothing is left of the dump", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Writes the dump and says on stderr what is in it.
pub(super) fn run(args: &DumpArgs) -> ExitCode {
    match dump(args) {
        Ok(DumpPart { prefixes, paths, left_out, .. }) => {
            eprintln!("margay: {paths} paths to {prefixes} prefixes");
            if left_out > 0 {
                eprintln!(
                    "margay: {left_out} paths are left out: of peers that were added meanwhile, or too \
                     long for MRT"
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("margay: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn dump(args: &DumpArgs) -> Result<DumpPart, DumpError> {
    if args.output == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(DumpError::Terminal);
        }
        return write(args, stdout.lock()).map_err(in_place);
    }
    // A device or a FIFO is written to; it must not be replaced by a file.
    if fs::metadata(&args.output).is_ok_and(|found| !found.is_file()) {
        let open = OpenOptions::new().write(true).open(&args.output);
        let file = open.map_err(|source| DumpError::File { path: args.output.clone(), source })?;
        return write(args, file).map_err(in_place);
    }
    let mut done = None;
    let replaced = replace_file(&args.output, |file: &mut File| match write(args, file) {
        Ok(part) => {
            done = Some(Ok(part));
            Ok(())
        }
        Err(ClientError::Output(error)) => Err(error),
        Err(error) => {
            done = Some(Err(error));
            Err(io::ErrorKind::Other.into())
        }
    });
    match (replaced, done) {
        (_, Some(Err(error))) => Err(error.into()),
        (Ok(()), Some(Ok(part))) => Ok(part),
        (Err(source), _) => Err(DumpError::File { path: args.output.clone(), source }),
        (Ok(()), None) => Ok(DumpPart::default()),
    }
}

/// An error of an output that stays as it is.
fn in_place(error: ClientError) -> DumpError {
    match error {
        ClientError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => DumpError::Pipe,
        ClientError::Output(error) => DumpError::Written(error),
        error => DumpError::Client(error),
    }
}

/// Asks for the dump and writes it; returns the last part, with the totals.
fn write(args: &DumpArgs, out: impl Write) -> Result<DumpPart, ClientError> {
    let mut client = Client::connect(&args.daemon.socket)?;
    let family = args.family.map(|family| match family {
        DumpFamily::Ipv4 => Family::Ipv4,
        DumpFamily::Ipv6 => Family::Ipv6,
    });
    let request = Request::Dump { vrf: args.vrf.clone(), family };
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let last = if args.gzip {
        let mut packed = GzEncoder::new(&mut out, Compression::fast());
        let last = copy(&mut client, &request, &mut packed)?;
        packed.finish().map_err(ClientError::Output)?;
        last
    } else {
        copy(&mut client, &request, &mut out)?
    };
    out.flush().map_err(ClientError::Output)?;
    Ok(last)
}

fn copy(
    client: &mut Client,
    request: &Request,
    out: &mut impl Write,
) -> Result<DumpPart, ClientError> {
    let (mut last, mut octets) = (DumpPart::default(), Vec::new());
    client.ask(request, |item| {
        last = serde_json::from_str(item).map_err(ClientError::Answer)?;
        octets.clear();
        let decoded = STANDARD.decode_vec(&last.mrt, &mut octets);
        decoded.map_err(|error| ClientError::Answer(serde::de::Error::custom(error)))?;
        out.write_all(&octets).map_err(ClientError::Output)
    })?;
    Ok(last)
}
