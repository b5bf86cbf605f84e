//! Makes the few HTTP requests with which accounts and sessions begin. JSON only (RFC 9110, RFC 8259).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connector::{Connector, Endpoint, NetworkError};
use crate::client::error::ClientError;
use crate::protocol::account::HttpError;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Reads a resource.
pub(crate) async fn get<T: DeserializeOwned>(
    connector: &Connector,
    endpoint: &Endpoint,
    path: &str,
    timeout: Duration,
) -> Result<T, ClientError> {
    call(connector, endpoint, Method::GET, path, Bytes::new(), timeout).await
}

/// Sends a request body and reads the answer.
pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
    connector: &Connector,
    endpoint: &Endpoint,
    path: &str,
    body: &B,
    timeout: Duration,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).map_err(|error| ClientError::Profile(Box::new(error)))?;
    call(connector, endpoint, Method::POST, path, Bytes::from(body), timeout).await
}

async fn call<T: DeserializeOwned>(
    connector: &Connector,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<T, ClientError> {
    let exchange = exchange(connector, endpoint, method, path, body, timeout);
    let (status, answer) = tokio::time::timeout(timeout, exchange).await.map_err(|_| NetworkError::Timeout)??;
    let not_sealcast = NetworkError::NotSealcast { status };
    if (200..300).contains(&status) {
        return serde_json::from_slice(&answer).map_err(|_| ClientError::Network(not_sealcast));
    }
    match serde_json::from_slice::<HttpError>(&answer) {
        Ok(error) => Err(ClientError::Refused { code: error.code, message: error.message }),
        Err(_) => Err(ClientError::Network(not_sealcast)),
    }
}

async fn exchange(
    connector: &Connector,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<(u16, Bytes), NetworkError> {
    let stream = connector.connect(endpoint, timeout).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(NetworkError::Http)?;
    let request = Request::builder()
        .method(method)
        .uri(endpoint.path(path))
        .header(HOST, endpoint.authority())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|_| NetworkError::Address)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(NetworkError::Http)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| NetworkError::NotSealcast { status })?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end with the last byte of the answer still to be read.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(NetworkError::Http(error)),
        },
    }
}
