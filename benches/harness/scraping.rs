//! A server whose metrics are scraped while a load runs, for the rows that show the cost.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::server::Server;

/// From scrape to scrape.
const INTERVAL: Duration = Duration::from_secs(1);

/// A part of the metrics of a server at work.
const FAMILY: &str = "\nusbferry_endpoint_bytes_total{";

/// A server with a web server.
pub(crate) struct Scraped {
    pub(crate) server: Server,
    page: SocketAddr,
}

impl Scraped {
    /// Starts the server with some arguments.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, String> {
        let page = free_address().map_err(|error| format!("no port for --http: {error}"))?;
        let option = format!("--http={page}");
        let arguments: Vec<String> = arguments.iter().cloned().chain([option]).collect();
        Ok(Self { server: Server::usbferry(&arguments, &[])?, page })
    }

    /// Runs a load, and meanwhile scrapes: `first` after the begin, and then each second.
    pub(crate) fn beside<T>(&self, first: Duration, run: impl FnOnce() -> T) -> io::Result<T> {
        thread::scope(|scope| {
            let (page, (end, ended)) = (self.page, channel::<()>());
            let scraper = scope.spawn(move || scrape_until(page, &ended, first));
            let result = run();
            drop(end);
            scraper.join().expect("no panic").map(|()| result)
        })
    }
}

fn scrape_until(page: SocketAddr, ended: &Receiver<()>, first: Duration) -> io::Result<()> {
    let mut wait = first;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        scrape(page)?;
        wait = INTERVAL;
    }
    Ok(())
}

fn scrape(page: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(page)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains(FAMILY) { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// An address of this machine that nobody has now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
