//! `usbferry top`: the state of a server on this machine, live in the terminal.
//!
//! - `asker`: asks the server each second, on a thread;
//! - `history`: rates, from the difference of two reports;
//! - `view`: the order of the rows, and the keys;
//! - `screen`: the lines and graphs;
//! - `ends`: the signals that end the program.
//!
//! Contract: *blocks* until the user or a signal ends the program; the terminal is as before
//! afterwards, also after a panic.

mod asker;
mod ends;
mod history;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use super::CommandError;
use crate::channel::Receiver;
use crate::cli::Top;
use asker::{Asker, News};
use ends::Ends;
use history::History;
use view::View;

/// The longest wait for a key: a signal and the server's answer wait as long.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// `usbferry top`.
pub(super) fn watch(arguments: &Top) -> Result<(), CommandError> {
    if !io::stdout().is_terminal() {
        return Err(CommandError::NoTerminal);
    }
    // Before the terminal changes: a server that does not answer is told in a plain line.
    let mut asker = Asker::new(arguments.asking.socket());
    let first = asker.ask().map_err(CommandError::Operator)?;
    let mut history = History::default();
    history.note(first, Instant::now());
    let ends = Ends::on_signals().map_err(CommandError::Signals)?;
    let news = asker.start().map_err(CommandError::Terminal)?;
    // Has a panic restore the terminal, too.
    let result =
        ratatui::try_init().and_then(|mut terminal| run(&mut terminal, history, &news, &ends));
    ratatui::restore();
    ends.end();
    result.map_err(CommandError::Terminal)
}

/// Draws until the user or a signal ends the program.
fn run(
    terminal: &mut DefaultTerminal,
    mut history: History,
    news: &Receiver<News>,
    ends: &Ends,
) -> io::Result<()> {
    let mut view = View::default();
    let mut is_outdated = true;
    while !ends.has_come() {
        while let Ok((answer, time)) = news.try_recv() {
            match answer {
                Ok(report) => history.note(report, time),
                Err(error) => history.trouble = Some(error.to_string()),
            }
            is_outdated = true;
        }
        if std::mem::take(&mut is_outdated) {
            terminal.draw(|frame| screen::draw(frame, &history, &mut view))?;
        }
        if event::poll(LOOK_INTERVAL)? {
            is_outdated = true;
            if let Event::Key(key) = event::read()?
                && !key.is_release()
                && view.press(key).is_break()
            {
                break;
            }
        }
    }
    Ok(())
}
