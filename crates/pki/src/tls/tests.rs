//! Handshakes in memory: who is believed, who is turned away, and rotation under a running server.

use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use xebec_base::SystemClock;

use super::*;
use crate::{Authority, Profile};

struct House {
    authority: Authority,
    identity: Arc<RotatingIdentity>,
    trust: ClientTrust,
    server: Arc<ServerConfig>,
    _folder: TempDir,
}

fn house() -> House {
    let folder = TempDir::new().unwrap();
    let authority = Authority::load_or_create(folder.path(), "ca", SystemClock::shared()).unwrap();
    let identity = RotatingIdentity::new(&authority.issue(&server_profile()).unwrap()).unwrap();
    let trust = ClientTrust::new(&authority.pem(), SystemClock::shared()).unwrap();
    let server = Arc::new(server_config(identity.clone(), Some(&trust)).unwrap());
    House { authority, identity, trust, server, _folder: folder }
}

fn server_profile() -> Profile {
    Profile::server("server", ["localhost"], ["127.0.0.1".parse().unwrap()])
}

impl House {
    fn client(&self, identity: Option<&Identity>) -> ClientConfig {
        let identity = identity.map(|identity| RotatingIdentity::new(identity).unwrap());
        client_config(&self.authority.pem(), identity).unwrap()
    }

    fn connect(
        &self,
        client: ClientConfig,
        name: &'static str,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name).unwrap())?;
        let mut server = ServerConnection::new(self.server.clone())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let house = house();
    let jane = house.authority.issue(&Profile::client("jane", ["dev", "ops", "qa"])).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let (client, server) = house.connect(house.client(Some(&jane)), name).unwrap();
        let peer = house.trust.authenticate(server.peer_certificates().unwrap()).unwrap();
        assert_eq!(peer.subject, Subject::new("jane", ["dev", "ops", "qa"]));
        assert_eq!(peer.credential_id.len(), "X509SHA256=".len() + 64);
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    }
    let mut old = house.client(Some(&jane));
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(house.connect(old, "localhost").unwrap().0.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_client_without_a_certificate_gets_through_unknown() {
    let house = house();
    let (_, server) = house.connect(house.client(None), "localhost").unwrap();
    assert_eq!(server.peer_certificates(), None);
    assert!(matches!(house.trust.authenticate(&[]), Err(Error::NoUser)));
}

#[test]
fn strange_certificates_get_through_and_are_not_believed() {
    let house = house();
    let other = self::house();
    let strange = other.authority.issue(&Profile::client("jane", ["system:masters"])).unwrap();
    let (_, server) = house.connect(house.client(Some(&strange)), "localhost").unwrap();
    let judged = house.trust.authenticate(server.peer_certificates().unwrap());
    assert!(matches!(judged, Err(Error::Untrusted { .. })), "{judged:?}");

    let serving = house.authority.issue(&server_profile()).unwrap();
    let (_, server) = house.connect(house.client(Some(&serving)), "localhost").unwrap();
    let judged = house.trust.authenticate(server.peer_certificates().unwrap());
    assert!(matches!(judged, Err(Error::Untrusted { .. })), "it is for servers: {judged:?}");

    let nobody = house.authority.issue(&Profile::client("", ["system:masters"])).unwrap();
    let (_, server) = house.connect(house.client(Some(&nobody)), "localhost").unwrap();
    let judged = house.trust.authenticate(server.peer_certificates().unwrap());
    assert!(matches!(judged, Err(Error::NoUser)), "{judged:?}");
}

#[test]
fn a_client_turns_away_from_servers_it_cannot_trust() {
    let house = house();
    let strange = client_config(&self::house().authority.pem(), None).unwrap();
    assert!(house.connect(strange, "localhost").is_err());
    assert!(house.connect(house.client(None), "elsewhere").is_err());
}

#[test]
fn certificates_rotate_under_a_running_server() {
    let house = house();
    let shown = |house: &House| {
        let (client, _) = house.connect(house.client(None), "localhost").unwrap();
        client.peer_certificates().unwrap()[0].clone()
    };
    let first = shown(&house);
    assert_eq!(shown(&house), first);
    house.identity.replace(&house.authority.issue(&server_profile()).unwrap()).unwrap();
    assert_ne!(shown(&house), first);
    let key_pem = house.authority.issue(&server_profile()).unwrap().key_pem;
    let mixed = Identity { key_pem, ..house.authority.issue(&server_profile()).unwrap() };
    assert!(matches!(house.identity.replace(&mixed), Err(Error::Identity { .. })));
}

#[test]
fn an_empty_trust_is_refused() {
    assert!(matches!(client_config("", None), Err(Error::NoAuthorities)));
    assert!(ClientTrust::new("nothing here", SystemClock::shared()).is_err());
}
