//! Describes a file that the target has no more. Owns: whether something that went with it referred
//! to it. Must not: decide how long it is kept.

use super::kept::VanishedFile;
use crate::snapshot::{File, FileName, Snapshot};
use crate::xds::sequence::{Kind, clusters_of, kind_of};

/// Describes a file that is `visible` and not in the target.
pub fn vanished_file(name: &FileName, visible: &Snapshot, target: &Snapshot) -> VanishedFile {
    let Some(File { bytes, .. }) = visible.get(name) else {
        return VanishedFile::default();
    };
    let is_of_clusters = kind_of(name, bytes) == Kind::Clusters;
    let clusters = is_of_clusters.then(|| clusters_of(name, bytes).ok());
    let clusters = clusters.flatten().into_iter().flatten();
    let referred = |set: &Snapshot| {
        let mut others = set.iter().filter(|(other, _)| *other != name);
        others.any(|(_, file)| refers_to(&file.bytes, name))
    };
    VanishedFile {
        clusters: clusters.map(|cluster| cluster.name).collect(),
        size: bytes.len() as u64,
        went_along: referred(visible) && !referred(target),
    }
}

/// Returns whether a text has a path that ends with this name.
fn refers_to(text: &[u8], name: &FileName) -> bool {
    let is_of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let (text, end) = (String::from_utf8_lossy(text), format!("/{name}"));
    let mut parts = text.split(&end).skip(1);
    parts.any(|behind| !behind.bytes().next().is_some_and(is_of_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_refers_to_the_file_that_it_ends_with() {
        let name = FileName::new("eds1.yaml").unwrap();
        for (text, want) in [
            ("path: /x/current/eds1.yaml", true),
            ("path: \"/x/eds1.yaml\"\n", true),
            ("{path: /x/eds1.yaml}", true),
            ("path: /x/eds1.yaml.old, other: /x/eds1.yaml\r\n", true),
            ("path: /x/eds1.yaml2", false),
            ("path: /x/my-eds1.yaml", false),
            ("eds1.yaml", false),
            ("", false),
        ] {
            assert_eq!(refers_to(text.as_bytes(), &name), want, "{text}");
        }
    }
}
