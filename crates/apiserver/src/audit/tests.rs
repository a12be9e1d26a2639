//! Records of requests, in upstream's shape.

use http::{HeaderMap, Method, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use xebec_base::SimulatedClock;

use super::*;
use crate::authn::User;
use crate::request_info::{QueryHints, RequestInfo};

#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Sink for Kept {
    fn record(&self, event: &[u8]) {
        self.0.lock().push(serde_json::from_slice(event).unwrap());
    }
}

struct House {
    audit: Arc<Audit>,
    kept: Arc<Kept>,
    _folder: tempfile::TempDir,
}

fn house(rules: &str) -> House {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).unwrap();
    let kept = Arc::new(Kept::default());
    let clock = SimulatedClock::starting_at("2026-01-02T03:04:05.678901Z".parse().unwrap());
    let audit = Audit::new(Policy::read(&path).unwrap(), vec![kept.clone()], clock);
    House { audit, kept, _folder: folder }
}

impl House {
    fn begin(&self, method: Method, uri: &str) -> Option<Trail> {
        let uri: Uri = uri.parse().unwrap();
        let info = RequestInfo::parse(&method, uri.path(), QueryHints::default()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "kubectl/v1.37".parse().unwrap());
        headers.insert("x-forwarded-for", "10.0.0.1, 10.0.0.2".parse().unwrap());
        let mut user = (*User::new("jane", &["dev"])).clone();
        user.uid = "7".to_owned();
        user.extra = [("scope".to_owned(), vec!["a".to_owned()])].into();
        self.audit.begin(&Request {
            id: "the-id",
            user: user.into(),
            info: &info,
            uri: &uri,
            headers: &headers,
            address: "127.0.0.1",
            received: "2026-01-02T03:04:05Z".parse().unwrap(),
        })
    }

    fn kept(&self) -> Vec<Value> {
        std::mem::take(&mut self.kept.0.lock())
    }
}

#[test]
fn a_record_has_upstreams_shape() {
    let house = house("rules: [{level: RequestResponse, omitManagedFields: true}]");
    let mut trail = house.begin(Method::POST, "/api/v1/namespaces/a/secrets?fieldManager=x").unwrap();
    let object = json!({"kind": "Secret", "metadata": {"name": "s", "managedFields": [{"manager": "m"}]}});
    trail.request(object.to_string().as_bytes());
    trail.decided(true, "RBAC: allowed");
    trail.answered(201, Some(object.to_string().as_bytes()));
    trail.reach(Stage::ResponseComplete);
    let plain = json!({"kind": "Secret", "metadata": {"name": "s"}});
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "the-id",
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/a/secrets?fieldManager=x", "verb": "create",
        "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"scope": ["a"]}},
        "sourceIPs": ["10.0.0.1", "10.0.0.2", "127.0.0.1"], "userAgent": "kubectl/v1.37",
        "objectRef": {"resource": "secrets", "namespace": "a", "name": "s", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": plain, "responseObject": plain,
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z", "stageTimestamp": "2026-01-02T03:04:05.678901Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed"}
    });
    let kept = house.kept();
    assert_eq!(kept[1], expected);
    let order = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&kept[1]), order(&expected));
    assert_eq!(
        (kept.len(), &kept[0]["stage"], &kept[0]["responseStatus"]),
        (2, &json!("RequestReceived"), &Value::Null)
    );
}

#[test]
fn levels_and_stages_are_kept_to() {
    let rules = "omitStages: [RequestReceived]\nrules: [{level: None, verbs: [list]}, {level: Metadata}]";
    let house = house(rules);
    assert!(house.begin(Method::GET, "/api/v1/namespaces/a/pods").is_none());
    let mut trail = house.begin(Method::POST, "/api/v1/namespaces/a/pods").unwrap();
    assert!(!trail.wants_request());
    trail.impersonates(User::new("joe", &[]));
    trail.request(br#"{"kind": "Pod", "metadata": {"name": "p", "uid": "u"}}"#);
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden",
        "code": 403
    });
    trail.answered(403, Some(status.to_string().as_bytes()));
    trail.reach(Stage::ResponseComplete);
    let [record] = &house.kept()[..] else { panic!("one stage") };
    assert_eq!(
        record["responseStatus"],
        json!({
            "metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403
        })
    );
    assert_eq!((&record["requestObject"], &record["responseObject"]), (&Value::Null, &Value::Null));
    assert_eq!((&record["objectRef"]["name"], &record["objectRef"]["uid"]), (&json!("p"), &json!("u")));
    assert_eq!(record["impersonatedUser"], json!({"username": "joe"}));
}
