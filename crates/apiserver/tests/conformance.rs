//! What every kind must do, run for each row of the table: create, read, update, patch, watch, list in parts, dry run,
//! status, deletion. A new kind needs a sample here and gets the rest for free.

mod cluster;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster::{Answer, Cluster};
use http::StatusCode;
use serde_json::{Value, json};
use xebec_apiserver::registry::erased::Row;
use xebec_apiserver::resources::RESOURCES;

/// A certificate request in PEM, base64 as JSON carries bytes.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIR01HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlx\
    R1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCRmlUcitPREZmZUxEenpIZ01nRzk2TkhPczd2cGVjSEtieWFxNE1NdjFaLy8wTVla\
    eGl3RXgyajlVdCtXd0lWCklaM1VDcm5HRUIvMmROdThqZjRBSWNLZ0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpRUE3dkdVT0JF\
    SkF0VU0KYXo0bU9IL1NHN2ZTTGUrTExXTmd0UlNCSXZBU1IwQUNJR3FRNDNaMk5IS2ZZTWtpbGUrVmhLZXE5TWRXTnNDbgpoM0Ri\
    eXA2Sk5uZGUKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

/// The certificate of an authority.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBbzCCARWgAwIBAgIUbUb9Jo5jq2nKAgu0+W2pnbLIZoIwCgYIKoZIzj0EAwIw\n\
    DDEKMAgGA1UEAwwBYTAgFw0yNjExMjMxODI5MDVaGA8yMTI2MTAzMDE4MjkwNVow\n\
    DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJ2er91wErwn\n\
    GTFt7fLqkGPRaOTmbhy4CV6bbnltZTMp4+jjgKO2tOGiVyhziXFNnc6O51EI/LLy\n\
    X9kIJq46GTCjUzBRMB0GA1UdDgQWBBRmUQ81n6kmBWtOaENkIvGGy8uIbzAfBgNV\n\
    HSMEGDAWgBRmUQ81n6kmBWtOaENkIvGGy8uIbzAPBgNVHRMBAf8EBTADAQH/MAoG\n\
    CCqGSM49BAMCA0gAMEUCIErpR9EkDu71iMH4Y573Wd9+GMgHs7ES1nNxgM0aE8sc\n\
    AiEAk14iabgH3YOMcAdSEHXivDCJ7uMq3x3DBZuX8FBW9vE=\n\
    -----END CERTIFICATE-----\n";

/// The DER within a PEM block, both base64 as JSON carries bytes.
fn der(pem: &str) -> String {
    let pem = String::from_utf8(STANDARD.decode(pem).unwrap()).unwrap();
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

fn rule() -> Value {
    json!({ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] })
}

fn claim() -> Value {
    json!({ "devices": { "requests": [{ "name": "r", "exactly": { "deviceClassName": "c" } }] } })
}

/// What an object is called where not every name will do, and what of it follows from its name.
fn rename(plural: &str, object: &mut Value, name: &str) -> String {
    match plural {
        "customresourcedefinitions" => object["spec"]["names"]["plural"] = json!(name),
        "apiservices" => object["spec"]["version"] = json!(name),
        "ipaddresses" => {
            let last = name.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(3).wrapping_add(byte));
            return format!("10.200.{}.{}", name.len(), last);
        }
        _ => return name.to_owned(),
    }
    format!("{name}.example.com")
}

/// The least that makes an object of the kind valid, without type and metadata.
fn sample(group: &str, plural: &str) -> Value {
    let template = json!({
        "metadata": { "labels": { "app": "a" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] }
    });
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let workload =
        json!({ "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "a" } }, "template": template } });
    match (group, plural) {
        ("", "configmaps") => json!({ "data": { "k": "v" } }),
        ("", "endpoints") => json!({ "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 80 }] }] }),
        ("", "events") => json!({
            "involvedObject": { "kind": "Pod", "name": "p", "namespace": "n" }, "reason": "Began", "type": "Normal",
            "source": { "component": "test" }
        }),
        ("events.k8s.io", "events") => json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "test.io/c", "reportingInstance": "c-1",
            "action": "Begin", "reason": "Began", "type": "Normal",
            "regarding": { "kind": "Pod", "name": "p", "namespace": "n" }
        }),
        ("", "pods") => json!({ "spec": { "containers": [{ "name": "c", "image": "i" }] } }),
        ("", "podtemplates") => json!({ "template": template }),
        ("", "replicationcontrollers") => {
            json!({ "spec": { "replicas": 1, "selector": { "app": "a" }, "template": template } })
        }
        ("", "persistentvolumeclaims") => json!({
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } }
        }),
        ("", "secrets") => json!({ "type": "Opaque", "data": { "k": "dg==" } }),
        ("", "services") => json!({ "spec": { "selector": { "app": "a" }, "ports": [{ "port": 80 }] } }),
        ("apps", "deployments" | "replicasets") => workload,
        ("discovery.k8s.io", "endpointslices") => json!({
            "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "name": "http", "port": 80 }]
        }),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => {
            json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }] })
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => json!({
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u" }]
        }),
        ("", "persistentvolumes") => json!({
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/tmp/a" }
            }
        }),
        ("", "limitranges") => json!({ "spec": { "limits": [{ "type": "Container", "default": { "cpu": "1" } }] } }),
        ("", "resourcequotas") => json!({ "spec": { "hard": { "pods": "1" } } }),
        ("apps", "controllerrevisions") => json!({ "revision": 1, "data": { "a": 1 } }),
        ("apps", "daemonsets") => {
            json!({ "spec": { "selector": { "matchLabels": { "app": "a" } }, "template": template } })
        }
        ("apps", "statefulsets") => json!({
            "spec": { "serviceName": "s", "selector": { "matchLabels": { "app": "a" } }, "template": template }
        }),
        ("autoscaling", "horizontalpodautoscalers") => json!({
            "spec": { "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } }
        }),
        ("batch", "jobs") => json!({ "spec": { "template": job } }),
        ("batch", "cronjobs") => {
            json!({ "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": job } } } })
        }
        ("certificates.k8s.io", "certificatesigningrequests") => json!({
            "spec": { "request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"] }
        }),
        ("networking.k8s.io", "ingressclasses") => json!({ "spec": { "controller": "example.com/c" } }),
        ("networking.k8s.io", "ingresses") => {
            json!({ "spec": { "defaultBackend": { "service": { "name": "s", "port": { "number": 80 } } } } })
        }
        ("networking.k8s.io", "networkpolicies") => json!({ "spec": { "podSelector": {} } }),
        ("node.k8s.io", "runtimeclasses") => json!({ "handler": "runc" }),
        ("policy", "poddisruptionbudgets") => {
            json!({ "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "a" } } } })
        }
        ("scheduling.k8s.io", "priorityclasses") => json!({ "value": 1 }),
        ("storage.k8s.io", "csinodes") => json!({ "spec": { "drivers": [] } }),
        ("storage.k8s.io", "csidrivers") => json!({ "spec": {} }),
        ("storage.k8s.io", "storageclasses") => json!({ "provisioner": "example.com/p" }),
        ("storage.k8s.io", "volumeattachments") => {
            json!({ "spec": { "attacher": "a", "nodeName": "n", "source": { "persistentVolumeName": "v" } } })
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => json!({ "spec": {
            "matchConstraints": { "resourceRules": [rule()] }, "reinvocationPolicy": "Never",
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": "[]" } }]
        } }),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => json!({ "spec": { "policyName": "p" } }),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => json!({ "spec": {
            "matchConstraints": { "resourceRules": [rule()] }, "validations": [{ "expression": "true" }]
        } }),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            json!({ "spec": { "policyName": "p", "validationActions": ["Deny"] } })
        }
        ("admissionregistration.k8s.io", _) => json!({ "webhooks": [{
            "name": "a.example.com", "rules": [rule()], "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "url": "https://hook.example.com/a" }
        }] }),
        ("apiextensions.k8s.io", _) => json!({ "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "ones", "kind": "One" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } }
            }]
        } }),
        ("apiregistration.k8s.io", _) => json!({ "spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": { "namespace": "n", "name": "s" }, "insecureSkipTLSVerify": true
        } }),
        ("certificates.k8s.io", "clustertrustbundles") => json!({ "spec": { "trustBundle": AUTHORITY } }),
        ("certificates.k8s.io", "podcertificaterequests") => json!({ "spec": {
            "signerName": "example.com/signer", "stubPKCS10Request": der(REQUEST), "podName": "p", "podUID": "1",
            "serviceAccountName": "s", "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3"
        } }),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => {
            json!({ "spec": { "priorityLevelConfiguration": { "name": "l" } } })
        }
        ("flowcontrol.apiserver.k8s.io", _) => {
            json!({ "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } } } })
        }
        ("networking.k8s.io", "ipaddresses") => {
            json!({ "spec": { "parentRef": { "resource": "things", "name": "t" } } })
        }
        ("networking.k8s.io", "servicecidrs") => json!({ "spec": { "cidrs": ["10.9.0.0/16"] } }),
        ("resource.k8s.io", "deviceclasses") => json!({ "spec": {} }),
        ("resource.k8s.io", "devicetaintrules") => {
            json!({ "spec": { "taint": { "key": "example.com/broken", "effect": "NoSchedule" } } })
        }
        ("resource.k8s.io", "resourceclaims") => json!({ "spec": claim() }),
        ("resource.k8s.io", "resourceclaimtemplates") => json!({ "spec": { "spec": claim() } }),
        ("resource.k8s.io", "resourceslices") => json!({ "spec": {
            "driver": "example.com", "nodeName": "n", "pool": { "name": "p", "resourceSliceCount": 1 },
            "devices": [{ "name": "d", "attributes": { "model": { "string": "a" } } }]
        } }),
        ("storage.k8s.io", "csistoragecapacities") => json!({ "storageClassName": "c", "capacity": "1Gi" }),
        ("storage.k8s.io", "volumeattributesclasses") => {
            json!({ "driverName": "example.com", "parameters": { "a": "b" } })
        }
        ("storagemigration.k8s.io", _) => {
            json!({ "spec": { "resource": { "group": "apps", "resource": "deployments" } } })
        }
        ("coordination.k8s.io", "leases") => json!({ "spec": { "holderIdentity": "h", "leaseDurationSeconds": 10 } }),
        _ => json!({}),
    }
}

struct Subject<'a> {
    cluster: &'a Cluster,
    row: &'a Row,
    collection: String,
}

impl Subject<'_> {
    fn object(&self, name: &str) -> Value {
        let resource = &self.row.resource;
        let mut object = sample(&resource.group, &resource.plural);
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        let name = rename(&resource.plural, &mut object, name);
        object["metadata"] = json!({ "name": name, "labels": { "set": "a" } });
        object
    }

    fn name(&self, name: &str) -> String {
        rename(&self.row.resource.plural, &mut json!({}), name)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{}", self.collection, self.name(name))
    }

    async fn created(&self, name: &str) -> Value {
        let answer = self.cluster.post(&self.collection, &self.object(name)).await;
        self.expect(&answer, StatusCode::CREATED, "create");
        answer.body
    }

    fn expect(&self, answer: &Answer, code: StatusCode, what: &str) {
        assert_eq!(answer.code, code, "{what} {}: {}", self.row.resource, answer.body);
    }

    async fn lives(&self) {
        let before = self.cluster.get(&self.collection).await;
        self.expect(&before, StatusCode::OK, "list");
        let start = before.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

        let dry = self.object("dry");
        let answer = self.cluster.post(&format!("{}?dryRun=All", self.collection), &dry).await;
        self.expect(&answer, StatusCode::CREATED, "dry run");
        let answer = self.cluster.get(&self.path("dry")).await;
        self.expect(&answer, StatusCode::NOT_FOUND, "get after a dry run");

        let one = self.created("one").await;
        assert!(one["metadata"]["uid"].is_string(), "{one}");
        assert_eq!(one["kind"], self.row.resource.kind.as_ref());
        let again = self.cluster.post(&self.collection, &self.object("one")).await;
        self.expect(&again, StatusCode::CONFLICT, "create again");
        let got = self.cluster.get(&self.path("one")).await;
        assert_eq!(got.body, one);

        let unchanged = self.cluster.put(&self.path("one"), &one).await;
        self.expect(&unchanged, StatusCode::OK, "update without a change");
        assert_eq!(
            unchanged.body["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"],
            "{}",
            unchanged.body
        );
        self.changes(&one).await;

        let deleted = self
            .cluster
            .delete(&format!("{}?gracePeriodSeconds=0&propagationPolicy=Background", self.path("one")))
            .await;
        self.expect(&deleted, StatusCode::OK, "delete");
        if self.row.resource.plural == "namespaces" {
            self.finalized().await;
        }
        self.watched(&start).await;
    }

    /// A Namespace waits for its own finalizers.
    async fn finalized(&self) {
        let path = self.path("one");
        let mut held = self.cluster.get(&path).await.body;
        assert_eq!(held["status"]["phase"], "Terminating");
        held["spec"] = json!({});
        let answer = self.cluster.put(&format!("{path}/finalize"), &held).await;
        self.expect(&answer, StatusCode::OK, "finalize");
        let gone = self.cluster.get(&path).await;
        self.expect(&gone, StatusCode::NOT_FOUND, "get after finalize");
    }

    async fn changes(&self, one: &Value) {
        let path = self.path("one");
        let mut two = one.clone();
        two["metadata"]["labels"]["changed"] = json!("yes");
        let updated = self.cluster.put(&path, &two).await;
        self.expect(&updated, StatusCode::OK, "update");
        assert_ne!(updated.body["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"]);
        assert_eq!(updated.body["metadata"]["uid"], one["metadata"]["uid"]);
        let stale = self.cluster.put(&path, &two).await;
        self.expect(&stale, StatusCode::CONFLICT, "stale update");

        for (kind, patch) in [
            ("merge-patch", json!({ "metadata": { "annotations": { "m": "1" } } })),
            ("strategic-merge-patch", json!({ "metadata": { "annotations": { "s": "1" } } })),
            ("json-patch", json!([{ "op": "add", "path": "/metadata/annotations/j", "value": "1" }])),
        ] {
            let patched = self.cluster.patch(&path, kind, &patch).await;
            self.expect(&patched, StatusCode::OK, kind);
        }
        let got = self.cluster.get(&path).await.body;
        for patch in ["m", "s", "j"] {
            assert_eq!(got["metadata"]["annotations"][patch], "1", "{}", self.row.resource);
        }
        // Two kinds count changes of their annotations or labels too, as upstream's do.
        if !matches!(&*self.row.resource.plural, "deployments" | "endpointslices") {
            assert_eq!(got["metadata"].get("generation"), one["metadata"].get("generation"), "{}", self.row.resource);
        }

        let unknown = self.cluster.patch(&path, "merge-patch", &json!({ "nonsense": 1 })).await;
        // Deprecated kinds warn at every use.
        let warnings: Vec<_> = unknown.warnings.iter().filter(|text| !text.contains("is deprecated")).collect();
        assert_eq!(warnings, [r#"299 - "unknown field \"nonsense\"""#], "{}", self.row.resource);
        let strict = format!("{path}?fieldValidation=Strict");
        let refused = self.cluster.patch(&strict, "merge-patch", &json!({ "nonsense": 1 })).await;
        self.expect(&refused, StatusCode::UNPROCESSABLE_ENTITY, "strict patch");
    }

    async fn watched(&self, start: &str) {
        let path = format!("{}?watch=true&resourceVersion={start}", self.collection);
        let expected = |modified: usize| [vec!["ADDED"], vec!["MODIFIED"; modified], vec!["DELETED"]].concat();
        // A Namespace changes once more on its way out.
        let more = usize::from(self.row.resource.plural == "namespaces");
        let events = self.cluster.watch(&path, 6 + more).await;
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, expected(4 + more), "{}", self.row.resource);
        let versions: Vec<u64> = events
            .iter()
            .map(|event| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert!(events.iter().all(|event| event["object"]["kind"] == self.row.resource.kind.as_ref()));

        // Who selects the changed label sees the object come and go with it.
        let events = self.cluster.watch(&format!("{path}&labelSelector=changed"), 5 + more).await;
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, expected(3 + more), "{}", self.row.resource);
    }

    async fn pages(&self) {
        for index in 0..5 {
            self.created(&format!("page-{index}")).await;
        }
        let selected = format!("{}?limit=2&labelSelector=set%3Da", self.collection);
        let first = self.cluster.get(&selected).await;
        self.expect(&first, StatusCode::OK, "first page");
        self.created("page-9").await;
        let (mut names, mut page) = (Vec::new(), first.body);
        loop {
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
            let Some(token) = page["metadata"]["continue"].as_str() else { break };
            let path = format!("{}?limit=2&labelSelector=set%3Da&continue={token}", self.collection);
            let answer = self.cluster.get(&path).await;
            self.expect(&answer, StatusCode::OK, "next page");
            page = answer.body;
        }
        let mut expected: Vec<String> = (0..5).map(|index| self.name(&format!("page-{index}"))).collect();
        expected.sort();
        assert_eq!(names, expected, "{}", self.row.resource);

        let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
        let answer = self.cluster.send("GET", &self.collection, &table, "").await;
        assert_eq!(answer.body["kind"], "Table");
        let columns = answer.body["columnDefinitions"].as_array().unwrap().len();
        for row in answer.body["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns, "{}: {row}", self.row.resource);
            assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        }
        let path =
            format!("{}?gracePeriodSeconds=0&propagationPolicy=Background&labelSelector=set%3Da", self.collection);
        let deleted = self.cluster.delete(&path).await;
        self.expect(&deleted, StatusCode::OK, "delete collection");
        let left = self.cluster.get(&format!("{}?labelSelector=set%3Da", self.collection)).await;
        assert_eq!(left.body["items"], json!([]), "{}", self.row.resource);
    }

    async fn status(&self) {
        if !(self.row.strategy)().has_status() {
            return;
        }
        let one = self.created("status").await;
        let path = format!("{}/status", self.path("status"));
        let answer = self.cluster.get(&path).await;
        self.expect(&answer, StatusCode::OK, "get status");
        let mut changed = one.clone();
        changed["metadata"]["annotations"] = json!({ "with": "status" });
        let answer = self.cluster.put(&path, &changed).await;
        self.expect(&answer, StatusCode::OK, "update status");
        assert_eq!(answer.body["spec"], one["spec"], "{}", self.row.resource);
    }

    async fn finalizers(&self) {
        let mut object = self.object("held");
        object["metadata"]["finalizers"] = json!(["example.com/hold"]);
        let answer = self.cluster.post(&self.collection, &object).await;
        self.expect(&answer, StatusCode::CREATED, "create with a finalizer");
        let path = self.path("held");
        let answer = self.cluster.delete(&format!("{path}?gracePeriodSeconds=0&propagationPolicy=Background")).await;
        self.expect(&answer, StatusCode::OK, "delete with a finalizer");
        let got = self.cluster.get(&path).await;
        self.expect(&got, StatusCode::OK, "get while a finalizer holds");
        assert!(got.body["metadata"]["deletionTimestamp"].is_string());
        let patch = json!({ "metadata": { "finalizers": null } });
        let answer = self.cluster.patch(&path, "merge-patch", &patch).await;
        self.expect(&answer, StatusCode::OK, "removal of the finalizer");
        let got = self.cluster.get(&path).await;
        self.expect(&got, StatusCode::NOT_FOUND, "get after the last finalizer");
    }
}

async fn resource(row: &Row) {
    let cluster = Cluster::start().await;
    let resource = &row.resource;
    let subject = Subject { cluster: &cluster, row, collection: resource.collection_path(Some("n")) };
    subject.lives().await;
    if resource.plural != "namespaces" {
        subject.pages().await;
        subject.finalizers().await;
    }
    subject.status().await;
}

#[tokio::test]
async fn every_kind_conforms() {
    for row in RESOURCES {
        resource(row).await;
    }
}
