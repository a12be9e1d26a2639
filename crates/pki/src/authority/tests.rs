//! Authorities over their life: made, loaded, renewed, damaged; and what they issue and sign.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, SanType, SigningKey};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};
use xebec_base::{Clock, SimulatedClock};

use super::*;
use crate::ClientTrust;

fn clock() -> Arc<SimulatedClock> {
    SimulatedClock::starting_at("2026-03-01T12:00:00Z".parse().unwrap())
}

fn authority(folder: &TempDir, clock: &Arc<SimulatedClock>) -> Authority {
    Authority::load_or_create(folder.path(), "ca", clock.clone()).unwrap()
}

fn server() -> Profile {
    let ips: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    Profile::server("kube-apiserver", ["kubernetes", "kubernetes.default.svc"], ips)
}

fn der(pem: &str) -> CertificateDer<'static> {
    certificate::from_pem(pem).unwrap()
}

#[test]
fn an_authority_is_made_once_and_kept() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let made = authority(&folder, &clock);
    assert_eq!(authority(&folder, &clock).pem(), made.pem());
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.crt")), (0o600, 0o644));
    let (rest, parsed) = X509Certificate::from_der(made.der()).unwrap();
    assert!(rest.is_empty());
    assert!(parsed.is_ca());
    assert!(parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(parsed.subject().to_string(), "CN=ca");
    assert_eq!(parsed.verify_signature(None), Ok(()));
}

#[test]
fn an_authority_is_renewed_with_the_same_key() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let old = authority(&folder, &clock);
    let issued = old.issue(&Profile::client("jane", ["dev"])).unwrap();
    clock.advance(AUTHORITY_LIFE / 2);
    assert_eq!(authority(&folder, &clock).pem(), old.pem(), "half of its life is left");
    clock.advance(AUTHORITY_LIFE / 4);
    let renewed = authority(&folder, &clock);
    assert_ne!(renewed.pem(), old.pem());
    assert_eq!(renewed.facts.public_key, old.facts.public_key);
    assert!(certificate::is_signed_by(&der(&issued.certificate_pem), renewed.der()));
    let fresh = renewed.issue(&Profile::client("jane", ["dev"])).unwrap();
    assert!(certificate::is_signed_by(&der(&fresh.certificate_pem), old.der()));
}

#[test]
fn a_damaged_folder_says_which_file() {
    fn check(damage: impl FnOnce(&Path), file: &str) {
        let (folder, clock) = (TempDir::new().unwrap(), clock());
        authority(&folder, &clock);
        damage(folder.path());
        let error = Authority::load_or_create(folder.path(), "ca", clock).err().expect(file).to_string();
        assert!(error.contains(&folder.path().join(file).display().to_string()), "{error}");
    }
    check(|folder| std::fs::remove_file(folder.join("ca.key")).unwrap(), "ca.key");
    check(|folder| std::fs::write(folder.join("ca.key"), "x").unwrap(), "ca.key");
    check(|folder| std::fs::write(folder.join("ca.crt"), "x").unwrap(), "ca.crt");
    check(
        |folder| std::fs::write(folder.join("ca.key"), identity::new_key().unwrap().serialize_pem()).unwrap(),
        "ca.crt",
    );
}

#[test]
fn a_lost_certificate_is_made_again_from_the_key() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let old = authority(&folder, &clock);
    std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
    assert_eq!(authority(&folder, &clock).facts.public_key, old.facts.public_key);
}

#[test]
fn a_certificate_says_what_its_profile_says() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let authority = authority(&folder, &clock);
    let served = authority.issue(&server()).unwrap();
    let certificate = der(&served.certificate_pem);
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth && !parsed.is_ca());
    let facts = Facts::read(&certificate).unwrap();
    assert_eq!(facts.names, server().names);
    assert_eq!(facts.not_before, clock.now() - BACKDATE);
    assert!(certificate::is_signed_by(&certificate, authority.der()));

    let groups = ["system:masters", "dev", "ops"];
    let client = authority.issue(&Profile::client("jane", groups)).unwrap();
    assert_eq!(client.subject().unwrap(), Subject::new("jane", groups));
    assert!(!format!("{client:?}").contains("PRIVATE"));
}

#[test]
fn a_kept_identity_is_issued_anew_when_it_has_to_be() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let authority = authority(&folder, &clock);
    let load = |authority: &Authority, profile: &Profile| {
        authority.load_or_issue(folder.path(), "server", profile).unwrap().certificate_pem
    };
    let first = load(&authority, &server());
    assert_eq!(load(&authority, &server()), first);
    let renew_at = Identity { certificate_pem: first.clone(), key_pem: String::new() }.renew_at().unwrap();
    let mut elsewhere = server();
    elsewhere.names.ips.push("10.0.0.1".parse().unwrap());
    let moved = load(&authority, &elsewhere);
    assert_ne!(moved, first, "other addresses");
    std::fs::write(folder.path().join("server.key"), "").unwrap();
    let repaired = load(&authority, &elsewhere);
    assert_ne!(repaired, moved, "a lost key");
    clock.advance(clock.now().duration_until(renew_at).unsigned_abs() - Duration::from_secs(1));
    assert_eq!(load(&authority, &elsewhere), repaired);
    clock.advance(Duration::from_secs(1));
    let renewed = load(&authority, &elsewhere);
    assert_ne!(renewed, repaired, "a third of its life is left");
    let other_folder = TempDir::new().unwrap();
    let other = self::authority(&other_folder, &clock);
    assert_ne!(load(&other, &elsewhere), renewed, "another authority of the same name");
}

fn request(params: CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn requests_are_signed_with_their_subject_names_and_key() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let authority = authority(&folder, &clock);
    let key = identity::new_key().unwrap();
    let mut params = CertificateParams::new(["node-1".to_string(), "10.0.0.1".into()]).unwrap();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:node-1");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().unwrap()));
    let pem = request(params, &key);
    let parsed = CertificateRequest::parse(&pem).unwrap();
    assert_eq!(parsed.subject, Subject::new("system:node:node-1", ["system:nodes"]));

    let hour = Duration::from_secs(3600);
    let signed = der(&authority.sign_csr(&pem, hour, ["digital signature", "server auth"]).unwrap());
    let facts = Facts::read(&signed).unwrap();
    assert_eq!(facts.subject, parsed.subject);
    assert_eq!(facts.names.dns, ["node-1"]);
    assert_eq!(facts.names.ips, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(facts.names.uris, ["spiffe://a/b"]);
    assert_eq!(facts.public_key, key.subject_public_key_info());
    assert_eq!((facts.not_before, facts.not_after), (clock.now() - BACKDATE, clock.now() + hour));
    assert!(!X509Certificate::from_der(&signed).unwrap().1.is_ca(), "whatever was asked for");

    let long = der(&authority.sign_csr(&pem, 2 * AUTHORITY_LIFE, ["client auth"]).unwrap());
    assert_eq!(Facts::read(&long).unwrap().not_after, authority.facts.not_after, "not beyond the authority");
    let error = authority.sign_csr(&pem, hour, ["client auth", "bending", "spoons"]).unwrap_err().to_string();
    assert_eq!(error, r#"unrecognized usage values: ["bending", "spoons"]"#);
}

#[test]
fn a_request_keeps_all_its_groups() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let authority = authority(&folder, &clock);
    let key = identity::new_key().unwrap();
    let jane = Subject::new("jane", ["dev", "ops", "qa"]);
    let algorithm = crate::der::sequence(&[crate::der::object_identifier(&[1, 2, 840, 10045, 4, 3, 2])]);
    let body = crate::der::sequence(&[
        crate::der::element(crate::der::INTEGER, &[0]),
        jane.encode(),
        key.subject_public_key_info(),
        crate::der::explicit(0, &[]),
    ]);
    let signature = key.sign(&body).unwrap();
    let pem = |signature: &[u8]| {
        let request = crate::der::sequence(&[body.clone(), algorithm.clone(), crate::der::bit_string(signature)]);
        crate::der::pem("CERTIFICATE REQUEST", &request)
    };
    let signed = der(&authority.sign_csr(&pem(&signature), Duration::from_secs(600), ["client auth"]).unwrap());
    let trust = ClientTrust::new(&authority.pem(), clock).unwrap();
    assert_eq!(trust.authenticate(&[signed]).unwrap().subject, jane);

    let stranger = identity::new_key().unwrap().sign(&body).unwrap();
    for forged in [pem(&stranger), "no request".into()] {
        let error = CertificateRequest::parse(&forged).err();
        assert!(matches!(error, Some(Error::Request { .. })), "{error:?}");
    }
}

#[test]
fn an_expired_authority_signs_nothing() {
    let (folder, clock) = (TempDir::new().unwrap(), clock());
    let authority = authority(&folder, &clock);
    clock.advance(AUTHORITY_LIFE);
    assert!(matches!(authority.issue(&server()), Err(Error::Expired)));
}
