//! `/v1/embeddings`: vectors of texts in OpenAI's shape.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{MAX_MESSAGE_BODY_BYTES, parse_json, read_body};
use super::openai::check_model;
use super::openai_answer::OpenAiError;
use super::who::Caller;

/// Most texts of a request: each is evaluated on its own.
const MAX_TEXTS: usize = 256;

/// Texts of which vectors are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// The loaded model's id, or absent.
    model: Option<String>,
    /// A text, or a list of at most 256.
    #[schema(value_type = Value)]
    input: Input,
    /// `float` or `base64`.
    encoding_format: Option<String>,
    /// Only the model's own number.
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Several(Vec<String>),
}

/// Vectors of texts.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", security(("session" = []), ("api_key" = [])),
    request_body = EmbeddingRequest, responses((status = 200, body = Value)))]
pub(crate) async fn embeddings(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Json<Value>, OpenAiError> {
    caller?.refuse_child("use the programs' interface")?;
    let bytes = read_body(request.into_body(), MAX_MESSAGE_BODY_BYTES).await?;
    let asked: EmbeddingRequest = parse_json(&bytes)?;
    check_model(&app, asked.model.as_deref())?;
    let as_base64 = match asked.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::invalid("encoding_format", "must be float or base64").into()),
    };
    let texts = match asked.input {
        Input::One(text) => vec![text],
        Input::Several(texts) => texts,
    };
    if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(String::is_empty) {
        return Err(ApiError::invalid("input", &format!("must be 1 to {MAX_TEXTS} texts, none empty")).into());
    }
    let made = app.chat().embed(texts).await?;
    let n = made.vectors.first().map_or(0, Vec::len);
    if asked.dimensions.is_some_and(|wanted| wanted != n) {
        return Err(ApiError::invalid("dimensions", &format!("must be {n}, the model's own")).into());
    }
    let data: Vec<Value> = made
        .vectors
        .iter()
        .enumerate()
        .map(|(i, vector)| {
            let embedding = if as_base64 { json!(base64(vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": i, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": made.n_tokens, "total_tokens": made.n_tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": made.model.name, "usage": usage})))
}

/// The numbers' bytes, lowest first, in the alphabet of RFC 4648.
fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0_u32, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]);
            out.push(if i <= three.len() { letter } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_clients_read_them() {
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64(&[0.0, 0.0, 0.0]), "AAAAAAAAAAAAAAAA");
    }
}
