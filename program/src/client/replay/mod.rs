//! Plays the client's side of a recording against a server, and compares the server's answers with
//! the recorded answers.
//!
//! - `recorded`: the URBs of a recording, and which can be played;
//! - `link`: a session's connection, with a thread that reads replies;
//! - `difference`: an answer beside the recorded answer.
//!
//! Every SUBMIT is sent in its turn: behind the earlier SUBMITs of the recording, and once all URBs
//! have ended whose recorded end is earlier. So a server has the same URBs in flight as the
//! recorded server had, and never more. An unlinked URB is unlinked again, in its turn.
//!
//! Contract: *blocks*, for [`REPLAY_ANSWER_TIMEOUT`] at most for each answer. The recording and the
//! server's bytes are hostile; memory is spent in proportion to the recording.

mod difference;
mod link;
mod recorded;

use std::collections::HashMap;

use super::error::{ClientError, Trouble};
use super::{Imported, Server};
use crate::limits::{REPLAY_ANSWER_TIMEOUT, REPLAY_IN_FLIGHT_MAX};
use crate::usbmon::recording::{Ended, Urb};
use crate::wire::status::Status;
pub use difference::{Difference, What};
use link::{Answer, Link};
pub use recorded::{Recorded, RecordedError, Skipped};
use recorded::{Step, is_given_up};

/// How a recording is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// Data from the device may differ.
    pub ignore_data: bool,
    /// URBs whose data to the device the recording does not have are left out.
    pub skip_cut: bool,
}

/// What has come of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// URBs sent.
    pub played: u64,
    /// URBs with another answer than the recorded.
    pub different: u64,
    /// URBs of whose data the recording has a part only: the rest was not compared.
    pub in_part: u64,
    /// URBs not sent.
    pub skipped: Skipped,
}

/// A replay under way.
struct Player<'a, T: FnMut(&Difference)> {
    link: Link,
    urbs: &'a [Urb],
    terms: Terms,
    /// URBs without an answer, or whose answer's turn has not come.
    open: HashMap<usize, Option<Answer>>,
    /// URBs without an answer.
    in_flight: usize,
    outcome: Outcome,
    tell: T,
}

/// Plays a recording on an imported device; `tell` hears of each difference. *Blocks.*
///
/// # Errors
/// The connection fails, or the server breaks the protocol.
pub fn replay(
    server: &Server,
    imported: Imported,
    recorded: &Recorded,
    terms: Terms,
    tell: impl FnMut(&Difference),
) -> Result<Outcome, ClientError> {
    let played = Link::begin(imported).and_then(|link| {
        let (steps, skipped) = recorded.steps(terms);
        let (open, outcome) = (HashMap::new(), Outcome { skipped, ..Outcome::default() });
        let urbs = recorded.urbs();
        Player { link, urbs, terms, open, in_flight: 0, outcome, tell }.play(&steps)
    });
    played.map_err(|trouble| server.error(trouble))
}

impl<T: FnMut(&Difference)> Player<'_, T> {
    fn play(mut self, steps: &[Step]) -> Result<Outcome, Trouble> {
        for step in steps {
            match *step {
                Step::Submit(urb) => self.submit(urb)?,
                Step::End(urb) => self.finish(urb)?,
            }
        }
        // In flight at the end of the recording.
        let rest: Vec<usize> = self.open.keys().copied().collect();
        for urb in rest {
            self.give_up(urb)?;
        }
        Ok(self.outcome)
    }

    fn submit(&mut self, urb: usize) -> Result<(), Trouble> {
        while self.in_flight >= REPLAY_IN_FLIGHT_MAX {
            if !self.take_answer()? {
                return Err(Trouble::Slow(REPLAY_ANSWER_TIMEOUT));
            }
        }
        self.link.submit(urb, &self.urbs[urb])?;
        self.open.insert(urb, None);
        self.in_flight += 1;
        self.outcome.played += 1;
        Ok(())
    }

    /// Waits for the answer of a URB, and compares.
    fn finish(&mut self, urb: usize) -> Result<(), Trouble> {
        let recorded = &self.urbs[urb];
        let Some(end) = &recorded.end else { return Ok(()) };
        let what = if is_given_up(end.status) {
            let answer = self.give_up(urb)?;
            answer.map(|answer| What::Status(Status(end.status), answer.status))
        } else {
            match self.wait(urb)? {
                Some(answer) => self.compare(recorded, end, &answer),
                None => {
                    self.give_up(urb)?;
                    Some(What::Unanswered(Status(end.status)))
                }
            }
        };
        if let Some(what) = what {
            self.outcome.different += 1;
            (self.tell)(&Difference::new(recorded, what));
        }
        Ok(())
    }

    /// The answer of a URB; `None` after a while without.
    fn wait(&mut self, urb: usize) -> Result<Option<Answer>, Trouble> {
        while self.open.get(&urb).is_some_and(Option::is_none) {
            if !self.take_answer()? {
                return Ok(None);
            }
        }
        Ok(self.open.remove(&urb).flatten())
    }

    /// Unlinks a URB. Returns the answer of a URB that was answered all the same.
    fn give_up(&mut self, urb: usize) -> Result<Option<Answer>, Trouble> {
        if self.open.get(&urb).is_some_and(Option::is_none) {
            self.link.unlink(urb)?;
        }
        let answered = self.wait(urb)?;
        if self.open.contains_key(&urb) {
            return Err(Trouble::Slow(REPLAY_ANSWER_TIMEOUT));
        }
        Ok(answered.filter(|answer| !answer.is_unlinked))
    }

    /// Takes an answer from the server; false after a while without.
    fn take_answer(&mut self) -> Result<bool, Trouble> {
        let Some((urb, answer)) = self.link.answer()? else { return Ok(false) };
        // The answer to an UNLINK may come behind the answer of the URB.
        if let Some(open) = self.open.get_mut(&urb).filter(|open| open.is_none()) {
            *open = Some(answer);
            self.in_flight -= 1;
        }
        Ok(true)
    }

    fn compare(&mut self, urb: &Urb, end: &Ended, answer: &Answer) -> Option<What> {
        let compared = difference::compare(urb, end, answer, self.terms.ignore_data);
        self.outcome.in_part += u64::from(compared.is_in_part);
        compared.what
    }
}
