//! The API server as all followed objects share it. Owns: whether it may be asked now, and what the
//! operator hears of it when it is away.

use std::time::Instant;

use log::{debug, info, warn};

use crate::backoff::{Notice, Outage, Random};
use crate::error::{Chain, Error, Kind, Target};
use crate::kube::client::{Answer, Client, Method};
use crate::kube::list_watch::RETRY_DENIED;
use crate::snapshot::Extent;

/// The API server, in good days and bad.
pub struct Server {
    client: Client,
    outage: Outage,
    /// For every wait that should not fall together with others'.
    pub random: Random,
    /// `-onetime`: there are five seconds for a 401, too few for a back-off.
    pub hasty: bool,
    /// The last failure that held for all, and since when there was no other answer but 401.
    failure: Option<Error>,
    unauthorized: Option<Instant>,
}

impl Server {
    /// Not asked yet.
    pub fn new(client: Client, random: Random) -> Server {
        Server {
            client,
            outage: Outage::default(),
            random,
            hasty: false,
            failure: None,
            unauthorized: None,
        }
    }

    /// Whether a signal calls us away: requests fail from then on.
    pub fn is_stopped(&self) -> bool {
        self.client.is_stopped()
    }

    /// Whether a request may go out now.
    pub fn permits(&self, now: Instant) -> bool {
        self.outage.permits(now)
    }

    /// No request goes out before this; `None`: at any time.
    pub fn next_try(&self) -> Option<Instant> {
        self.outage.next_try()
    }

    /// When `tick` has something to say.
    pub fn next_notice(&self) -> Option<Instant> {
        self.outage.next_notice()
    }

    /// Since when every answer has been 401.
    pub fn unauthorized(&self) -> Option<Instant> {
        self.unauthorized
    }

    /// Why nothing can be asked, while that is so.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref().filter(|_| self.next_try().is_some())
    }

    /// The last failure that held for all.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Asks; an answer of any kind is given back, a failure holds for all.
    pub fn ask(&mut self, target: &Target, path: &str, extent: Extent) -> Option<Answer> {
        self.outage.asked(Instant::now());
        let asked = self.try_ask(Method::Get, target, path, extent);
        asked
            .map_err(|error| self.failed(error, Instant::now()))
            .ok()
    }

    /// Asks; a failure is the caller's own.
    pub fn try_ask(
        &mut self,
        method: Method,
        target: &Target,
        path: &str,
        extent: Extent,
    ) -> Result<Answer, Error> {
        debug!(path; "asking");
        self.client.ask(method, target, path, extent)
    }

    /// A request was answered to its end, if only by a refusal of its object's own; a watch, as far
    /// as its headers.
    pub fn answered(&mut self, now: Instant) {
        self.unauthorized = None;
        if let Some(Notice::Over(lasted)) = self.outage.answered(now) {
            info!(after:? = lasted; "the API server answers again");
        }
    }

    /// A request failed for a reason that holds for all.
    pub fn failed(&mut self, error: Error, now: Instant) {
        if self.client.is_stopped() {
            // A signal cut it short; the next wait does what it asks for.
            return;
        }
        let wish = error.retry_after();
        let notice = self.outage.failed(now, wish, &mut self.random);
        if error.kind() == Kind::Unauthorized {
            self.unauthorized.get_or_insert(now);
            if self.hasty {
                self.outage.hasten(now + RETRY_DENIED);
            }
        }
        if notice == Some(Notice::Began) {
            let message = "the API server is away: published files stay, trying again";
            warn!(error:% = Chain(&error); "{message}");
        } else {
            debug!(error:% = Chain(&error); "the API server is still away");
        }
        self.failure = Some(error);
    }

    /// Says that an outage goes on, when it is time to.
    pub fn tick(&mut self, now: Instant) {
        if let Some(Notice::GoesOn(lasts)) = self.outage.notice(now) {
            let error = self
                .failure
                .as_ref()
                .map(|e| Chain(e).to_string())
                .unwrap_or_default();
            warn!(minutes = lasts.as_secs() / 60, error; "the API server is still away");
        }
    }
}
