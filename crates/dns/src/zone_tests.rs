//! The zone, question by question, over a small cluster.

use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Cluster {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Cluster {
    fn add_service(&mut self, name: &str, spec: Value) {
        let service = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        self.services.push(Arc::new(serde_json::from_value(service).unwrap()));
    }

    fn add_slice(&mut self, service: &str, ports: Value, endpoints: Value) {
        let metadata = json!({"namespace": "default", "labels": {"kubernetes.io/service-name": service}});
        let slice = json!({"addressType": "IPv4", "metadata": metadata, "ports": ports, "endpoints": endpoints});
        self.slices.push(Arc::new(serde_json::from_value(slice).unwrap()));
    }
}

impl Directory for Cluster {
    fn has_namespace(&self, name: &str) -> bool {
        ["default", "empty"].contains(&name)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let same = |s: &&Arc<Service>| s.metadata.name.as_deref() == Some(name) && namespace == "default";
        self.services.iter().find(same).cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let same = |s: &&Arc<EndpointSlice>| service_name(s) == Some(service) && namespace == "default";
        self.slices.iter().filter(same).cloned().collect()
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.iter().filter(|service| cluster_ips(service).any(|other| other == ip)).cloned().collect()
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let holds =
            |s: &&Arc<EndpointSlice>| s.endpoints.iter().flatten().flat_map(hosts).any(|(other, _)| other == ip);
        self.slices.iter().filter(holds).cloned().collect()
    }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    let two = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    cluster.add_service("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": two}));
    cluster.add_service("waiting", json!({"clusterIP": "", "ports": [{"port": 80}]}));
    cluster.add_service("db", json!({"clusterIP": "None", "ports": [{"name": "redis", "port": 6379}]}));
    cluster.add_service("idle", json!({"clusterIP": "None", "ports": [{"name": "redis", "port": 6379}]}));
    cluster.add_service("bare", json!({"clusterIP": "None"}));
    cluster.add_service("away", json!({"type": "ExternalName", "externalName": "www.example.com"}));
    let redis = json!([{"name": "redis", "port": 6379, "protocol": "TCP"}]);
    let endpoints = json!([
        {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.0.6"], "conditions": {}},
        {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}},
    ]);
    cluster.add_slice("db", redis.clone(), endpoints);
    cluster.add_slice("idle", redis, json!([{"addresses": ["10.244.0.8"], "conditions": {"ready": false}}]));
    cluster.add_slice("bare", json!([]), json!([{"addresses": ["10.244.0.9"]}]));
    let http = json!([{"name": "http", "port": 8080}]);
    cluster.add_slice("web", http, json!([{"addresses": ["10.244.0.5"], "hostname": "web-0"}]));
    cluster
}

fn zone() -> Zone {
    let domain = Name::from_ascii("cluster.local.").unwrap();
    Zone { domain, addresses: vec!["10.96.0.10".parse().unwrap()], serial: 1 }
}

fn short(record: &Record) -> String {
    format!("{} {} {}", record.name, record.record_type(), record.data)
}

/// The answers as `TYPE DATA`, the additionals as `+NAME DATA`, or what is said instead.
fn ask(name: &str, kind: RecordType) -> Vec<String> {
    let owner = Name::from_ascii(name).unwrap();
    match lookup(&zone(), &cluster(), &owner, kind) {
        Answer::Elsewhere => vec!["elsewhere".into()],
        Answer::Nothing { code, soa } => {
            assert!(short(&soa).starts_with("cluster.local. SOA ns.dns.cluster.local. hostmaster"), "{}", short(&soa));
            vec![if code == ResponseCode::NXDomain { "nxdomain".into() } else { "nodata".into() }]
        }
        Answer::Records { answers, additionals } => {
            assert!(answers.iter().all(|record| record.name == owner && record.ttl == TTL));
            let answers = answers.iter().map(|record| format!("{} {}", record.record_type(), record.data));
            answers.chain(additionals.iter().map(|record| format!("+{} {}", record.name, record.data))).collect()
        }
    }
}

#[test]
fn questions_and_answers() {
    use RecordType::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    let svc = |rest: &str| format!("{rest}.default.svc.cluster.local.");
    let web_srv = "+web.default.svc.cluster.local. 10.96.0.7";
    let web_srv6 = "+web.default.svc.cluster.local. fd00::7";
    let cases: &[(&str, RecordType, &[&str])] = &[
        (&svc("web"), A, &["A 10.96.0.7"]),
        (&svc("WEB"), A, &["A 10.96.0.7"]),
        (&svc("web"), AAAA, &["AAAA fd00::7"]),
        (&svc("web"), MX, &["nodata"]),
        (&svc("waiting"), A, &["nodata"]),
        (&svc("nobody"), A, &["nxdomain"]),
        ("web.other.svc.cluster.local.", A, &["nxdomain"]),
        ("web.empty.svc.cluster.local.", A, &["nxdomain"]),
        (&svc("_http._tcp.web"), SRV, &["SRV 0 100 80 web.default.svc.cluster.local.", web_srv, web_srv6]),
        (&svc("_dns._udp.web"), SRV, &["SRV 0 100 53 web.default.svc.cluster.local.", web_srv, web_srv6]),
        (&svc("_dns._tcp.web"), SRV, &["nxdomain"]),
        (&svc("_http._tcp.web"), A, &["A 10.96.0.7"]),
        (&svc("http.tcp.web"), SRV, &["nxdomain"]),
        (&svc("a.b.c.web"), A, &["nxdomain"]),
        (&svc("web-0.web"), A, &["A 10.244.0.5"]),
        (&svc("web-1.web"), A, &["nxdomain"]),
        (&svc("db"), A, &["A 10.244.0.5", "A 10.244.0.6"]),
        (&svc("db"), AAAA, &["nodata"]),
        (&svc("idle"), A, &["nxdomain"]),
        (&svc("bare"), A, &["A 10.244.0.9"]),
        (&svc("bare"), SRV, &["nodata"]),
        (&svc("db-0.db"), A, &["A 10.244.0.5"]),
        (&svc("db-2.db"), A, &["nxdomain"]),
        (&svc("10-244-0-6.db"), A, &["A 10.244.0.6"]),
        (&svc("10-244-0-5.db"), A, &["nxdomain"]),
        (
            &svc("_redis._tcp.db"),
            SRV,
            &[
                "SRV 0 50 6379 10-244-0-6.db.default.svc.cluster.local.",
                "SRV 0 50 6379 db-0.db.default.svc.cluster.local.",
                "+10-244-0-6.db.default.svc.cluster.local. 10.244.0.6",
                "+db-0.db.default.svc.cluster.local. 10.244.0.5",
            ],
        ),
        (&svc("away"), A, &["CNAME www.example.com."]),
        (&svc("away"), CNAME, &["CNAME www.example.com."]),
        (&svc("x.away"), A, &["nxdomain"]),
        ("10-244-0-5.default.pod.cluster.local.", A, &["A 10.244.0.5"]),
        ("10-244-0-5.default.pod.cluster.local.", AAAA, &["nodata"]),
        ("fd00--5.default.pod.cluster.local.", AAAA, &["AAAA fd00::5"]),
        ("10-244-0-5.other.pod.cluster.local.", A, &["nxdomain"]),
        ("redis.default.pod.cluster.local.", A, &["nxdomain"]),
        ("7.0.96.10.in-addr.arpa.", PTR, &["PTR web.default.svc.cluster.local."]),
        (
            "5.0.244.10.in-addr.arpa.",
            PTR,
            &["PTR db-0.db.default.svc.cluster.local.", "PTR web-0.web.default.svc.cluster.local."],
        ),
        ("6.0.244.10.in-addr.arpa.", PTR, &["elsewhere"]),
        ("7.0.244.10.in-addr.arpa.", PTR, &["elsewhere"]),
        ("0.244.10.in-addr.arpa.", PTR, &["elsewhere"]),
        ("7.0.96.10.in-addr.arpa.", A, &["nodata"]),
        ("dns-version.cluster.local.", TXT, &["TXT 1.1.0"]),
        ("dns-version.cluster.local.", A, &["nodata"]),
        ("cluster.local.", NS, &["NS ns.dns.cluster.local.", "+ns.dns.cluster.local. 10.96.0.10"]),
        ("cluster.local.", SOA, &["SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"]),
        ("cluster.local.", A, &["nodata"]),
        ("ns.dns.cluster.local.", A, &["A 10.96.0.10"]),
        ("svc.cluster.local.", A, &["nodata"]),
        ("default.svc.cluster.local.", A, &["nodata"]),
        ("other.svc.cluster.local.", A, &["nxdomain"]),
        ("www.cluster.local.", A, &["nxdomain"]),
        ("www.example.com.", A, &["elsewhere"]),
        ("xcluster.local.", A, &["elsewhere"]),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(ask(name, *kind), *expected, "{name} {kind}");
    }
}
