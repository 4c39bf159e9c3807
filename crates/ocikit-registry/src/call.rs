//! How requests to a registry are sent: with authentication, and repeated where that may help.

use bytes::Bytes;
use ocikit_http::header::HeaderMap;
use ocikit_http::{BodySource, Origin, Reply, Request, RequestError, Url};
use ocikit_image::{Error, Result};

use crate::auth::{Authentication, Authorization, Scopes};
use crate::problem::{self, Problem};
use crate::target::Target;

impl Target {
    fn authentication<'a>(&'a self, access: &'a Scopes) -> Authentication<'a> {
        let (host, http) = (self.inner.authenticator.host(&self.endpoint), &self.inner.http);
        let Target { endpoint, path, place, .. } = self;
        Authentication { keychain: &*self.inner.options.keychain, host, http, endpoint, path, place, scopes: access }
    }

    /// Sends a request, authenticates where the registry requires it, and retries. The answer can have any status
    /// except those that another attempt may change. A server that another server named gets no credentials.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] without an answer, [`Error::Denied`] without a credential that is accepted.
    pub(crate) async fn call(&self, access: &Scopes, mut request: Request) -> Result<Reply> {
        let unreachable = |error| problem::unreachable(error, &self.place);
        let http = &self.inner.http;
        if let Origin::Server(_) = request.origin {
            return http.send(&request).await.map_err(unreachable);
        }
        let (authentication, mut authorization) = (self.authentication(access), Authorization::default());
        loop {
            authorization = authentication.authorize().await?.after(&authorization);
            request.authorization = authorization.header.clone();
            let reply = http.send(&request).await.map_err(unreachable)?;
            if !authentication.learn(&mut authorization, &reply).await? {
                return Ok(reply);
            }
            reply.answer.drain().await;
        }
    }

    /// Sends a request and reads the whole answer; repeats both if the answer breaks off. The inner error is an answer
    /// with another status than 200.
    pub(crate) async fn fetch(
        &self,
        access: &Scopes,
        request: Request,
        max_bytes: u64,
    ) -> Result<Result<Fetched, Refusal>> {
        let mut failures = 0;
        loop {
            let reply = self.call(access, request.clone()).await?;
            let status = reply.answer.status;
            if status != 200 {
                return Ok(Err(Refusal { status, problem: Problem::of(reply).await }));
            }
            let (url, headers) = (reply.url, reply.answer.headers.clone());
            match reply.answer.read(max_bytes).await {
                Ok(body) => return Ok(Ok(Fetched { url, headers, body })),
                Err(RequestError::TooLong(_)) => {
                    let what = format!("the answer has more than {max_bytes} bytes");
                    return Err(Error::Unsupported { place: self.place.clone(), what });
                }
                Err(error) => {
                    failures += 1;
                    if error.is_final()
                        || !self.inner.http.back_off(&request.method, &request.url, failures, None).await
                    {
                        return Err(problem::unreachable(error, &self.place));
                    }
                }
            }
        }
    }

    /// Returns the error of an answer; `what` names the object that was requested.
    pub(crate) async fn error(&self, reply: Reply, what: &str) -> Error {
        problem::error(reply, what, &self.place).await
    }

    /// Sends a body, in one attempt. The answer may have any status. [`Streamed::Challenged`] means that a new token is
    /// available for the next request. A server that another server named gets no credentials.
    pub(crate) async fn stream(
        &self,
        access: &Scopes,
        mut request: Request,
        body: &dyn BodySource,
    ) -> Result<Streamed> {
        let authentication = self.authentication(access);
        let mut authorization = match request.origin {
            Origin::User(_) => Some(authentication.authorize().await?),
            Origin::Server(_) => None,
        };
        request.authorization = authorization.as_ref().and_then(|authorization| authorization.header.clone());
        let reply = match self.inner.http.stream(&request, body).await {
            Ok(reply) => reply,
            Err(error) => return Ok(Streamed::Broken(error)),
        };
        if let Some(authorization) = &mut authorization
            && authentication.learn(authorization, &reply).await?
        {
            return Ok(Streamed::Challenged);
        }
        Ok(Streamed::Answered(Box::new(reply)))
    }

    /// Adds to an error what is known about the credential: its origin, if access was denied; and that it is rejected,
    /// if the registry answers 404 instead of denying access.
    ///
    /// GitHub Packages answers 404 to a wrong password (containerd/containerd#3291).
    pub(crate) async fn explain_denial(&self, error: Error) -> Error {
        let access = self.access();
        let authentication = self.authentication(&access);
        let problem = match &error {
            Error::Denied { place, problem } if *place == self.place => problem.clone(),
            Error::NotFound { place, .. } | Error::Refused { place, status: 404, .. } if *place == self.place => {
                match authentication.rejection().await {
                    Some(problem) => format!("{problem}; it answers 404 to requests without a valid credential"),
                    None => return error,
                }
            }
            _ => return error,
        };
        let origin = authentication.origin().await;
        let problem = match origin.map(|origin| format!("; the credential is from {origin}")) {
            Some(origin) if !problem.ends_with(&origin) => format!("{problem}{origin}"),
            _ => problem,
        };
        Error::Denied { place: self.place.clone(), problem }
    }
}

/// A complete answer with status 200.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer with another status than 200.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) problem: Problem,
}

impl Refusal {
    pub(crate) fn error(self, what: &str, place: &str) -> Error {
        problem::error_of_status(self.status, self.problem, what, place)
    }
}

/// The outcome of one attempt to send a body.
#[derive(Debug)]
pub(crate) enum Streamed {
    Answered(Box<Reply>),
    Challenged,
    Broken(RequestError),
}
