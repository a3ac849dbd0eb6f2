//! The page that asks for the token.

use super::{answer, bare};
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

/// `GET /login`.
pub(crate) async fn page() -> Response {
    form(StatusCode::OK, None)
}

/// The same after a wrong token.
pub(crate) fn wrong(why: &str) -> Response {
    form(StatusCode::UNAUTHORIZED, Some(why))
}

fn form(status: StatusCode, why: Option<&str>) -> Response {
    let body = html! {
        @if let Some(why) = why { p.notice.wrong id="why" role="alert" { (why) } }
        form.login method="post" action="/login" {
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                aria-describedby=[why.map(|_| "why")];
            button.primary type="submit" { "Log in" }
        }
        p.muted { "It is what the dashboard was started with: IMGQ_DASHBOARD_TOKEN." }
    };
    answer(status, bare("Log in", body))
}
