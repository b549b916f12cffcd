//! The tasks that the loop drives. Each waits for answers and deadlines, and makes requests. A new
//! one is an `impl Task` and a line in `Tasks`.

use std::time::Instant;

use crate::kube::health::ApiServer;
use crate::kube::reflector::Reflector;
use crate::net::response::Response;
use crate::output::Output;
use crate::output::mirror::Mirror;
use crate::poll::{Changed, Requested};
use crate::source::config_map::ConfigMapSource;
use crate::source::weight_objects::WeightObjects;
use crate::xds::weights::HostWeights;

/// The values that a task works with.
pub struct Ctx<'a> {
    pub now: Instant,
    pub api: &'a mut ApiServer,
    pub output: &'a mut Output,
    /// True if events may wait to be read. They come before requests that only inform people.
    pub is_busy: bool,
}

/// A part of the program that the loop drives.
pub trait Task {
    /// Returns the answers that are on their way, for poll(2).
    fn responses(&mut self) -> Vec<&mut Response>;

    /// Returns when something is due without input. Requests may go out from `permitted` on.
    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant>;

    /// Does what is due without input or a request.
    fn on_time(&mut self, ctx: &mut Ctx) -> Changed;

    /// Reads what has arrived.
    fn on_readable(&mut self, ctx: &mut Ctx) -> Changed;

    /// Makes the request that is due, if any.
    fn next_request(&mut self, ctx: &mut Ctx) -> Requested;
}

/// One ConfigMap of the command line.
pub struct ConfigMap {
    pub input: ConfigMapInput,
    /// Its mirror; `None` if mirrors are not written.
    pub mirror: Option<Mirror>,
}

/// A ConfigMap's reflector, and the state that its events have brought.
pub struct ConfigMapInput {
    pub reflector: Reflector,
    pub source: ConfigMapSource,
}

/// All tasks, and whose turn it is to make a request.
pub struct Tasks {
    /// The ConfigMaps, in the order of the command line.
    pub configmaps: Vec<ConfigMap>,
    /// The objects with weights of each kind that the command line asks for.
    pub weights: Vec<WeightObjects>,
    /// The task that may ask first next time, so that none is starved.
    next: usize,
}

impl Tasks {
    pub fn new(configmaps: Vec<ConfigMap>, weights: Vec<WeightObjects>) -> Tasks {
        Tasks {
            configmaps,
            weights,
            next: 0,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &dyn Task> {
        let inputs = self.configmaps.iter().map(|c| &c.input as &dyn Task);
        let weights = self.weights.iter().map(|weights| weights as &dyn Task);
        let mirrors = self.configmaps.iter().filter_map(|c| c.mirror.as_ref());
        inputs.chain(weights).chain(mirrors.map(|m| m as &dyn Task))
    }

    /// Returns all tasks, those that bring changes first.
    pub fn all(&mut self) -> Vec<&mut dyn Task> {
        let mut tasks: Vec<&mut dyn Task> = Vec::new();
        let mut mirrors: Vec<&mut dyn Task> = Vec::new();
        for ConfigMap { input, mirror } in &mut self.configmaps {
            tasks.push(input);
            mirrors.extend(mirror.iter_mut().map(|mirror| mirror as &mut dyn Task));
        }
        let weights = self.weights.iter_mut();
        tasks.extend(weights.map(|weights| weights as &mut dyn Task));
        tasks.append(&mut mirrors);
        tasks
    }

    pub fn sources(&self) -> impl Iterator<Item = &ConfigMapSource> {
        self.configmaps.iter().map(|c| &c.input.source)
    }

    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut ConfigMapSource> {
        self.configmaps.iter_mut().map(|c| &mut c.input.source)
    }

    pub fn inputs(&self) -> impl Iterator<Item = &ConfigMapInput> {
        self.configmaps.iter().map(|c| &c.input)
    }

    pub fn inputs_mut(&mut self) -> impl Iterator<Item = &mut ConfigMapInput> {
        self.configmaps.iter_mut().map(|c| &mut c.input)
    }

    /// Returns the first kind of objects with weights that is not known yet.
    pub fn unknown_weights(&self) -> Option<&WeightObjects> {
        self.weights.iter().find(|weights| !weights.is_known())
    }

    /// Returns when each object with weights that is not known yet will have been asked for again.
    /// Requests may go out from `permitted` on.
    pub fn weights_asked(&self, permitted: Option<Instant>) -> Option<Instant> {
        let asked = self.weights.iter().filter_map(|w| w.asked(permitted));
        asked.max()
    }

    /// Returns the weights of all objects that can be applied.
    pub fn usable_weights(&self) -> Vec<&HostWeights> {
        let usable = self.weights.iter().map(WeightObjects::usable);
        usable.flatten().collect()
    }

    pub fn are_mirrors_settled(&self) -> bool {
        let mut mirrors = self.configmaps.iter().filter_map(|c| c.mirror.as_ref());
        mirrors.all(Mirror::is_settled)
    }

    pub fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        self.iter()
            .filter_map(|task| task.deadline(permitted))
            .min()
    }

    pub fn on_time(&mut self, ctx: &mut Ctx) -> Changed {
        self.each(|task| task.on_time(ctx))
    }

    pub fn on_readable(&mut self, ctx: &mut Ctx) -> Changed {
        self.each(|task| task.on_readable(ctx))
    }

    fn each(&mut self, mut step: impl FnMut(&mut dyn Task) -> Changed) -> Changed {
        let mut changed = Changed::No;
        for task in self.all() {
            changed |= step(task);
        }
        changed
    }

    /// Makes one request at most. The tasks take turns, so that a busy one does not starve the
    /// others.
    pub fn request(&mut self, ctx: &mut Ctx) {
        let first = self.next;
        let mut tasks = self.all();
        let count = tasks.len();
        let mut order = (first..first + count).map(|i| i % count);
        let asked = order.find(|i| tasks[*i].next_request(ctx) == Requested::One);
        if let Some(i) = asked {
            self.next = i + 1;
        }
    }
}

impl Task for ConfigMapInput {
    fn responses(&mut self) -> Vec<&mut Response> {
        self.reflector.responses_mut().collect()
    }

    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        self.reflector.deadline(permitted)
    }

    fn on_time(&mut self, ctx: &mut Ctx) -> Changed {
        self.reflector.tick(ctx.api, ctx.now);
        Changed::No
    }

    fn on_readable(&mut self, ctx: &mut Ctx) -> Changed {
        let mut events = Vec::new();
        self.reflector.read(ctx.api, &mut events);
        let changed = Changed::when(!events.is_empty());
        for event in events {
            self.source.take(event, Instant::now());
        }
        changed
    }

    fn next_request(&mut self, ctx: &mut Ctx) -> Requested {
        self.reflector.request(ctx.api, ctx.now)
    }
}

impl Task for WeightObjects {
    fn responses(&mut self) -> Vec<&mut Response> {
        self.responses_mut().collect()
    }

    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        WeightObjects::deadline(self, permitted)
    }

    fn on_time(&mut self, ctx: &mut Ctx) -> Changed {
        self.tick(ctx.api, ctx.now)
    }

    fn on_readable(&mut self, ctx: &mut Ctx) -> Changed {
        self.read(ctx.api)
    }

    fn next_request(&mut self, ctx: &mut Ctx) -> Requested {
        self.request(ctx.api, ctx.now)
    }
}

impl Task for Mirror {
    fn responses(&mut self) -> Vec<&mut Response> {
        self.response_mut().into_iter().collect()
    }

    fn deadline(&self, permitted: Option<Instant>) -> Option<Instant> {
        let own = Mirror::deadline(self)?;
        Some(permitted.map_or(own, |permitted| own.max(permitted)))
    }

    fn on_time(&mut self, ctx: &mut Ctx) -> Changed {
        self.tick(ctx.api, ctx.now);
        Changed::No
    }

    fn on_readable(&mut self, _: &mut Ctx) -> Changed {
        self.read();
        Changed::No
    }

    /// Requests block the loop, so the mirror, which only informs, waits until all input is
    /// drained.
    fn next_request(&mut self, ctx: &mut Ctx) -> Requested {
        if ctx.is_busy {
            return Requested::Nothing;
        }
        let published = || ctx.output.last_good();
        self.request(ctx.api, published, ctx.now)
    }
}
