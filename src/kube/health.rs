//! The API server, shared by everything that sends it requests. Owns: whether one may be sent now,
//! and what the operator hears of outages.

use std::time::{Duration, Instant};

use fastrand::Rng;

use log::{debug, info, warn};

use crate::error::{Chain, Error, Kind};
use crate::kube::circuit_breaker::{CircuitBreaker, OutageEvent};
use crate::kube::client::{Call, Client};
use crate::net::response::Head;
use crate::net::wait::is_interrupted;

/// The API server and its outages.
pub struct ApiServer {
    client: Client,
    breaker: CircuitBreaker,
    /// The wait after a 401 instead of the back-off, which `-onetime` has no time for.
    pub fixed_retry: Option<Duration>,
    /// The last failure that concerned all requests.
    failure: Option<Error>,
    /// The time since which every answer has been 401.
    unauthorized: Option<Instant>,
}

impl ApiServer {
    /// Makes a server that has not been asked yet.
    pub fn new(client: Client, rng: Rng) -> ApiServer {
        ApiServer {
            client,
            breaker: CircuitBreaker::new(rng),
            fixed_retry: None,
            failure: None,
            unauthorized: None,
        }
    }

    /// Counts an answer that was not whole in time, so that the next one may take longer.
    pub fn late(&mut self, now: Instant) {
        self.client.late(now);
    }

    /// Returns whether answers have been late.
    pub fn is_slow(&self, now: Instant) -> bool {
        self.client.is_slow(now)
    }

    /// Cuts a request's extra time short at `at`, when there is something else to do.
    pub fn return_by(&self, at: Option<Instant>) {
        self.client.return_by(at);
    }

    /// Returns whether a request may go out now.
    pub fn permits(&self, now: Instant) -> bool {
        self.breaker.allows(now)
    }

    /// Returns the time before which no request may go out, if there is one.
    pub fn next_try(&self) -> Option<Instant> {
        self.breaker.next_try()
    }

    /// Returns when `tick` has a reminder to give.
    pub fn next_notice(&self) -> Option<Instant> {
        self.breaker.next_reminder()
    }

    /// Returns whether it does not answer, or refuses the token.
    pub fn is_away(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns the time since which every answer has been 401.
    pub fn unauthorized(&self) -> Option<Instant> {
        self.unauthorized
    }

    /// Returns why nothing can be asked, while that is so.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref().filter(|_| self.is_away())
    }

    /// Takes the last failure that concerned all requests.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Sends a request. Returns its answer of any kind, or `None` if none came, which concerns all
    /// requests. The error describes an answer that cannot be read.
    pub fn ask(&mut self, call: &Call) -> Result<Option<Head>, String> {
        match self.try_ask(call) {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Answer { what, .. }) => {
                self.is_there(Instant::now());
                Err(what)
            }
            Err(error) => {
                self.failed(error, Instant::now());
                Ok(None)
            }
        }
    }

    /// Sends a request. A missing answer concerns the caller alone.
    pub fn try_ask(&mut self, call: &Call) -> Result<Head, Error> {
        debug!(path = call.path; "asking");
        let answer = self.client.ask(call)?;
        self.answered(answer.status, Instant::now());
        Ok(answer)
    }

    /// Notes an answer's headers: the server is there, whatever becomes of the rest.
    fn answered(&mut self, status: u16, now: Instant) {
        // What a 401 means is known once it is read.
        if status != 401 {
            self.is_there(now);
        }
        if matches!(status, 401 | 429 | 500..=599) {
            self.breaker.pace(now);
        }
    }

    fn is_there(&mut self, now: Instant) {
        let refused = self.unauthorized.take().is_some();
        if let Some(OutageEvent::Ended(lasted)) = self.breaker.on_success(now) {
            let message = if refused {
                "the API server accepts the token again"
            } else {
                "the API server answers again"
            };
            info!(lasted_s = lasted.as_secs(); "{message}");
        }
    }

    /// Counts a failure that concerns all requests.
    pub fn failed(&mut self, error: Error, now: Instant) {
        if is_interrupted(&error) {
            // The next wait does what the signal asks for.
            return;
        }
        let event = self.breaker.on_failure(now);
        let unauthorized = error.kind() == Kind::Unauthorized;
        let since = self.unauthorized.unwrap_or(now);
        self.unauthorized = unauthorized.then_some(since);
        if let (true, Some(wait)) = (unauthorized, self.fixed_retry) {
            self.breaker.retry_by(now + wait);
        }
        if event == Some(OutageEvent::Began) {
            let message = if unauthorized {
                "the API server refuses the token; retrying"
            } else {
                "the API server is away; retrying"
            };
            warn!(error:% = Chain(&error); "{message}");
        } else {
            debug!(error:% = Chain(&error); "{}", self.still());
        }
        self.failure = Some(error);
    }

    /// Reminds the operator of an outage when that is due.
    pub fn tick(&mut self, now: Instant) {
        if let Some(OutageEvent::Continues(lasts)) = self.breaker.reminder(now) {
            let error = self
                .failure
                .as_ref()
                .map(|e| Chain(e).to_string())
                .unwrap_or_default();
            warn!(lasts_s = lasts.as_secs(), error; "{}", self.still());
        }
    }

    /// Says what lasts.
    fn still(&self) -> &'static str {
        if self.unauthorized.is_some() {
            "the API server still refuses the token; retrying"
        } else {
            "the API server is still away; retrying"
        }
    }
}
