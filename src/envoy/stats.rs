//! Envoy's counters, as far as they tell what it made of its files. Owns: which are asked for, and
//! how the answer is read. Pure.

use std::time::{Duration, Instant};

/// The request whose answer is a [`Stats`]: 350 bytes and less than a millisecond in most Envoys,
/// as `usedonly` leaves out what has never counted. The filter is
/// `\.(update_(attempt|success|rejected|failure)|warming_clusters|`
/// `total_(filter_chains|listeners)_draining|total_listeners_warming|`
/// `dynamic_unknown_fields|load_error)$|^server\.(uptime|state)$`.
pub const PATH: &str = "/stats?usedonly&filter=%5C.%28update_%28attempt%7Csuccess%7Crejected\
    %7Cfailure%29%7Cwarming_clusters%7Ctotal_%28filter_chains%7Clisteners%29_draining\
    %7Ctotal_listeners_warming%7Cdynamic_unknown_fields%7Cload_error%29%24%7C%5Eserver%5C.%28uptime%7Cstate%29%24";

/// The length of the longest answer that is read: three counters for each of 5,000 subscriptions.
pub const MAX_ANSWER: usize = 1 << 20;

pub const CLUSTERS: &str = "cluster_manager.cds";
pub const LISTENERS: &str = "listener_manager.lds";
pub const RUNTIME: &str = "runtime";

/// The last parts of the names of the counters that a subscription has.
pub const ATTEMPT: &str = "update_attempt";
pub const REJECTED: &str = "update_rejected";
pub const FAILURE: &str = "update_failure";
/// The last part of the name of a counter that only the runtime's layers have.
pub const LOAD_ERROR: &str = "load_error";

/// The longest time by which Envoy's uptime may be behind: it flushes its gauges each 5 s by
/// default, and each 300 s at the longest.
const UPTIME_BEHIND: Duration = Duration::from_secs(330);

/// Names and values, ordered by name. What has never counted is not there, and is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    all: Vec<(Box<str>, u64)>,
    read_at: Option<Instant>,
}

impl Stats {
    /// Reads an answer in Envoy's text form. A line that is not a name and a number is left out.
    pub fn parse(answer: &[u8]) -> Stats {
        let mut stats = Stats::default();
        for line in answer.split(|byte| *byte == b'\n') {
            let line = str::from_utf8(line).unwrap_or_default();
            if let Some((name, value)) = line.trim_end().rsplit_once(' ')
                && let Some(name) = name.strip_suffix(':')
                && let Ok(value) = value.parse()
            {
                stats.insert(name, value);
            }
        }
        stats.all.shrink_to_fit();
        stats
    }

    /// Notes when the answer came.
    pub fn read_at(mut self, now: Instant) -> Stats {
        self.read_at = Some(now);
        self
    }

    /// Inserts a value, or replaces the one of that name. Envoy orders them, so most go to the end.
    fn insert(&mut self, name: &str, value: u64) {
        let is_last = self.all.last().is_none_or(|(last, _)| **last < *name);
        let place = match is_last {
            true => Err(self.all.len()),
            false => self.place(name),
        };
        match place {
            Ok(at) => self.all[at].1 = value,
            Err(at) => self.all.insert(at, (name.into(), value)),
        }
    }

    /// Returns a value by its whole name, and 0 for one that is not there.
    pub fn get(&self, name: &str) -> u64 {
        self.find(name).unwrap_or_default()
    }

    fn find(&self, name: &str) -> Option<u64> {
        let at = self.place(name).ok()?;
        self.all.get(at).map(|(_, value)| *value)
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.all.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    /// Returns all names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.all.iter().map(|(name, value)| (&**name, *value))
    }

    /// Returns whether Envoy has finished its start, be it that it drains by now.
    pub fn is_started(&self) -> bool {
        matches!(self.find("server.state"), Some(0 | 1))
    }

    /// Returns how many seconds Envoy has been up, as of some seconds ago.
    pub fn uptime(&self) -> u64 {
        self.get("server.uptime")
    }

    /// Returns whether Envoy has been told of changes since it read its files first.
    pub fn has_been_told(&self) -> bool {
        [CLUSTERS, LISTENERS]
            .iter()
            .any(|of| self.get(&format!("{of}.{ATTEMPT}")) > 1)
    }

    /// Returns whether anything that subscriptions count is there at all. An Envoy whose
    /// `stats_matcher` hides it has nothing to judge by.
    pub fn has_subscriptions(&self) -> bool {
        self.iter().any(|(name, _)| name.ends_with(ATTEMPT))
    }

    /// Returns how many clusters wait for their first endpoints or health checks.
    pub fn warming_clusters(&self) -> u64 {
        self.get("cluster_manager.warming_clusters")
    }

    /// Returns how many listeners wait for their first routes or secrets.
    pub fn warming_listeners(&self) -> u64 {
        self.get("listener_manager.total_listeners_warming")
    }

    /// Returns how many listeners and filter chains still serve connections of an older
    /// configuration.
    pub fn draining(&self) -> u64 {
        let count = |what| self.get(&format!("listener_manager.total_{what}_draining"));
        count("listeners").saturating_add(count("filter_chains"))
    }

    /// Returns how many unknown fields Envoy has ignored.
    pub fn unknown_fields(&self) -> u64 {
        self.get("server.dynamic_unknown_fields")
    }

    /// Returns whether these are of another process than `earlier` ones: what can only rise is
    /// lower, or the uptime has risen by far more than time has passed. (It is some seconds old, so
    /// it alone would not do.)
    pub fn restarted_since(&self, earlier: &Stats) -> bool {
        let attempts = [CLUSTERS, LISTENERS].map(|of| format!("{of}.{ATTEMPT}"));
        let names = attempts.iter().map(String::as_str).chain(["server.uptime"]);
        let mut lower = names.filter(|name| self.get(name) < earlier.get(name));
        let passed = self.read_at.zip(earlier.read_at);
        let most = passed.map(|(now, then)| now.saturating_duration_since(then) + UPTIME_BEHIND);
        let rose = self.uptime().saturating_sub(earlier.uptime());
        lower.next().is_some() || most.is_some_and(|most| rose > most.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_the_one_that_is_described() {
        let filter = PATH.split_once("filter=").unwrap().1;
        let filter = percent_encoding::percent_decode_str(filter)
            .decode_utf8()
            .unwrap();
        assert_eq!(
            filter,
            r"\.(update_(attempt|success|rejected|failure)|warming_clusters|total_(filter_chains|listeners)_draining|total_listeners_warming|dynamic_unknown_fields|load_error)$|^server\.(uptime|state)$"
        );
    }

    #[test]
    fn lines_that_are_not_a_name_and_a_number_are_left_out() {
        let text = b"b.update_attempt: 3\nno number\ncds.version_text: \"V9\"\n\xff: 1\n\
                     a: b.update_attempt: 2\r\nnegative: -1\nhuge: 99999999999999999999\n: 1\n\
                     histogram: P0(nan,1) P25(nan,1.1)\nb.update_attempt: 4\nlast: 5";
        let stats = Stats::parse(text);
        let all: Vec<(&str, u64)> = stats.iter().collect();
        let want = [
            ("", 1),
            ("a: b.update_attempt", 2),
            ("b.update_attempt", 4),
            ("last", 5),
        ];
        assert_eq!(all, want);
        assert_eq!((stats.get("last"), stats.get("absent")), (5, 0));
        assert_eq!(Stats::parse(b""), Stats::default());
        assert_eq!(Stats::parse(b"<html>\n"), Stats::default());
    }

    #[test]
    fn an_envoy_that_starts_is_not_yet_one_that_has_started() {
        for (text, started) in [
            ("server.state: 0", true),
            ("server.state: 1", true),
            ("server.state: 2", false),
            ("server.state: 3", false),
            ("server.uptime: 5", false),
        ] {
            assert_eq!(
                Stats::parse(text.as_bytes()).is_started(),
                started,
                "{text}"
            );
        }
    }

    #[test]
    fn what_can_only_rise_tells_one_process_from_the_next() {
        let stats = |text: &str| Stats::parse(text.as_bytes());
        let before = stats("listener_manager.lds.update_attempt: 3\nserver.uptime: 90");
        for (after, restarted) in [
            (
                "listener_manager.lds.update_attempt: 3\nserver.uptime: 90",
                false,
            ),
            (
                "listener_manager.lds.update_attempt: 4\nserver.uptime: 95",
                false,
            ),
            (
                "listener_manager.lds.update_attempt: 1\nserver.uptime: 90",
                true,
            ),
            (
                "listener_manager.lds.update_attempt: 3\nserver.uptime: 0",
                true,
            ),
            ("", true),
        ] {
            assert_eq!(stats(after).restarted_since(&before), restarted, "{after}");
        }
    }

    #[test]
    fn an_uptime_that_rises_faster_than_time_passes_is_that_of_another_process() {
        let now = Instant::now();
        let stats = |uptime: u64, passed: u64| {
            let text = format!("server.uptime: {uptime}");
            Stats::parse(text.as_bytes()).read_at(now + Duration::from_secs(passed))
        };
        for (uptime, passed, is_other) in [
            (90, 0, false),
            (90, 10_000, false),
            // It was behind by as much as it can be, and is not any more.
            (390, 0, false),
            (420, 0, false),
            (421, 0, true),
            (1_390, 1_000, false),
            (1_421, 1_000, true),
        ] {
            let found = stats(uptime, passed).restarted_since(&stats(90, 0));
            assert_eq!(found, is_other, "{uptime} after {passed} s");
        }
    }
}
