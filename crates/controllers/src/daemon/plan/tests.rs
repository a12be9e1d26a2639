//! DaemonSets played through on a few nodes.

use serde_json::{Value, json};

use super::*;

struct World {
    set: DaemonSet,
    pods: Vec<Pod>,
    nodes: Vec<Value>,
    revisions: Vec<ControllerRevision>,
    held: BTreeMap<String, Timestamp>,
    made: usize,
}

fn world(strategy: Value, nodes: &[Value]) -> World {
    let set = json!({"metadata": {"name": "d", "namespace": "n", "uid": "du"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    World {
        set: serde_json::from_value(set).unwrap(),
        pods: Vec::new(),
        nodes: nodes.to_vec(),
        revisions: Vec::new(),
        held: BTreeMap::new(),
        made: 0,
    }
}

fn node(name: &str, taints: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"taints": taints}})
}

impl World {
    fn plan(&self) -> Plan<Action> {
        let observed = Observed {
            set: Arc::new(self.set.clone()),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            orphans: Vec::new(),
            nodes: self.nodes.iter().map(|node| Arc::new(serde_json::from_value(node.clone()).unwrap())).collect(),
            revisions: self.revisions.iter().cloned().map(Arc::new).collect(),
            settled: true,
            held: self.held.clone(),
            selector: LabelSelector::from_object(Some(&self.set.spec.selector)).unwrap(),
        };
        plan(&observed, Timestamp::UNIX_EPOCH)
    }

    /// One round; returns how many Pods were made and deleted.
    fn step(&mut self) -> (usize, usize) {
        let (mut made, mut deleted) = (0, 0);
        for action in self.plan().actions {
            match action {
                Action::Create(pods) => {
                    made += pods.len();
                    for mut pod in pods {
                        self.made += 1;
                        pod.metadata.name = Some(format!("p{}", self.made));
                        self.pods.push(pod);
                    }
                }
                Action::Delete(pods) => {
                    deleted += pods.len();
                    self.pods.retain(|pod| !pods.iter().any(|gone| gone.metadata.name == pod.metadata.name));
                }
                Action::Replace(pod, ..) => {
                    deleted += 1;
                    self.pods.retain(|one| one.metadata.name != pod.metadata.name);
                }
                Action::Remember(revision) => self.revisions.push(*revision),
                Action::Renumber(revision) => {
                    self.revisions.iter_mut().filter(|one| one.metadata.name == revision.metadata.name).for_each(
                        |one| {
                            one.revision = revision.revision;
                        },
                    );
                }
                Action::Forget(name) => self.revisions.retain(|one| one.metadata.name.as_ref() != Some(&name)),
                Action::Write(status) => self.set.status = Some(*status),
                Action::Adopt(_) | Action::Disown(_) => unreachable!("every Pod is the set's own"),
            }
        }
        (made, deleted)
    }

    fn settle(&mut self) {
        (0..30).find(|_| self.step() == (0, 0) && self.plan().actions.is_empty()).expect("the set settles");
    }

    fn make_ready(&mut self) {
        let status: Value = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        for pod in &mut self.pods {
            pod.status = Some(serde_json::from_value(status.clone()).unwrap());
        }
    }

    fn set_image(&mut self, image: &str) {
        self.set.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    }

    fn images(&self) -> Vec<&str> {
        self.pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref()).collect()
    }
}

#[test]
fn every_node_that_takes_it_gets_a_pod() {
    let repels = json!([{"key": "k", "effect": "NoSchedule"}]);
    let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let mut world = world(json!({}), &[node("a", json!([])), node("b", cordoned), node("c", repels.clone())]);
    world.settle();
    let places: Vec<_> = world.pods.iter().filter_map(node_of).collect();
    assert_eq!(places, ["a", "b"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (2, 2, 0));
    assert_eq!(status.updated_number_scheduled, Some(2));
    // A taint that keeps new Pods away leaves those that are there, one that drives out does not.
    world.nodes[0] = node("a", repels);
    world.settle();
    assert_eq!((world.pods.len(), world.set.status.as_ref().unwrap().number_misscheduled), (2, 1));
    world.nodes[0] = node("a", json!([{"key": "k", "effect": "NoExecute"}]));
    world.settle();
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn templates_are_rolled_out_node_by_node() {
    let nodes = [node("a", json!([])), node("b", json!([])), node("c", json!([]))];
    let mut world = world(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}), &nodes);
    world.settle();
    world.make_ready();
    world.settle();
    world.set_image("two");
    for _ in 0..3 {
        world.settle();
        assert_eq!(world.pods.iter().filter(|pod| pod::is_ready(pod)).count(), 2);
        world.make_ready();
    }
    world.settle();
    assert_eq!(world.images(), ["two"; 3]);
    assert_eq!(world.revisions.iter().map(|one| one.revision).collect::<Vec<_>>(), [Some(1), Some(2)]);
    // Going back is a new revision of the old template.
    world.set_image("one");
    world.step();
    assert_eq!(world.revisions.iter().map(|one| one.revision).collect::<Vec<_>>(), [Some(3), Some(2)]);
}

#[test]
fn surging_keeps_the_old_pod_until_the_new_one_is_ready() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world(strategy, &[node("a", json!([]))]);
    world.settle();
    world.make_ready();
    world.set_image("two");
    world.settle();
    assert_eq!(world.pods.len(), 2);
    world.make_ready();
    world.settle();
    assert_eq!(world.images(), ["two"]);
}

#[test]
fn pods_of_the_old_template_stay_when_they_are_replaced_by_hand() {
    let mut world = world(json!({"type": "OnDelete"}), &[node("a", json!([]))]);
    world.settle();
    world.make_ready();
    world.set_image("two");
    world.settle();
    assert_eq!(world.images(), ["one"]);
    assert_eq!(world.set.status.as_ref().unwrap().updated_number_scheduled, None);
}

#[test]
fn failed_pods_are_replaced_when_their_time_has_come() {
    let mut world = world(json!({}), &[node("a", json!([]))]);
    world.settle();
    world.pods[0].status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    world.held.insert("a".to_owned(), "1970-01-01T00:00:05Z".parse().unwrap());
    assert_eq!((world.plan().again, world.step()), (Some(Duration::from_secs(5)), (0, 0)));
    world.held.clear();
    assert_eq!(world.step(), (0, 1));
    assert_eq!(world.step(), (1, 0));
}
