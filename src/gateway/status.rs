//! The page on the operator's listener that shows at a glance whether the broker is well.
//!
//! It draws what `/metrics` and `/readyz` say; its files are in `web/status` and part of the program.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, web};

/// Only what comes from this listener: no script or style within the page, nothing from elsewhere, in nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/status/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../web/status/style.css")),
    ("/script.js", "text/javascript; charset=utf-8", include_str!("../../web/status/script.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../../web/status/icon.svg")),
];

/// Mounts the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    for (path, media_type, content) in FILES {
        routes.route(path, web::get().to(move || std::future::ready(file(media_type, content))));
    }
}

fn file(media_type: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(media_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}
