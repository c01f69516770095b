//! `usbferry serve`: chooses the USB stack and runs the server.
//!
//! Contract: *blocks* until the server ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

use super::hangup::{Caught, Hangups};
use super::lent::Loans;
use super::list::{self, local_rows};
use super::stand_in::{PidFile, warn_of_strictness};
use super::{CommandError, hook_programs, settings};
use crate::cli::{self, Chosen, Serve, StandIn};
use crate::config::socket::SocketPlace;
use crate::config::value::network_text;
use crate::config::{Http, Listen, OperatorSocket, Settings, meaning};
use crate::discovery::{Announcement, Announcer};
use crate::limits::CONNECTIONS_SHARE;
use crate::operator::{Desk, Handles};
use crate::server::{Server, Stack};
use crate::service::notify::{Manager, Message};
use crate::service::sockets::{self, Passed};
use crate::status::ServerStatus;
use crate::usb::ScanError;
use crate::usb::libusb::{self, LibusbBackend};
#[cfg(feature = "simulate")]
use crate::usb::sim::{SimBackend, bus::SimBus, spec::Spec};
use crate::web::{Access, Web};
use crate::wire::PORT;
use crate::words::reason;

/// Exit code when a second signal ends the program at once.
const INTERRUPTED: i32 = 130;

/// Reads the settings, and the devices to export.
type Reader = Box<dyn FnMut() -> Result<(Settings, Chosen), CommandError> + Send>;

/// The signals that stop a server.
const STOPS: [i32; 3] = [SIGINT, SIGQUIT, SIGTERM];

/// `usbferry serve`.
pub(super) fn serve(arguments: &Serve) -> Result<(), CommandError> {
    // Before anything opens a file: the numbers of passed descriptors are the first.
    let passed = sockets::take().map_err(CommandError::Passed)?;
    // Before anything that may block, so that no signal is lost or ends the program halfway.
    let signals = Signals::catch().map_err(CommandError::Signals)?;
    let mut read = reader(arguments, &passed);
    let (mut settings, chosen) = read()?;
    let following = Following { signals, read, stand_in: arguments.stand_in().cloned() };
    if !matches!(chosen, Chosen::Nothing) {
        info!("usbferry {}", cli::version());
    }
    if let Some(file) = &settings.file {
        info!("settings and rules from {file}");
    }
    match usbferry_sys::os::limit::raise_open_files() {
        Ok(limit) => {
            log::debug!("up to {limit} open files");
            settings.connections = settings.connections.min(limit / CONNECTIONS_SHARE);
        }
        Err(error) => warn!("the limit of open files can't be raised: {}", reason(&error)),
    }
    match chosen {
        Chosen::Nothing => Err(CommandError::NothingChosen(show_devices())),
        #[cfg(feature = "simulate")]
        Chosen::Simulated(mut specs) => {
            Spec::load(&mut specs).map_err(CommandError::Recording)?;
            settings.recordings = specs.iter().filter_map(|spec| spec.file.clone()).collect();
            let backend = SimBackend::new(SimBus::with(&specs));
            run(Stack::Second(backend), settings, passed, following)
        }
        Chosen::Real => {
            let backend = LibusbBackend::new().map_err(CommandError::Scan)?;
            libusb::repair();
            #[cfg(feature = "simulate")]
            let backend = Stack::First(backend);
            run(backend, settings, passed, following)
        }
    }
}

/// Shows a user who has chosen nothing the devices of this machine, or says why that is impossible.
fn show_devices() -> Option<ScanError> {
    match local_rows(&Loans::default()) {
        Ok(rows) => {
            drop(list::print(&rows, "there are no USB devices on this machine"));
            None
        }
        Err(error) => Some(error),
    }
}

/// Reads the settings, again and again. The addresses of passed sockets stand in for all others.
fn reader(arguments: &Serve, passed: &[Passed]) -> Reader {
    let arguments = arguments.clone();
    let listen = passed.iter().filter(|passed| !passed.is_for_web());
    let listen = listen.map(|passed| Listen { address: passed.address, optional: false });
    let listen: Vec<Listen> = listen.collect();
    Box::new(move || {
        let (mut settings, chosen) = settings::read(&arguments)?;
        if !listen.is_empty() {
            settings.listen.clone_from(&listen);
        }
        Ok((settings, chosen))
    })
}

/// What a server follows while it runs.
struct Following {
    signals: Signals,
    read: Reader,
    stand_in: Option<StandIn>,
}

/// Runs a server on the passed sockets, or else where the settings say.
fn run(
    stack: Stack,
    settings: Settings,
    passed: Vec<Passed>,
    Following { signals, read, stand_in }: Following,
) -> Result<(), CommandError> {
    warn_of_idle_networks(&settings);
    warn_of_rules(&settings);
    if stand_in.is_some() {
        warn_of_strictness(&settings);
    }
    let (file, operators) = (settings.file.clone(), settings.operators.clone());
    let (http, allowed) = (settings.http.clone(), settings.allowed.clone());
    let advertise = settings.advertise;
    let (for_web, passed): (Vec<_>, Vec<_>) = passed.into_iter().partition(Passed::is_for_web);
    let names: Vec<String> = passed.iter().map(|passed| passed.name.clone()).collect();
    let listeners = passed.into_iter().map(|passed| passed.listener).collect();
    let mut server = Server::new(stack, settings, listeners).map_err(CommandError::Start)?;
    let status = ServerStatus { started: SystemTime::now(), addresses: server.addresses() };
    let desk = open_desk(&server, &operators, status.clone())?;
    let for_web = for_web.into_iter().map(|passed| passed.listener).collect();
    let web = Web::open(&http, for_web, allowed, (server.status_handle(), status));
    let web = web.map_err(CommandError::Web)?;
    let manager = find_manager();
    let access = web.as_ref().map(Web::access);
    let kept = Kept { file, operators, http: (http, access), advertise };
    signals.follow(&server, kept, read, manager.clone()).map_err(CommandError::Signals)?;
    tell_addresses(&server, &names, web.as_ref());
    if let Some(manager) = manager
        && let Err(error) = announce(&manager, &mut server)
    {
        warn!("the service manager does not hear of the start: {}", reason(&error));
    }
    let _pid_file = PidFile::write(stand_in.as_ref());
    let announcer = advertise.then(|| announce_on_networks(&server, web.as_ref())).transpose()?;
    let ended = server.run();
    drop((announcer, web, desk));
    match ended {
        Ok(0) => {
            info!("stopped");
            Ok(())
        }
        Ok(kept) => Err(CommandError::Kept(kept)),
        Err(error) => Err(CommandError::Wait(error)),
    }
}

/// Tells the addresses of a server, of which the first are passed sockets with names.
fn tell_addresses(server: &Server, names: &[String], web: Option<&Web>) {
    for (number, address) in server.addresses().into_iter().enumerate() {
        match names.get(number) {
            Some(name) => {
                info!("listening on {address}, a socket of the service manager's ({name})")
            }
            None => info!("listening on {address}"),
        }
    }
    let pages = web.into_iter().flat_map(Web::addresses);
    pages.for_each(|address| info!("the page is at http://{address}/"));
}

/// The service manager of this process, if there is one that can be told anything.
fn find_manager() -> Option<Manager> {
    let found = Manager::of_process()?;
    let refused = |error: &_| warn!("the service manager can't be told: {}", reason(error));
    found.inspect_err(refused).ok()
}

/// Announces a server on its networks.
fn announce_on_networks(server: &Server, web: Option<&Web>) -> Result<Announcer, CommandError> {
    let http = web.map(|web| web.addresses().to_vec()).unwrap_or_default();
    let (listen, status) = (server.addresses(), server.status_handle());
    Announcer::start(Announcement { listen, http, status }).map_err(CommandError::Announce)
}

/// Tells the service manager that a server serves, and has the server report from now on.
fn announce(manager: &Manager, server: &mut Server) -> io::Result<()> {
    server.report_to(manager.notifier()?);
    manager.send(Message::Ready)
}

/// Opens the socket of operators. A server without a socket in the usual places works all the same;
/// a socket that the user has named must be there.
fn open_desk(
    server: &Server,
    socket: &OperatorSocket,
    told: ServerStatus,
) -> Result<Option<Desk>, CommandError> {
    let (status, operator) = (server.status_handle(), server.operator_handle());
    match Desk::open(socket, Handles { status, operator, server: told }) {
        Ok(desk) => {
            if let Some(desk) = &desk {
                info!("operators may ask at {}", desk.path().display());
            }
            Ok(desk)
        }
        Err(error) if socket.place == SocketPlace::Usual => {
            info!("this server has no socket for operators: {error}");
            Ok(None)
        }
        Err(error) => Err(CommandError::Desk(error)),
    }
}

/// Warns of networks whose clients may connect and can't.
fn warn_of_idle_networks(settings: &Settings) {
    for network in settings.idle_networks() {
        let all = if network.addr().is_ipv4() { "0.0.0.0" } else { "[::]" };
        let network = network_text(&network);
        warn!(
            "clients of {network} may connect (--allow), and reach no address on which usbferry \
             listens; --listen {all}:{PORT} listens on all addresses of this machine"
        );
    }
}

/// Warns of hooks that can't run, and of clients of rules that may not connect.
pub(super) fn warn_of_rules(settings: &Settings) {
    let hooks = settings.rules.iter().map(|rule| &*rule.hooks);
    let warnings = hook_programs::faults(hooks).into_iter().chain(meaning::shut_out(settings));
    warnings.for_each(|line| warn!("{line}"));
}

/// What a server keeps when its settings are read again.
struct Kept {
    file: Option<Arc<str>>,
    operators: OperatorSocket,
    http: (Http, Option<Access>),
    advertise: bool,
}

/// The signals of a server, caught since the start of the program.
struct Signals {
    hangups: Caught,
    /// Raised by the first signal to stop.
    stopping: Arc<AtomicBool>,
}

impl Signals {
    /// Catches signals from now on, for [`Self::follow`]. A second signal to stop ends the program
    /// at once.
    fn catch() -> io::Result<Self> {
        let hangups = Caught::new()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let again = Arc::new(AtomicBool::new(false));
        for signal in STOPS {
            // In this order: a signal is noted from the first line on, and the first signal finds
            // `again` still down.
            signal_hook::flag::register(signal, Arc::clone(&stopping))?;
            let flag = Arc::clone(&again);
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, flag)?;
            signal_hook::flag::register(signal, Arc::clone(&again))?;
        }
        // A file at the limit of its size is a full disk for its writer, and no end of the server.
        // Caught, not ignored, since programs that the server starts would go on ignoring it.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { hangups, stopping })
    }

    /// Has a server follow the signals, those caught before included.
    fn follow(
        self,
        server: &Server,
        Kept { file, operators, http, advertise }: Kept,
        mut read: Reader,
        manager: Option<Manager>,
    ) -> io::Result<()> {
        let (stop, reload) = (server.stop_handle()?, server.reload_handle());
        let read = Box::new(move || read().map(|(settings, _)| settings));
        self.hangups.follow(Hangups {
            stop,
            reload,
            file,
            operators,
            http,
            advertise,
            read,
            manager,
        })?;
        let stream = server.stop_handle()?.into_stream();
        for signal in STOPS {
            signal_hook::low_level::pipe::register(signal, stream.try_clone()?)?;
        }
        // Behind the last line, so that no signal falls between the flag and the stream.
        if self.stopping.load(Ordering::SeqCst) {
            server.stop_handle()?.stop();
        }
        Ok(())
    }
}
