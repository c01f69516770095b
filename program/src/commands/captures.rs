//! `usbferry capture`: captures of a server on this machine.
//!
//! The file is opened here, with the rights of the user, and passed to the server: whoever may
//! write to the server's socket gets at no other file by the server's rights. The server empties
//! the file once it has accepted, so a refused capture costs nobody a recording.
//!
//! Contract: *blocks* for the reader of a FIFO, and for the server's answer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};

use super::CommandError;
use super::json;
use super::list::printed;
use super::orders::print;
use super::status::{capture_text, title};
use crate::capture::{FILE_MODE, FOREIGN, FileId, PassedFiles, is_foreign, other_half};
use crate::cli::{Capture, CaptureCommand, CaptureStart, CaptureStop, STDOUT};
use crate::config::Capturing;
use crate::limits::SNAP_LEN_DEFAULT;
use crate::operator::client::{Operator, OperatorError, Trouble};
use crate::operator::protocol::Reason;
use crate::words::printable;

/// `usbferry capture`.
pub(super) fn order(arguments: &Capture) -> Result<(), CommandError> {
    match &arguments.order {
        CaptureCommand::Start(arguments) => start(arguments),
        CaptureCommand::Stop(arguments) => stop(arguments),
    }
}

fn start(arguments: &CaptureStart) -> Result<(), CommandError> {
    let CaptureStart { file, device, size, snaplen, asking, json } = arguments;
    // Before the file is made anew, or opened for a reader.
    let mut operator = Operator::connect(asking.socket()).map_err(CommandError::Operator)?;
    let is_stdout = file.as_os_str() == STDOUT;
    let opened = if is_stdout { stdout(*size) } else { Opened::open(file, *size) };
    let opened = opened.map_err(|reason| CommandError::CaptureFile(file.clone(), reason))?;
    let path = if is_stdout { stdout_name() } else { path_of(file) };
    let wanted = Capturing { path, size: *size, snap_len: snaplen.unwrap_or(SNAP_LEN_DEFAULT) };
    let report = operator.start_capture(&wanted, &opened.passed, device.as_deref());
    let report = report.map_err(|error| {
        // Without an answer the server may have begun.
        if let Trouble::Refused(_) = error.trouble {
            opened.remove_made();
        }
        CommandError::Operator(error)
    })?;
    let name = printable(&report.file);
    if is_stdout {
        // The output is the server's now.
        eprintln!("{name}: the capture has begun, until \"usbferry capture stop {name}\"");
        return Ok(());
    }
    if *json {
        return printed(json::print_report(&report));
    }
    let begun = format!("{name}: the capture has begun, until \"usbferry capture stop\"");
    let sessions = report.sessions.iter().map(|session| {
        let device = title(&session.busid, session.name.as_deref());
        format!("{device}: captured, client {}", printable(&session.client))
    });
    let none = report.sessions.is_empty().then(|| match device {
        Some(device) if report.devices.is_empty() => format!(
            "no device is meant by \"{}\" now: \"usbferry status\" shows the devices",
            printable(device)
        ),
        Some(device) => format!("no client has \"{}\" now", printable(device)),
        None => "no client has a device now".to_owned(),
    });
    print(std::iter::once(begun).chain(sessions).chain(none))
}

fn stop(arguments: &CaptureStop) -> Result<(), CommandError> {
    let stop = |name: Option<PathBuf>| {
        let name = name.map(|name| name.display().to_string());
        Operator::connect(arguments.asking.socket())?.stop_capture(name)
    };
    let mut names = arguments.file.as_deref().map(names_of).unwrap_or_default().into_iter();
    let mut result = stop(names.next());
    for name in names {
        if !result.as_ref().is_err_and(has_no_such_capture) {
            break;
        }
        result = stop(Some(name));
    }
    let report = result.map_err(CommandError::Operator)?;
    if arguments.json {
        return printed(json::print_report(&report));
    }
    print(std::iter::once(format!("the capture has ended: {}", capture_text(&report))))
}

fn has_no_such_capture(error: &OperatorError) -> bool {
    matches!(&error.trouble, Trouble::Refused(problem) if problem.reason == Reason::NotCaptured)
}

/// The path of a capture's file, without links among its folders and `..`. The file may be gone.
fn path_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().ok();
    let whole = folder.zip(file.file_name()).map(|(folder, name)| folder.join(name));
    whole.or_else(|| absolute(file).ok()).unwrap_or_else(|| file.to_owned())
}

/// The names that a capture into `file` may have: the path as `capture start` tells it; the path as
/// `serve --capture` does; a name that is no path, such as that of a standard output.
fn names_of(file: &Path) -> Vec<PathBuf> {
    let absolute = absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut names = vec![path_of(file), absolute, file.to_owned()];
    names.dedup();
    names
}

/// The files of a capture.
struct Opened {
    passed: PassedFiles,
    /// The files that were not there before.
    made: Vec<PathBuf>,
}

impl Opened {
    /// Opens the file of a capture; with a size the other half, too. Content is left alone.
    fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        let passed = PassedFiles { files: Vec::new(), are_emptied: true };
        let mut opened = Self { passed, made: Vec::new() };
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            if size.is_some() {
                return Err(io::Error::other("a FIFO has no size; leave --size out"));
            }
            eprintln!("{}: waiting for a reader", path.display());
            opened.passed.files.push(OpenOptions::new().write(true).open(path)?);
            return Ok(opened);
        }
        let paths = std::iter::once(path.to_owned()).chain(size.map(|_| other_half(path)));
        for path in paths {
            if let Err(error) = opened.add(path) {
                opened.remove_made();
                return Err(error);
            }
        }
        Ok(opened)
    }

    fn add(&mut self, path: PathBuf) -> io::Result<()> {
        if is_foreign(&path) {
            return Err(io::Error::other(FOREIGN));
        }
        let mut options = OpenOptions::new();
        options.write(true).mode(FILE_MODE);
        let file = match options.clone().create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                options.create(true).truncate(false).open(&path)?
            }
            made => {
                let file = made?;
                self.made.push(path);
                file
            }
        };
        self.passed.files.push(file);
        Ok(())
    }

    /// Removes the files that were not there before, unless others have taken their places or have
    /// written to the files.
    fn remove_made(&self) {
        for path in &self.made {
            let is_own = |found: &fs::Metadata| {
                let mut files = self.passed.files.iter().filter_map(|file| file.metadata().ok());
                files.any(|file| FileId::of(&file) == FileId::of(found))
            };
            if fs::symlink_metadata(path).is_ok_and(|found| found.len() == 0 && is_own(&found)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The standard output as the file of a capture.
fn stdout(size: Option<u64>) -> io::Result<Opened> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        let advice = "a capture is nothing for a terminal: pipe it, as in \"usbferry capture start - \
                      | wireshark -k -i -\"";
        return Err(io::Error::other(advice));
    }
    if size.is_some() {
        return Err(io::Error::other("the standard output has no size; leave --size out"));
    }
    let files = vec![File::from(stdout.as_fd().try_clone_to_owned()?)];
    // Whoever has opened the output may want the capture behind older content.
    Ok(Opened { passed: PassedFiles { files, are_emptied: false }, made: Vec::new() })
}

/// The name of the capture into the standard output.
fn stdout_name() -> PathBuf {
    format!("stdout-{}", std::process::id()).into()
}
