//! Parsing at the edge: bodies, queries, path ids, and who is asking. Below this file everything is typed and valid.
//!
//! Each extractor refuses in one way, with a code of `error`; none of them knows a route.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use crate::domain::{ChatId, Invalid, MessageId};

/// Most bodies are a few fields; an avatar of 64 KiB is the largest of them.
pub(crate) const MAX_BODY_BYTES: usize = 128 << 10;
/// Sign-in and its kin: two addresses, two passwords. Small, because it is read before anybody is known.
pub(crate) const MAX_AUTH_BODY_BYTES: usize = 4 << 10;
/// A message of the longest allowed text, every character escaped as `\n`.
pub(crate) const MAX_MESSAGE_BODY_BYTES: usize = 2 << 20;
/// A body may stand still this long.
const BODY_STALL: Duration = Duration::from_secs(15);
/// And after that grace must have come at least this fast on average.
const MIN_BODY_BYTES_PER_SECOND: usize = 1 << 10;

/// A JSON body of at most `LIMIT` bytes.
pub(crate) struct Json<T, const LIMIT: usize = MAX_BODY_BYTES>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_body(request.into_body(), LIMIT).await?;
        parse_json(&bytes).map(Self)
    }
}

/// No body, or an empty JSON object: for requests that say everything in their path.
pub(crate) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}

        let bytes = read_body(request.into_body(), MAX_AUTH_BODY_BYTES).await?;
        if !bytes.is_empty() {
            parse_json::<Empty>(&bytes)?;
        }
        Ok(Self)
    }
}

/// Reads a whole body that neither exceeds `limit` nor dawdles.
pub(crate) async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    use hyper::body::Body as _;
    let too_large = || {
        let message = format!("The body is larger than {limit} bytes.");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let started = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let earned = Duration::from_secs((bytes.len() / MIN_BODY_BYTES_PER_SECOND) as u64);
        let deadline = (Instant::now() + BODY_STALL).min(started + BODY_STALL + earned);
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "The body came too slowly.")
        })?;
        match frame {
            None => return Ok(bytes.into()),
            Some(Err(_)) => {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "broken_body", "The body broke off."));
            }
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// Parses JSON; a refusal names the field and never repeats more than the parser's own sentence.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bad = |why: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", why);
    let text = std::str::from_utf8(bytes)
        .map_err(|e| bad(format!("The body is not UTF-8: byte {} is wrong.", e.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let cause = e.into_inner();
        match cause.classify() {
            Category::Data if path == "." => ApiError::invalid("body", &cause.to_string()),
            Category::Data => ApiError::invalid(&path, &cause.to_string()),
            Category::Io | Category::Syntax | Category::Eof => bad(format!("The body is not JSON: {cause}.")),
        }
    })?;
    reader.end().map_err(|e| bad(format!("The body is not one JSON value: {e}.")))?;
    Ok(value)
}

/// The query of a request; parameters that `T` does not have are refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|e| ApiError::invalid("query", &e.body_text()))
    }
}

/// The one id in a path. One that does not parse is answered like one that is not there.
pub(crate) struct Id<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(raw) = raw.map_err(|_| ApiError::not_found())?;
        raw.parse().map(Self).map_err(|_| ApiError::not_found())
    }
}

/// The chat and the message in a path.
pub(crate) struct MessagePath(pub(crate) ChatId, pub(crate) MessageId);

impl<S: Send + Sync> FromRequestParts<S> for MessagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path((chat, message)) = raw.map_err(|_| ApiError::not_found())?;
        match (chat.parse(), message.parse()) {
            (Ok(chat), Ok(message)) => Ok(Self(chat, message)),
            _ => Err(ApiError::not_found()),
        }
    }
}

/// An id in a body, under the name it has there.
pub(crate) fn body_id<T: FromStr<Err = Invalid>>(
    field: &'static str,
    raw: Option<&str>,
) -> Result<Option<T>, ApiError> {
    raw.map(|s| s.parse::<T>().map_err(|e| ApiError::invalid(field, &e.problem))).transpose()
}

/// A page size: absent gives `default`; outside 1 to `max` is refused.
pub(crate) fn page_limit(limit: Option<usize>, default: usize, max: usize) -> Result<usize, ApiError> {
    match limit.unwrap_or(default) {
        n if (1..=max).contains(&n) => Ok(n),
        n => Err(ApiError::invalid("limit", &format!("is {n}; must be from 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        title: String,
        count: Option<u32>,
    }

    fn refusal(raw: &[u8]) -> (u16, String) {
        let e = parse_json::<Sample>(raw).unwrap_err();
        (e.status.as_u16(), e.message)
    }

    #[test]
    fn refusals_name_the_field() {
        assert!(parse_json::<Sample>(b"{\"title\":\"x\"}").is_ok());
        let (status, message) = refusal(b"{\"title\":1}");
        assert_eq!((status, message.contains("title")), (422, true), "{message}");
        let (status, message) = refusal(b"{\"title\":\"x\",\"role\":\"system\"}");
        assert_eq!((status, message.contains("role")), (422, true), "{message}");
        for number in ["-1", "4294967296", "9007199254740993", "1.5", "\"1\"", "[]", "{}"] {
            let (status, message) = refusal(format!("{{\"title\":\"x\",\"count\":{number}}}").as_bytes());
            assert_eq!((status, message.contains("count")), (422, true), "{number}: {message}");
        }
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        let deep = "[".repeat(10_000);
        let deep = format!("{{\"title\":{deep}");
        let broken: [&[u8]; 7] = [
            b"",
            b"{",
            b"{\"title\":\"\xff\"}",
            b"{\"title\":\"x\"} x",
            b"NaN",
            b"{\"title\":1e999}",
            b"\xef\xbb\xbf{}",
        ];
        for raw in broken.into_iter().chain([deep.as_bytes()]) {
            let (status, message) = refusal(raw);
            assert!(matches!(status, 400 | 422), "{message}");
        }
        assert_eq!(refusal(b"{\"title\":\"\xff\"}").0, 400);
        assert_eq!(refusal(b"{\"title\":\"a\",\"title\":\"b\"}").0, 422);
    }
}
