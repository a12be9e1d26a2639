//! The zone on the wire.
//!
//! hickory reads and writes the messages; this module decides who answers: the zone, or the world. An alias that leads
//! out of the zone is followed here, because the resolvers in containers do not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tracing::{debug, info};
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_runtime::Informers;

use crate::zone::{Answer, Zone, lookup};
use crate::{Config, Directory, Forwarder, InformerDirectory};

/// The sockets on which questions arrive. They are bound before anything else starts, so that a wrong address is an
/// error of the start and questions wait until the informers know the cluster.
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen for DNS questions on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("use {domain:?} as the cluster's domain")]
    Domain { domain: String, source: hickory_server::proto::ProtoError },
    #[error("answer DNS questions")]
    Serve(#[source] NetError),
}

impl Sockets {
    /// Binds both protocols on each address; the port is 53 but in tests.
    pub async fn bind(addresses: &[IpAddr], port: u16) -> Result<Self, Error> {
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            let failed = |source| Error::Bind { address, source };
            let tcp = TcpListener::bind(address).await.map_err(failed)?;
            let address = tcp.local_addr().map_err(failed)?;
            sockets.udp.push(UdpSocket::bind(address).await.map_err(failed)?);
            sockets.tcp.push(tcp);
        }
        Ok(sockets)
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Idle TCP connections are closed after this time; resolvers open a new one for each question.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers that wait for a slow client on one TCP connection.
const TCP_ANSWERS: usize = 32;

/// The name server of one node, with what it is made from.
pub struct NameServer {
    pub config: Config,
    pub sockets: Sockets,
    pub informers: Informers,
    pub clock: SharedClock,
}

impl NameServer {
    /// Answers questions until shutdown.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let config = self.config;
        let mut domain = Name::from_ascii(&config.domain)
            .map_err(|source| Error::Domain { domain: config.domain.clone(), source })?
            .to_lowercase();
        domain.set_fqdn(true);
        let directory = InformerDirectory::new(&self.informers);
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            () = directory.synced() => {}
        }
        let serial = u32::try_from(self.clock.now().as_second()).unwrap_or(1);
        let zone = Zone { domain, addresses: config.addresses.clone(), serial };
        let forwarder = Forwarder::new(config.resolv_conf, config.addresses);
        let responder = Responder { zone, directory: Arc::new(directory), forwarder, turn: AtomicUsize::new(0) };
        serve(responder, self.sockets, shutdown).await
    }
}

async fn serve(responder: Responder, sockets: Sockets, shutdown: Shutdown) -> Result<(), Error> {
    info!(addresses = ?sockets.addresses(), domain = %responder.zone.domain, "cluster DNS ready");
    let mut server = Server::new(responder);
    sockets.udp.into_iter().for_each(|socket| server.register_socket(socket));
    sockets.tcp.into_iter().for_each(|listener| server.register_listener(listener, TCP_TIMEOUT, TCP_ANSWERS));
    tokio::select! {
        result = server.block_until_done() => return result.map_err(Error::Serve),
        () = shutdown.triggered() => {}
    }
    server.shutdown_gracefully().await.map_err(Error::Serve)
}

struct Responder {
    zone: Zone,
    directory: Arc<dyn Directory>,
    forwarder: Forwarder,
    /// Which of several addresses comes first: each client takes the first, so they take turns.
    turn: AtomicUsize,
}

/// A message but for its header's formalities.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    /// Whether the answer is ours to give.
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additionals: Vec<Record>,
}

impl Response {
    fn refusal(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

/// An alias of an alias of an alias: beyond this many the chain is taken for a circle.
const ALIAS_LIMIT: usize = 8;

impl Responder {
    async fn respond(&self, request: &Request) -> Response {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Response::refusal(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Response::refusal(ResponseCode::FormErr) };
        let query = info.query.original();
        match query.query_class() {
            DNSClass::IN | DNSClass::ANY => {}
            _ => return Response::refusal(ResponseCode::Refused),
        }
        match query.query_type() {
            RecordType::AXFR | RecordType::IXFR => Response::refusal(ResponseCode::Refused),
            kind => self.resolve(query.name(), kind).await,
        }
    }

    /// The whole answer, aliases followed to their end.
    async fn resolve(&self, name: &Name, kind: RecordType) -> Response {
        let mut response = self.ask(name, kind).await;
        let mut seen = 0;
        while let Some(target) = alias(&response.answers, kind) {
            seen += 1;
            if seen > ALIAS_LIMIT {
                return Response::refusal(ResponseCode::ServFail);
            }
            let next = self.ask(&target, kind).await;
            response.code = next.code;
            response.authority = next.authority;
            if next.answers.is_empty() {
                break;
            }
            response.answers.extend(next.answers);
        }
        self.rotate(&mut response.answers);
        response
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Response {
        match lookup(&self.zone, self.directory.as_ref(), name, kind) {
            Answer::Records { answers, additionals } => {
                Response { authoritative: true, answers, additionals, ..Response::default() }
            }
            Answer::Nothing { code, soa } => {
                Response { code, authoritative: true, authority: vec![*soa], ..Response::default() }
            }
            Answer::Elsewhere => {
                let forwarded = self.forwarder.lookup(name, kind).await;
                let (answers, authority) = (forwarded.answers, forwarded.authority);
                Response { code: forwarded.code, answers, authority, ..Response::default() }
            }
        }
    }

    fn rotate(&self, answers: &mut [Record]) {
        let same_owner = answers.windows(2).all(|pair| pair[0].name == pair[1].name);
        if answers.len() > 1 && same_owner {
            answers.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % answers.len());
        }
    }
}

/// Where the answer so far ends in an alias, unless the alias itself was asked for.
fn alias(answers: &[Record], kind: RecordType) -> Option<Name> {
    match &answers.last()?.data {
        RData::CNAME(target) if kind != RecordType::CNAME && kind != RecordType::ANY => Some(target.0.clone()),
        _ => None,
    }
}

/// The most a UDP answer may have, whatever the client says: more than that is fragmented on the way and often lost.
const UDP_LIMIT: u16 = 4096;

#[async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = response.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_LIMIT));
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let (soa, none): (_, [Record; 0]) = (&response.authority, []);
        let message = builder.build(metadata, &response.answers, &none, soa, &response.additionals);
        match handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                debug!(error = %Chain(&error), "send a DNS answer");
                let mut failed = Metadata::response_from_request(&request.metadata);
                failed.response_code = ResponseCode::ServFail;
                hickory_server::proto::op::Header { metadata: failed, counts: Default::default() }.into()
            }
        }
    }
}
