//! The warnings that Envoy may not accept a published file. Owns: that each is given once, and its
//! all-clear once.

use std::time::Instant;

use log::{info, warn};

use crate::logging::WarnOnce;
use crate::snapshot::{FileName, Origin};
use crate::sorted::SortedMap;

const DOUBTFUL: &str = "Envoy may not accept a file; publishing it";

/// The files of one ConfigMap that were warned of, by their names.
#[derive(Debug, Default)]
pub struct Doubts(SortedMap<String, WarnOnce>);

impl Doubts {
    /// Warns of the file at `key`.
    pub fn add(&mut self, origin: &Origin, key: &str, error: &str, now: Instant) {
        let (object, resource_version) = (&origin.object, &origin.resource_version);
        let warned = self.0.get_or_insert_default(key.to_owned());
        // Another version is news even if it has the same fault.
        let reason = format!("{resource_version}: {error}");
        if warned.is_news(DOUBTFUL, &reason, now) {
            warn!(configmap:% = object, resource_version:%, key, error; "{DOUBTFUL}");
        }
    }

    /// Gives the all-clear for each file that was warned of and `is_over` holds for.
    pub fn clear(&mut self, origin: &Origin, is_over: impl Fn(&FileName) -> bool, now: Instant) {
        self.0.retain(|key, warned| {
            let is_over = FileName::new(key).is_none_or(|name| is_over(&name));
            if is_over && let Some(lasted_s) = warned.ended(now) {
                let (object, resource_version) = (&origin.object, &origin.resource_version);
                info!(configmap:% = object, resource_version:%, key, lasted_s;
                    "nothing speaks against a file any more");
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::{ObjectName, ResourceVersion};

    #[test]
    fn a_file_is_doubted_until_that_is_over_for_it() {
        let origin = Origin {
            object: ObjectName {
                namespace: "default".to_owned(),
                name: "a".to_owned(),
            },
            uid: String::new(),
            resource_version: ResourceVersion("1".to_owned()),
        };
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        doubts.add(&origin, "a.yaml", "odd", now);
        doubts.add(&origin, "b.yaml", "odd", now);
        let later = now + Duration::from_secs(5);
        doubts.add(&origin, "b.yaml", "still odd", later);
        doubts.clear(&origin, |name| name.as_str() == "a.yaml", later);
        assert_eq!(doubts.0.len(), 1);
        let warned = doubts.0.get_mut("b.yaml").unwrap();
        assert_eq!(warned.ended(later), Some(5));
    }
}
