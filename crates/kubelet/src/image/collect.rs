//! Removing unused images when the disk fills: above 85 % the longest unused go, until it is below 80 %. Upstream's numbers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use xebec_cri::v1::{ContainerFilter, Image};
use xebec_cri::{Error, Images, Runtime};

use super::imported::Record;

const HIGH: u64 = 85;
const LOW: u64 = 80;
/// An image that came this recently may be about to be used.
const YOUNGEST: Duration = Duration::from_secs(120);

/// When each image was first seen, and last used.
#[derive(Default)]
pub struct Collector {
    last_used: HashMap<String, Timestamp>,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug)]
pub struct Fullness {
    pub capacity: u64,
    pub available: u64,
}

impl Fullness {
    pub fn of(path: &Path) -> std::io::Result<Fullness> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Fullness { capacity: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn percent(self) -> u64 {
        100 - (self.available * 100).checked_div(self.capacity).unwrap_or(100)
    }

    /// How many bytes must go, if it is too full.
    fn excess(self) -> Option<u64> {
        (self.capacity > 0 && self.percent() >= HIGH)
            .then(|| (self.capacity * (100 - LOW) / 100).saturating_sub(self.available))
    }
}

/// One round's surroundings.
pub struct Round<'a> {
    pub images: &'a dyn Images,
    pub runtime: &'a dyn Runtime,
    /// Images that were loaded by hand: nobody could bring them back, so they stay.
    pub imported: &'a Record,
    /// The image of every Pod's first container, which no container list names.
    pub sandbox_image: Option<&'a str>,
    pub fullness: Fullness,
    pub now: Timestamp,
}

/// The images that are there, and the names and ids under which containers use them.
struct Stock {
    present: Vec<Image>,
    used: HashSet<String>,
}

impl Collector {
    /// One round; returns the images removed.
    pub async fn collect(&mut self, round: Round<'_>) -> Result<Vec<String>, Error> {
        let mut present = round.images.list().await?;
        let stays = |name: &String| round.sandbox_image == Some(name) || round.imported.holds(name);
        present.retain(|image| !image.repo_tags.iter().any(stays));
        let containers = round.runtime.list_containers(ContainerFilter::default()).await?;
        let used: HashSet<String> = containers
            .into_iter()
            .flat_map(|container| [container.image_ref, container.image_id, container.image.unwrap_or_default().image])
            .collect();
        let victims = self.choose(&Stock { present, used }, round.fullness, round.now);
        for id in &victims {
            round.images.remove(id).await?;
        }
        Ok(victims)
    }

    fn choose(&mut self, stock: &Stock, fullness: Fullness, now: Timestamp) -> Vec<String> {
        let Stock { present, used } = stock;
        let in_use = |image: &Image| {
            used.contains(&image.id)
                || image.repo_tags.iter().chain(&image.repo_digests).any(|name| used.contains(name))
        };
        self.last_used.retain(|id, _| present.iter().any(|image| image.id == *id));
        for image in present {
            let known = self.last_used.entry(image.id.clone()).or_insert(now);
            if in_use(image) {
                *known = now;
            }
        }
        let Some(excess) = fullness.excess() else { return Vec::new() };
        let old = |image: &&Image| now.duration_since(self.last_used[&image.id]).as_secs() >= YOUNGEST.as_secs() as i64;
        let mut unused: Vec<&Image> =
            present.iter().filter(|image| !in_use(image) && !image.pinned).filter(old).collect();
        unused.sort_by_key(|image| self.last_used[&image.id]);
        let mut freed = 0;
        let mut victims = Vec::new();
        for image in unused {
            if freed >= excess {
                break;
            }
            freed += image.size;
            victims.push(image.id.clone());
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(available: u64, expected: &[&str]) {
        let image = |id: &str| Image { id: id.into(), size: 4, ..Image::default() };
        let present = [image("old"), image("older"), image("used"), image("new")];
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut collector = Collector::default();
        let used = HashSet::from(["used".to_owned()]);
        collector.last_used =
            [("older", 0), ("old", 10), ("new", 990)].map(|(id, time)| (id.to_owned(), at(time))).into();
        let stock = Stock { present: present.to_vec(), used };
        assert_eq!(collector.choose(&stock, Fullness { capacity: 100, available }, at(1000)), expected);
    }

    #[tokio::test]
    async fn what_cannot_come_back_stays() {
        let fake = xebec_cri::fake::Fake::new(xebec_base::SystemClock::shared());
        for name in ["docker.io/library/redis:latest", "registry.k8s.io/pause:3.10.2", "docker.io/a/b:1"] {
            fake.add_image(name);
        }
        let folder = std::env::temp_dir().join(format!("xebec-collect-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let imported = Record::at(folder.join("images"));
        imported.add(["docker.io/library/redis:latest".to_owned()]).unwrap();
        let mut collector = Collector::default();
        let mut removed = Vec::new();
        for second in [0, 1000] {
            let round = Round {
                images: &*fake,
                runtime: &*fake,
                imported: &imported,
                sandbox_image: Some("registry.k8s.io/pause:3.10.2"),
                fullness: Fullness { capacity: 100, available: 0 },
                now: Timestamp::from_second(second).unwrap(),
            };
            removed.extend(collector.collect(round).await.unwrap());
        }
        assert_eq!(removed.len(), 1, "only the image that a registry has");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_longest_unused_go_first() {
        check(50, &[]);
        check(16, &[]);
        check(15, &["older", "old"]);
        check(0, &["older", "old"]);
    }
}
