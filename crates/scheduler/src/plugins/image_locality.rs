//! Nodes that have a Pod's images already are a little better: the larger the images, the more.

use super::Prepared;
use crate::snapshot::{NodeState, PodFacts};

/// Below the first nothing is gained by having an image, above the second nothing more (bytes a container), as upstream.
const FLOOR: f64 = 23.0 * 1024.0 * 1024.0;
const CEILING: f64 = 1000.0 * 1024.0 * 1024.0;

pub fn score(_: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    let Some(spec) = pod.spec() else { return 0.0 };
    let size = |image: &str| {
        let full = normalised(image);
        node.images.get(image).or_else(|| node.images.get(&full)).copied().unwrap_or(0) as f64
    };
    let images = spec.containers.iter().filter_map(|container| container.image.as_deref());
    let present: f64 = images.map(size).sum();
    let ceiling = CEILING * spec.containers.len() as f64;
    100.0 * (present.clamp(FLOOR, ceiling.max(FLOOR)) - FLOOR) / (ceiling - FLOOR).max(1.0)
}

/// `redis` is listed by nodes as `docker.io/library/redis:latest`.
fn normalised(image: &str) -> String {
    let (domain, rest) = match image.split_once('/') {
        Some((domain, rest)) if domain.contains(['.', ':']) || domain == "localhost" => (domain, rest.to_owned()),
        Some(_) => ("docker.io", image.to_owned()),
        None => ("docker.io", format!("library/{image}")),
    };
    let tagged = rest.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    format!("{domain}/{rest}{}", if tagged { "" } else { ":latest" })
}

#[cfg(test)]
mod tests {
    #[test]
    fn image_names_are_completed() {
        let check = |short: &str, full: &str| assert_eq!(super::normalised(short), full);
        check("redis", "docker.io/library/redis:latest");
        check("a/b:1", "docker.io/a/b:1");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("localhost:5000/x", "localhost:5000/x:latest");
    }
}
