//! The route table, twice from one list: as a router, and as `/api/openapi.json`.
//!
//! A route is added with its description and its handler together, so neither can exist without the other.

use std::sync::LazyLock;

use axum::Router;
use axum::handler::Handler;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use utoipa::openapi::path::{HttpMethod, PathItem, Paths};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
    Schema,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::App;
use super::error::{ErrorBody, ErrorDetail};

/// Routes being collected.
pub(crate) struct Routes {
    router: Router<App>,
    paths: Paths,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let schemas = vec![
            (ErrorBody::name().into_owned(), ErrorBody::schema()),
            (ErrorDetail::name().into_owned(), ErrorDetail::schema()),
        ];
        Self { router: Router::new(), paths: Paths::new(), schemas }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "handlers are functions, and routes read best without `&`"
    )]
    /// Adds the handler under the path and method of its description `P`.
    pub(crate) fn add<P, H, T>(mut self, handler: H) -> Self
    where
        P: utoipa::Path + utoipa::__dev::SchemaReferences,
        H: Handler<T, App>,
        T: 'static,
    {
        let path = P::path();
        let mut operation = P::operation();
        // Every refusal of every route has this one shape.
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let refusal = ResponseBuilder::new()
            .description("A refusal: a stable code and one sentence")
            .content("application/json", body)
            .build();
        operation.responses.responses.insert("default".into(), refusal.into());
        for method in P::methods() {
            self.router = self.router.route(&path, on(filter(&method), handler.clone()));
            let item = PathItem::new(method, operation.clone());
            match self.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => drop(self.paths.paths.insert(path.clone(), item)),
            }
        }
        P::schemas(&mut self.schemas);
        self
    }

    pub(crate) fn into_router(self) -> Router<App> {
        self.router
    }

    fn into_document(self) -> OpenApi {
        let cookie = ApiKey::Cookie(ApiKeyValue::with_description(
            "mommygpt_session",
            "Set by sign-in; `__Host-mommygpt_session` under TLS. Programs send the token as a bearer instead.",
        ));
        let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = ComponentsBuilder::new()
            .schemas_from_iter(self.schemas)
            .security_scheme("session", SecurityScheme::ApiKey(cookie))
            .security_scheme("session_token", bearer())
            .security_scheme("api_key", bearer())
            .build();
        let info = InfoBuilder::new()
            .title("MommyGPT")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some("Errors: 401 no or dead session, 403 forbidden or cross-site, 404 not yours or not \
                there, 409 conflict, 413 too large, 415 not JSON, 422 invalid field, 429 and 503 with Retry-After."))
            .build();
        OpenApiBuilder::new()
            .info(info)
            .paths(self.paths)
            .components(Some(components))
            .security(Some([
                SecurityRequirement::new::<_, [&str; 0], &str>("session", []),
                SecurityRequirement::new::<_, [&str; 0], &str>("session_token", []),
            ]))
            .build()
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Patch => MethodFilter::PATCH,
        // The attribute of a handler knows more words than this house uses.
        _ => unreachable!("routes use GET, POST, PUT, PATCH and DELETE"),
    }
}

/// Written once; it is the same for everybody.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    super::routes().into_document().to_json().unwrap_or_else(|cause| {
        tracing::error!(%cause, "cannot write the API description");
        "{}".to_owned()
    })
});

/// This table.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}
