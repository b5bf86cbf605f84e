//! Carries what a connection says once it asks for a WebSocket, in place of the HTTP layer.
//!
//! The HTTP layer keeps two buffers of 8 KiB for each connection as long as it lives, and copies into one of them all that
//! leaves. So from the request on that asks for an upgrade the socket is [`Upgrades`]' own: the same application answers it,
//! with a payload that reads the socket and a body whose chunks are written as they are. A connection at rest holds no
//! buffer. Floor 5; it knows sockets and bodies, and nothing of frames.
//!
//! Invariants:
//! 1. While a chunk is not written the body is not polled, so neither is the payload, which the body reads.
//! 2. At most one chunk of the body is held.
//! 3. What was kept for the connection when it was accepted is dropped after its socket.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_codec::{AsyncRead, AsyncWrite, Encoder as _, Framed, FramedParts, ReadBuf};
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::h1::{Codec, Message};
use actix_http::{BoxedPayloadStream, Payload, Request, Response, StatusCode};
use actix_service::boxed::{BoxService, BoxServiceFactory};
use actix_service::{Service, ServiceFactory};
use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use futures_core::future::LocalBoxFuture;

use super::kill::Kept;

/// The most that is read at once, in bytes.
const READ_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    /// Where all connections of a thread read into; what was read is copied out at once.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// What answers all requests of a listener.
pub(super) type Application = BoxServiceFactory<(), Request, Response<BoxBody>, Response<BoxBody>, ()>;

/// Answers requests that ask for an upgrade by an application, and carries their connections from then on.
pub(super) struct Upgrades<S>(pub(super) S);

impl<T> ServiceFactory<(Request, Framed<T, Codec>)> for Upgrades<Application>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Response = ();
    type Error = actix_web::Error;
    type Config = ();
    type Service = Upgrades<BoxService<Request, Response<BoxBody>, Response<BoxBody>>>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let service = self.0.new_service(());
        Box::pin(async move { Ok(Upgrades(service.await?)) })
    }
}

impl<T> Service<(Request, Framed<T, Codec>)> for Upgrades<BoxService<Request, Response<BoxBody>, Response<BoxBody>>>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Response = ();
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<(), actix_web::Error>>;

    /// What fails here fails when it is called, and is answered then.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&self, (request, framed): (Request, Framed<T, Codec>)) -> Self::Future {
        let FramedParts { io, codec, read_buf, write_buf, .. } = framed.into_parts();
        let kept = request.conn_data::<Kept>().cloned();
        let socket = Rc::new(RefCell::new(io));
        let reading = Reading { socket: Rc::clone(&socket), already: Bytes::copy_from_slice(&read_buf) };
        let payload: BoxedPayloadStream = Box::pin(reading);
        let (request, _) = request.replace_payload(Payload::Stream { payload });
        let answer = self.0.call(request);
        Box::pin(async move {
            // Boxed, for the long rest of the connection's life needs no room for it.
            let carrier = Box::pin(async move {
                let (Ok(response) | Err(response)) = answer.await;
                Carrier::new(socket, codec, write_buf, response, kept)
            });
            if let Ok(carrier) = carrier.await {
                // What goes wrong with a socket from here on is told by its body, when it is dropped.
                let _ = carrier.await;
            }
            Ok(())
        })
    }
}

/// The payload of a request whose socket is read directly.
struct Reading<T> {
    socket: Rc<RefCell<T>>,
    /// What the HTTP layer had read behind the request.
    already: Bytes,
}

impl<T: AsyncRead + Unpin> Stream for Reading<T> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.already.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut this.already))));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() => Poll::Ready(None),
                Ok(()) => Poll::Ready(Some(Ok(Bytes::copy_from_slice(read.filled())))),
                Err(error) => Poll::Ready(Some(Err(error.into()))),
            }
        })
    }
}

/// Writes an answer, and ends with it.
struct Carrier<T> {
    /// None once it has ended, so that it is gone before the socket is shut.
    body: Option<BoxBody>,
    /// Frames a body that is no upgraded connection.
    codec: Option<Box<Codec>>,
    chunk: Bytes,
    is_flushed: bool,
    socket: Rc<RefCell<T>>,
    /// Dropped last, for it tells that the socket is gone.
    _kept: Option<Kept>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier<T> {
    fn new(
        socket: Rc<RefCell<T>>,
        mut codec: Codec,
        mut head: BytesMut,
        response: Response<BoxBody>,
        kept: Option<Kept>,
    ) -> io::Result<Self> {
        let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (response, body) = response.into_parts();
        let size = body.size();
        codec.encode(Message::Item((response, size)), &mut head)?;
        let body = (!matches!(size, BodySize::None | BodySize::Sized(0))).then_some(body);
        let codec = (!is_upgraded).then(|| Box::new(codec));
        // Copied, for the buffer is the HTTP layer's and much larger.
        let chunk = Bytes::copy_from_slice(&head);
        Ok(Self { body, codec, chunk, is_flushed: true, socket, _kept: kept })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.chunk.is_empty() {
            let written = ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, &self.chunk))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.chunk.advance(written);
            self.is_flushed = false;
        }
        // Its memory may be shared by many, or large.
        self.chunk = Bytes::new();
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// A chunk as it goes out.
    fn framed(&mut self, chunk: Option<Bytes>) -> io::Result<Bytes> {
        let Some(codec) = &mut self.codec else { return Ok(chunk.unwrap_or_default()) };
        let mut framed = BytesMut::new();
        codec.encode(Message::Chunk(chunk), &mut framed)?;
        Ok(framed.freeze())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Carrier<T> {
    type Output = Result<(), Box<dyn Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_write(cx))?;
            let Some(body) = &mut this.body else { break };
            let chunk = match Pin::new(body).poll_next(cx)? {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => {
                    ready!(this.poll_flush(cx))?;
                    return Poll::Pending;
                }
            };
            if chunk.is_none() {
                this.body = None;
            }
            this.chunk = this.framed(chunk)?;
        }
        ready!(this.poll_flush(cx))?;
        Pin::new(&mut *this.socket.borrow_mut()).poll_shutdown(cx).map_err(Into::into)
    }
}
