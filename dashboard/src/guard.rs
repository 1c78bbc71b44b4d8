//! Who may look: everybody on this machine, or whoever has the token. Called by the server for each request; knows neither pages nor clusters.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, ORIGIN, REFERRER_POLICY,
    SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const COOKIE_NAME: &str = "transload_token";
/// Nothing from elsewhere, and no script but our own file.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Who may look.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    token: Option<Arc<str>>,
}

impl Guard {
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self {
            token: token.map(Into::into),
        }
    }

    /// Why this request is refused, if it is.
    fn refusal(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Option<(StatusCode, &'static str)> {
        let host = text(headers, HOST.as_str()).unwrap_or_default();
        // A page of another site may open a WebSocket to anywhere; its browser says where it is from.
        let origin = text(headers, ORIGIN.as_str());
        if origin.is_some_and(|it| it.split_once("://").is_none_or(|(_, from)| from != host)) {
            return Some((
                StatusCode::FORBIDDEN,
                "this comes from a page of another site\n",
            ));
        }
        let Some(token) = &self.token else {
            // A name that somebody else has made stand for this machine is none of ours.
            let is_ours = is_of_this_machine(host);
            let why =
                "without a token the dashboard is for this machine alone; call it localhost\n";
            return (!is_ours).then_some((StatusCode::FORBIDDEN, why));
        };
        let shown = shown(headers).or_else(|| in_query(query));
        let why = "the dashboard wants its token: ?token=TOKEN behind its address, or the header `Authorization: Bearer TOKEN`\n";
        let is_right = shown.is_some_and(|shown| are_equal(shown, token));
        (!is_right).then_some((StatusCode::UNAUTHORIZED, why))
    }
}

/// Lets pass who may look, and makes answers safe.
pub(crate) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let query = request.uri().query().map(str::to_owned);
    let refusal = guard.refusal(request.headers(), query.as_deref());
    let mut response = match refusal {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    let is_refused = refusal.is_some();
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-store");
    // From here on the browser shows it, and the address need not be kept.
    if let (Some(token), false, Some(_)) = (&guard.token, is_refused, in_query(query.as_deref())) {
        let cookie = format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.insert(SET_COOKIE, cookie);
        }
    }
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, AUTHORIZATION.as_str()).and_then(|it| it.strip_prefix("Bearer "));
    bearer.or_else(|| {
        let cookies = text(headers, COOKIE.as_str())?.split(';');
        let mut ours =
            cookies.filter_map(|it| it.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
        ours.next()
    })
}

fn in_query(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|it| it.strip_prefix("token="))
}

/// Takes as long for a wrong token as for a nearly right one.
fn are_equal(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes());
    let differences = differences.fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && differences == 0
}

/// Whether a `Host` is one by which this machine calls itself.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|it: IpAddr| it.is_loopback())
}

/// Whether a token can be sent in a header, an address and a cookie as it is.
pub(crate) fn is_sendable(token: &str) -> bool {
    token.len() >= 8
        && token
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"-_.~".contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let all = all.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        all.collect()
    }

    fn status(
        token: Option<&str>,
        all: &[(&'static str, &'static str)],
        query: Option<&str>,
    ) -> Option<u16> {
        let refusal = Guard::new(token).refusal(&headers(all), query);
        refusal.map(|(status, _)| status.as_u16())
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        for host in [
            "localhost:8787",
            "LOCALHOST",
            "127.0.0.1:8787",
            "127.0.0.9",
            "[::1]:8787",
            "[::1]",
        ] {
            assert_eq!(status(None, &[("host", host)], None), None, "{host}");
        }
        for host in [
            "example.org",
            "example.org:8787",
            "10.0.0.1:8787",
            "localhost.example.org",
            "",
            "[",
        ] {
            assert_eq!(status(None, &[("host", host)], None), Some(403), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let host = ("host", "localhost:8787");
        let ours = [host, ("origin", "http://localhost:8787")];
        assert_eq!(status(None, &ours, None), None);
        for origin in ["http://example.org", "null", "http://localhost:1"] {
            let origin: &'static str = origin;
            assert_eq!(
                status(None, &[host, ("origin", origin)], None),
                Some(403),
                "{origin}"
            );
        }
    }

    #[test]
    fn with_a_token_it_has_to_be_shown_in_one_of_three_ways() {
        let token = Some("correct-horse");
        let host = ("host", "10.0.0.1:8787");
        assert_eq!(status(token, &[host], None), Some(401));
        assert_eq!(
            status(token, &[host], Some("token=wrong-horses")),
            Some(401)
        );
        assert_eq!(
            status(token, &[host], Some("a=b&token=correct-horse")),
            None
        );
        assert_eq!(
            status(
                token,
                &[host, ("authorization", "Bearer correct-horse")],
                None
            ),
            None
        );
        assert_eq!(
            status(
                token,
                &[host, ("authorization", "Bearer correct-hors")],
                None
            ),
            Some(401)
        );
        let cookie = "a=b; transload_token=correct-horse";
        assert_eq!(status(token, &[host, ("cookie", cookie)], None), None);
    }

    #[test]
    fn tokens_are_what_a_header_and_an_address_can_have() {
        assert!(is_sendable("abcDEF12-_.~"));
        for bad in [
            "short",
            "with space",
            "semi;colon",
            "ünicode-token",
            "new\nlines",
        ] {
            assert!(!is_sendable(bad), "{bad}");
        }
    }
}
