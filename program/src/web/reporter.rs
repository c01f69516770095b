//! The state of the USB/IP server for all clients of the web server: asked for seldom, and shared.
//!
//! Contract: *blocks* for [`HTTP_PATIENCE`] at most, and then not at all until the reactor has
//! answered. However many clients ask, the reactor makes a report each [`REPORT_AGE`] at most.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::limits::{HTTP_PATIENCE, REPORT_AGE};
use crate::reactor::{Answer, StatusHandle, Unanswered};
use crate::report::Report;
use crate::status::{ServerStatus, Snapshot};

/// Asks for reports.
pub(super) struct Reporter {
    status: StatusHandle,
    server: ServerStatus,
    /// A question without an answer so far.
    asked: Option<Answer>,
    /// The last report, and when it came.
    last: Option<(Instant, Arc<Report>)>,
}

impl Reporter {
    pub(super) const fn new(status: StatusHandle, server: ServerStatus) -> Self {
        Self { status, server, asked: None, last: None }
    }

    /// When the server was started.
    pub(super) const fn started(&self) -> SystemTime {
        self.server.started
    }

    /// A report that is at most [`REPORT_AGE`] old.
    ///
    /// # Errors
    /// The reactor does not answer in time, or has ended.
    pub(super) fn report(&mut self) -> Result<Arc<Report>, Unanswered> {
        if let Some((at, report)) = &self.last
            && at.elapsed() < REPORT_AGE
        {
            return Ok(Arc::clone(report));
        }
        // A late answer costs a single client the wait.
        if let Some(answer) = self.asked.take() {
            self.wait(answer, Duration::ZERO)?;
        }
        // The late answer may be of any age.
        let answer = self.status.begin()?;
        let snapshot = self.wait(answer, HTTP_PATIENCE)?;
        let report = Arc::new(Report::new(&self.server, &snapshot));
        self.last = Some((Instant::now(), Arc::clone(&report)));
        Ok(report)
    }

    /// Waits for an answer, and keeps a late answer.
    fn wait(&mut self, answer: Answer, time: Duration) -> Result<Snapshot, Unanswered> {
        let waited = answer.wait(time);
        self.asked = Some(answer).filter(|_| waited == Err(Unanswered::Late));
        waited
    }
}
