//! The clusters of a file. Owns: telling one from another, and whether it is still the same. Must
//! not: decide which ones are kept.

use std::hash::{DefaultHasher, Hasher};
use std::ops::ControlFlow;
use std::rc::Rc;

use super::declined::Declined;
use super::flow::Line;
use super::resources::{self, Text};
use crate::snapshot::FileName;
use crate::xds::yaml::Form;

/// The type of a cluster.
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// A cluster of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Hash of what it says, however that is laid out. It is not the same in another process.
    pub hash: u64,
    /// It is not of use before DNS has answered, or before its health has been checked.
    pub warms: bool,
    /// The cluster in one line of flow style, if it can be said so.
    pub line: Result<Rc<str>, Declined>,
}

/// Reads the clusters of the file `name`, all of whose resources must be clusters.
pub fn clusters_of(name: &FileName, text: &[u8]) -> Result<Vec<Cluster>, Declined> {
    let text = Text::new(Form::of(name), text)?;
    let mut clusters = Vec::new();
    resources::read(&text, Line::default(), |resource| {
        let (facts, line) = (resource.facts.unwrapped(), resource.line);
        let unclear = |reason| Declined::at(resource.span, reason);
        if let Some(why) = resource.facts.unclear.as_ref().or(facts.unclear.as_ref()) {
            return Err(why.clone());
        }
        if facts.of_type.as_deref() != Some(CLUSTER) {
            return Err(unclear("a resource is not a cluster"));
        }
        let Some(name) = &facts.name else {
            return Err(unclear("a cluster has no name"));
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(line.text.as_bytes());
        let flaw = text.flaw.as_ref().or(line.flaw.as_ref());
        clusters.push(Cluster {
            name: name.clone().into_owned(),
            hash: hasher.finish(),
            warms: facts.warms,
            line: match flaw {
                None => Ok(line.text.as_str().into()),
                Some(why) => Err(why.clone()),
            },
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(clusters)
}
