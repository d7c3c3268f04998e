//! The page's files, built into the binary: what stands in the table is served, and nothing else.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;

/// A file of the page.
struct Asset {
    /// Address without the leading slash.
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($content_type:ident: $($path:literal)*;)*) => {
        &[$($(Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../assets/", $path)),
        },)*)*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A test compares this with the folder.
const ASSETS: &[Asset] = assets! {
    HTML: "index.html";
    CSS: "conversation.css" "panels.css" "style.css";
    JS: "account.js" "admin.js" "announce.js" "api.js" "app.js" "auth.js" "chats.js" "composer.js" "conversation.js" "dom.js" "icons.js" "keyboard.js" "live.js" "look.js" "markdown.js" "markdown_inline.js" "memories.js" "messages.js" "overlays.js" "safety.js" "search.js" "settings.js" "state.js" "stream.js" "theme.js" "tree.js" "welcome.js";
    SVG: "favicon.svg";
};

/// Serves the page's files; everything else that no route took is not there.
pub(crate) async fn serve(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let known = ASSETS.iter().find(|asset| asset.path == path);
    match (known, request.method()) {
        (Some(asset), &Method::GET | &Method::HEAD) => asset.answer(request.headers()),
        _ => ApiError::not_found().into_response(),
    }
}

impl Asset {
    fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = self.tag();
        let fresh = asked
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|t| t.trim().trim_start_matches("W/") == tag);
        let mut response = if fresh {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.content_type)], self.bytes).into_response()
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        // Kept by the browser, asked for anew each time: a new binary is a new page at once.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// FNV-1a of the bytes: tells versions apart; secrecy and forgery do not matter here.
    fn tag(&self) -> String {
        let hash = self.bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("\"{hash:016x}\"")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Kinds of files that a browser loads; the rest of the folder belongs to the server.
    const SERVED: [&str; 8] = ["html", "css", "js", "svg", "png", "ico", "woff2", "webmanifest"];

    /// Of the page, for the README.
    const PICTURE: &str = "screenshot.png";

    fn files(dir: &Path, prefix: &str, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                files(&entry.path(), &format!("{name}/"), out);
            } else if name != PICTURE && SERVED.iter().any(|kind| name.ends_with(&format!(".{kind}"))) {
                out.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_in_the_table() {
        let mut there = BTreeSet::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"), "", &mut there);
        let table: BTreeSet<String> = ASSETS.iter().map(|a| a.path.to_owned()).collect();
        assert_eq!(table, there);
    }
}
