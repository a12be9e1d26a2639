//! SPDY/3.1 frames: parsing from a buffered reader and encoding into a buffer.
//!
//! A control frame is parsed whole, for it is small and bounded by [`MAX_CONTROL_PAYLOAD`]. A data frame may announce
//! 16 MiB, so only its head is parsed here and its payload stays in the reader, to be moved on in pieces. Header
//! blocks of one direction share one zlib context, so every one of them has to pass through here in the order of the
//! wire, even those of streams that are refused.
//!
//! Nothing here knows which streams exist. SPDY/3.1 is specified in Chromium's "SPDY Protocol - Draft 3.1".

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::dictionary::DICTIONARY;

/// The most bytes a control frame may announce. Kubernetes sends a handful of short headers; 64 KiB leaves room for
/// any client and keeps a hostile one from making us buffer the 16 MiB that the length field can hold.
pub const MAX_CONTROL_PAYLOAD: usize = 64 << 10;

/// The most bytes a header block may inflate to, so that a small frame cannot expand without bound.
pub const MAX_HEADER_BLOCK: usize = 256 << 10;

/// The largest data payload the length field of 24 bits can announce.
pub const MAX_DATA_LENGTH: usize = (1 << 24) - 1;

const VERSION: u16 = 3;
const CONTROL_BIT: u32 = 0x8000_0000;
const ID_MASK: u32 = 0x7fff_ffff;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why the bytes of a connection are not SPDY/3.1. None of these can be recovered from: the connection ends.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("read a SPDY frame")]
    Read(#[from] std::io::Error),
    #[error("SPDY version {0} in a control frame, not {VERSION}")]
    Version(u16),
    #[error("unknown SPDY control frame type {0}")]
    UnknownType(u16),
    #[error("SPDY control frame of {0} bytes, more than {MAX_CONTROL_PAYLOAD}")]
    ControlTooLarge(usize),
    #[error("SPDY control frame of type {0} is too short")]
    Truncated(u16),
    #[error("SPDY frame for stream 0")]
    ZeroStream,
    #[error("SPDY header block does not inflate: {0}")]
    Inflate(String),
    #[error("SPDY header block inflates to more than {MAX_HEADER_BLOCK} bytes")]
    HeadersTooLarge,
    #[error("SPDY header block is malformed")]
    Headers,
}

/// The status of a RST_STREAM frame, of which these are sent or told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetStatus {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

/// One parsed frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream(SynStream),
    SynReply {
        id: u32,
        fin: bool,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    Headers {
        id: u32,
        fin: bool,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// SETTINGS and WINDOW_UPDATE. They are read and have no effect: SPDY's flow control is not practised between
    /// Kubernetes' implementations (moby/spdystream neither keeps windows nor sends updates), so to wait for a window
    /// here would be to wait for ever.
    Ignored,
    /// The head of a data frame; `length` bytes of payload follow in the reader.
    Data {
        id: u32,
        fin: bool,
        length: usize,
    },
}

/// A new stream of the peer.
#[derive(Debug, PartialEq, Eq)]
pub struct SynStream {
    pub id: u32,
    /// The peer sends nothing on it.
    pub fin: bool,
    /// We send nothing on it.
    pub unidirectional: bool,
    pub headers: Headers,
}

/// The headers of a stream, with the lower-case names of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers from names and values. Names are lower-cased, as the wire wants them.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Headers {
        Headers(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The first value of the header `name`, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(key, _)| key == name)?;
        values.split('\0').next()
    }

    fn encode(&self) -> BytesMut {
        let mut block = BytesMut::with_capacity(128);
        block.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        block
    }

    fn decode(block: &[u8]) -> Result<Headers, FrameError> {
        let mut fields = Fields(block);
        let count = fields.u32()? as usize;
        // Every pair takes eight bytes of lengths at least, which bounds the count before anything is allocated for it.
        if count > block.len() / 8 {
            return Err(FrameError::Headers);
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = fields.text()?.to_ascii_lowercase();
            pairs.push((name, fields.text()?));
        }
        Ok(Headers(pairs))
    }
}

/// A cursor over a decoded header block.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Result<u32, FrameError> {
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(FrameError::Headers)?;
        self.0 = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// The reading half of the framing: a buffered transport and the zlib context of the headers that arrive on it.
pub struct FrameReader<R> {
    io: R,
    inflate: Decompress,
}

impl<R: AsyncBufRead + Unpin> FrameReader<R> {
    pub fn new(io: R) -> Self {
        FrameReader { io, inflate: Decompress::new(true) }
    }

    /// The next frame, or `None` where the transport ends between two frames.
    ///
    /// After [`Frame::Data`] the caller takes exactly `length` bytes with [`FrameReader::payload`] before it asks
    /// again.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.io.fill_buf().await?.is_empty() {
            return Ok(None);
        }
        let first = self.io.read_u32().await?;
        let second = self.io.read_u32().await?;
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if first & CONTROL_BIT != 0 {
            return self.control(first, flags, length).await.map(Some);
        }
        let id = stream_id(first)?;
        Ok(Some(Frame::Data { id, fin: flags & FLAG_FIN != 0, length }))
    }

    /// At least one and at most `limit` bytes of the payload that is being read. [`FrameReader::consume`] takes them.
    pub async fn payload(&mut self, limit: usize) -> Result<&[u8], FrameError> {
        let available = self.io.fill_buf().await?;
        if available.is_empty() {
            return Err(FrameError::Read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(&available[..available.len().min(limit)])
    }

    /// Takes `amount` bytes that [`FrameReader::payload`] showed.
    pub fn consume(&mut self, amount: usize) {
        self.io.consume(amount);
    }

    async fn control(&mut self, first: u32, flags: u8, length: usize) -> Result<Frame, FrameError> {
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | PING | SETTINGS => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            unknown => return Err(FrameError::UnknownType(unknown)),
        };
        if length > MAX_CONTROL_PAYLOAD {
            return Err(FrameError::ControlTooLarge(length));
        }
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await?;
        let (head, block) = payload.split_at_checked(fixed).ok_or(FrameError::Truncated(kind))?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let fin = flags & FLAG_FIN != 0;
        Ok(match kind {
            SYN_STREAM => {
                let headers = self.headers(block)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream(SynStream { id: stream_id(word(0))?, fin, unidirectional, headers })
            }
            SYN_REPLY => {
                self.headers(block)?;
                Frame::SynReply { id: stream_id(word(0))?, fin }
            }
            HEADERS => {
                self.headers(block)?;
                Frame::Headers { id: stream_id(word(0))?, fin }
            }
            RST_STREAM => Frame::RstStream { id: stream_id(word(0))?, status: word(4) },
            PING => Frame::Ping { id: word(0) },
            GOAWAY => Frame::GoAway,
            _ => Frame::Ignored,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        Headers::decode(&inflate(&mut self.inflate, block)?)
    }
}

fn stream_id(word: u32) -> Result<u32, FrameError> {
    match word & ID_MASK {
        0 => Err(FrameError::ZeroStream),
        id => Ok(id),
    }
}

fn inflate(zlib: &mut Decompress, mut block: &[u8]) -> Result<Vec<u8>, FrameError> {
    let failed = |error: flate2::DecompressError| FrameError::Inflate(error.to_string());
    let mut out = Vec::with_capacity(1 << 10);
    loop {
        let (taken, made) = (zlib.total_in(), zlib.total_out());
        let result = zlib.decompress_vec(block, &mut out, FlushDecompress::Sync);
        block = &block[(zlib.total_in() - taken) as usize..];
        match result {
            // Only the first block of a connection asks for the dictionary.
            Err(error) if error.needs_dictionary().is_some() => {
                zlib.set_dictionary(DICTIONARY).map_err(failed)?;
                continue;
            }
            Err(error) => return Err(failed(error)),
            Ok(Status::StreamEnd) if !block.is_empty() => {
                return Err(FrameError::Inflate("the zlib stream has ended".to_owned()));
            }
            Ok(_) => {}
        }
        let room = out.len() < out.capacity();
        if block.is_empty() && room {
            return Ok(out);
        }
        if room && zlib.total_in() == taken && zlib.total_out() == made {
            return Err(FrameError::Inflate("no progress".to_owned()));
        }
        if out.len() >= MAX_HEADER_BLOCK {
            return Err(FrameError::HeadersTooLarge);
        }
        out.reserve(out.len().max(1 << 10).min(MAX_HEADER_BLOCK + 1 - out.len()));
    }
}

/// The writing half of the framing: encodes frames into a buffer, with the zlib context of the headers we send.
pub struct FrameEncoder {
    deflate: Compress,
}

impl FrameEncoder {
    pub fn new() -> Self {
        let mut deflate = Compress::new(Compression::best(), true);
        // Setting a dictionary on a fresh context cannot fail, and if it did the peer would refuse the first header.
        let _ = deflate.set_dictionary(DICTIONARY);
        FrameEncoder { deflate }
    }

    pub fn syn_stream(&mut self, out: &mut BytesMut, id: u32, headers: &Headers) {
        let block = self.deflate(&headers.encode());
        control_head(out, SYN_STREAM, 10 + block.len());
        out.put_u32(id);
        // No associated stream, the highest priority, no credential slot.
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&block);
    }

    pub fn syn_reply(&mut self, out: &mut BytesMut, id: u32) {
        let block = self.deflate(&Headers::default().encode());
        control_head(out, SYN_REPLY, 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
    }

    fn deflate(&mut self, mut plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plain.len() + 64);
        loop {
            let taken = self.deflate.total_in();
            // A sync flush ends the block on a byte boundary, and the context lives on for the next one. The only
            // failure that zlib knows here is a call without room for output, after which there is more room.
            let _ = self.deflate.compress_vec(plain, &mut out, FlushCompress::Sync);
            plain = &plain[(self.deflate.total_in() - taken) as usize..];
            if plain.is_empty() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(256);
        }
    }
}

pub fn rst_stream(out: &mut BytesMut, id: u32, status: ResetStatus) {
    control_head(out, RST_STREAM, 8);
    out.put_u32(id);
    out.put_u32(status as u32);
}

pub fn ping(out: &mut BytesMut, id: u32) {
    control_head(out, PING, 4);
    out.put_u32(id);
}

/// The frame that announces the orderly end of a connection.
pub fn go_away(out: &mut BytesMut, last_good_stream: u32) {
    control_head(out, GOAWAY, 8);
    out.put_u32(last_good_stream);
    out.put_u32(0);
}

pub fn data(out: &mut BytesMut, id: u32, payload: &[u8], fin: bool) {
    debug_assert!(payload.len() <= MAX_DATA_LENGTH);
    out.put_u32(id);
    out.put_u32(u32::from(if fin { FLAG_FIN } else { 0 }) << 24 | payload.len() as u32);
    out.put_slice(payload);
}

fn control_head(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u32(CONTROL_BIT | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            if let Frame::Data { mut length, .. } = frame {
                while length > 0 {
                    let taken = reader.payload(length).await?.len();
                    reader.consume(taken);
                    length -= taken;
                }
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        control_head(&mut out, kind, payload.len());
        out[4] = flags;
        out.put_slice(payload);
        out.to_vec()
    }

    #[tokio::test]
    async fn what_is_encoded_is_parsed_again() {
        let mut encoder = FrameEncoder::new();
        let mut out = BytesMut::new();
        let headers = Headers::new([("streamType", "stdin"), ("port", "8080"), ("empty", "")]);
        let long = "x".repeat(40_000);
        let large = Headers::new([("long", long.as_str())]);
        encoder.syn_stream(&mut out, 1, &headers);
        encoder.syn_stream(&mut out, 3, &large);
        encoder.syn_reply(&mut out, 2);
        rst_stream(&mut out, 3, ResetStatus::Cancel);
        ping(&mut out, 7);
        data(&mut out, 1, b"hello", false);
        data(&mut out, 1, b"", true);
        go_away(&mut out, 1);
        let parsed = frames(&out).await.unwrap();
        assert_eq!(
            parsed,
            [
                Frame::SynStream(SynStream { id: 1, fin: false, unidirectional: false, headers: headers.clone() }),
                Frame::SynStream(SynStream { id: 3, fin: false, unidirectional: false, headers: large }),
                Frame::SynReply { id: 2, fin: false },
                Frame::RstStream { id: 3, status: 5 },
                Frame::Ping { id: 7 },
                Frame::Data { id: 1, fin: false, length: 5 },
                Frame::Data { id: 1, fin: true, length: 0 },
                Frame::GoAway,
            ]
        );
        assert_eq!(headers.get("streamtype"), Some("stdin"));
        assert_eq!(headers.get("absent"), None);
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let mut encoder = FrameEncoder::new();
        let mut out = BytesMut::new();
        encoder.syn_reply(&mut out, 1);
        // Behind the frame's head and the stream's number: zlib's two bytes with the FDICT bit, then the Adler-32 of
        // the dictionary, which every implementation of SPDY/3 shares.
        assert_eq!(out[13] & 0x20, 0x20);
        assert_eq!(out[14..18], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_never_a_panic() {
        async fn check(name: &str, bytes: &[u8], expect: &str) {
            let error = frames(bytes).await.expect_err(name);
            assert!(error.to_string().contains(expect), "{name}: {error}");
        }
        check("wrong version", &[0x80, 2, 0, 1, 0, 0, 0, 0], "version 2").await;
        check("unknown type", &control(77, 0, &[]), "type 77").await;
        check("oversize", &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "more than").await;
        check("short syn", &control(SYN_STREAM, 0, &[0; 9]), "too short").await;
        check("short rst", &control(RST_STREAM, 0, &[0; 4]), "too short").await;
        check("no deflate", &control(SYN_STREAM, 0, &[1; 40]), "inflate").await;
        check("data of stream 0", &[0, 0, 0, 0, 0, 0, 0, 0], "stream 0").await;
        check("truncated data", &[0, 0, 0, 1, 0, 0, 0, 9, 1], "read").await;
        check("truncated head", &[0x80, 3, 0], "read").await;
        check("http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "read").await;
    }

    #[tokio::test]
    async fn header_blocks_are_bounded_and_consistent() {
        async fn check(name: &str, block: &[u8], expect: &str) {
            let mut encoder = FrameEncoder::new();
            let mut payload = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            payload.extend(encoder.deflate(block));
            let error = frames(&control(SYN_STREAM, 0, &payload)).await.expect_err(name);
            assert!(error.to_string().contains(expect), "{name}: {error}");
        }
        check("bomb", &vec![0; 4 << 20], "inflates to more").await;
        check("count", &[0xff, 0xff, 0xff, 0xff], "malformed").await;
        check("name length", &[0, 0, 0, 1, 0x7f, 0, 0, 0, 1, 2, 3, 4], "malformed").await;
        check("value missing", &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0], "malformed").await;
        check("empty", &[], "malformed").await;
    }
}
