//! Applies the faults of one request, in the order of an exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::action::{Action, Location, Point, Reply};
use super::body::{self, Cut, End};

/// What faults need to know about an exchange.
#[derive(Debug)]
pub(crate) struct FaultContext {
    /// The name by which the client addresses this server.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) target: String,
    /// Notified whenever all written bytes have been sent.
    pub(crate) flushed: Arc<Notify>,
    /// Cancelled at shutdown, which ends every stall.
    pub(crate) closing: CancellationToken,
}

/// The faults of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestFaults {
    actions: Vec<Action>,
    /// Set when the connection is cut while the request body is read.
    cut: Arc<AtomicBool>,
}

/// Faults, those that the handler of the request implements among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quirks(Vec<Action>);

impl Quirks {
    pub(crate) fn has(&self, action: &Action) -> bool {
        self.0.contains(action)
    }

    /// Returns how many of the last received bytes of an upload are lost.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.0.iter().map(|action| if let Action::LoseBytes(bytes) = action { *bytes } else { 0 }).sum()
    }
}

impl RequestFaults {
    pub(crate) fn new(actions: Vec<Action>) -> RequestFaults {
        RequestFaults { actions, cut: Arc::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    pub(crate) fn quirks(&self) -> Quirks {
        Quirks(self.actions.clone())
    }

    /// Applies the faults before a request is processed. Returns a response that replaces processing, if there is one.
    pub(crate) async fn before(&self, context: &FaultContext) -> Result<Option<Response>, Cut> {
        for action in &self.actions {
            if let Action::Delay(time) = action {
                tokio::time::sleep(*time).await;
            }
        }
        self.reach(Point::Request, context).await?;
        Ok(self.actions.iter().find_map(|action| match action {
            Action::Answer(reply) => Some(answer(reply)),
            Action::Redirect(to) => {
                let to = to.replace("{path}", &context.target);
                Some(answer(&Reply { headers: vec![("location".to_owned(), to)], ..Reply::status(307) }))
            }
            _ => None,
        }))
    }

    /// Returns the request body with faults.
    pub(crate) fn request_body(&self, mut request: Body, context: &FaultContext) -> Body {
        for action in &self.actions {
            request = match action {
                Action::Cut(Point::RequestBody(after)) => {
                    body::broken(request, *after, End::CutRequest(self.cut.clone()))
                }
                Action::Stall(Point::RequestBody(after)) => {
                    body::broken(request, *after, End::Stall(context.closing.clone(), Some(self.cut.clone())))
                }
                _ => request,
            };
        }
        request
    }

    /// Applies the faults to a response.
    pub(crate) async fn after(&self, mut response: Response, context: &FaultContext) -> Result<Response, Cut> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(Cut);
        }
        self.reach(Point::Answer, context).await?;
        for action in &self.actions {
            response = change(response, action, context);
        }
        Ok(response)
    }

    async fn reach(&self, point: Point, context: &FaultContext) -> Result<(), Cut> {
        for action in &self.actions {
            match action {
                Action::Cut(at) if *at == point => return Err(Cut),
                Action::Stall(at) if *at == point => {
                    context.closing.cancelled().await;
                    return Err(Cut);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn answer(reply: &Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body.clone()));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn change(mut response: Response, action: &Action, context: &FaultContext) -> Response {
    match action {
        Action::Status(status) => {
            if let Ok(status) = StatusCode::from_u16(*status) {
                *response.status_mut() = status;
            }
        }
        Action::Header(name, value) => {
            if let Ok(name) = name.parse::<HeaderName>() {
                response.headers_mut().remove(&name);
                if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
                    response.headers_mut().insert(name, value);
                }
            }
        }
        Action::Location(form) => change_location(&mut response, form, context),
        Action::ContentLength(more) => change_length(&mut response, *more, context),
        Action::Corrupt(offset) => return response.map(|body| body::corrupt(body, *offset)),
        Action::Drip(rate) => return response.map(|body| body::slow(body, *rate)),
        Action::Cut(Point::AnswerBody(after)) => {
            return response.map(|body| body::broken(body, *after, End::Cut(context.flushed.clone())));
        }
        Action::Stall(Point::AnswerBody(after)) => {
            return response.map(|body| body::broken(body, *after, End::Stall(context.closing.clone(), None)));
        }
        _ => {}
    }
    response
}

fn change_location(response: &mut Response, form: &Location, context: &FaultContext) {
    let Some(path) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let changed = match form {
        Location::Absolute => Some(format!("http://{}{path}", context.host)),
        Location::Elsewhere(base) => Some(format!("{base}{path}")),
        Location::WithQuery => return, // The query is there already: uploads::location.
        Location::Missing => None,
    };
    response.headers_mut().remove(LOCATION);
    if let Some(value) = changed.and_then(|location| location.parse().ok()) {
        response.headers_mut().insert(LOCATION, value);
    }
}

/// Sends a body without a known length, so that hyper relies on the header: it sends no more than announced, and closes
/// the connection after a shorter body.
fn change_length(response: &mut Response, more: i64, context: &FaultContext) {
    let exact = axum::body::HttpBody::size_hint(response.body()).exact();
    let stated = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(length) = stated.or(exact) {
        let length = length.saturating_add_signed(more);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = body::of_unknown_length(body, context.flushed.clone());
    }
}
