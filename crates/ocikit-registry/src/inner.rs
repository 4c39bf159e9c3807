//! What all repositories of a client share, and how they send requests.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ocikit_http::header::HeaderMap;
use ocikit_http::{BodySource, HttpClient, HttpClientOptions, Origin, Reply, Request, RequestError, Url};
use ocikit_image::{Error, Result};
use ocikit_spec::{Registry, Repository};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::auth::{Access, Authenticator, Authorization};
use crate::client_cache::ClientCache;
use crate::endpoint::Endpoint;
use crate::hosts::{HostSettings, Scheme, Verify};
use crate::options::ClientOptions;
use crate::problem::{self, Problem};
use crate::target::Target;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) http: HttpClient,
    authenticator: Authenticator,
    pub(crate) cache: ClientCache,
    /// Held by the one blob that is downloaded in several ranges.
    pub(crate) parallel: Arc<Semaphore>,
    /// Number of downloads in progress.
    pub(crate) downloads: AtomicUsize,
    /// The upload sessions that are being cancelled because the future of their push was dropped.
    pub(crate) cancellations: Mutex<JoinSet<()>>,
}

impl Inner {
    pub(crate) fn new(options: ClientOptions) -> Inner {
        let http = HttpClient::new(
            HttpClientOptions::default()
                .user_agent(options.user_agent.clone())
                .proxies(options.proxies.clone())
                .retry(options.retry.clone())
                .timeouts(options.timeouts.clone())
                .requests_per_host(options.requests_per_host)
                .redirects(options.redirects)
                .others(Arc::new(options.hosts.clone()))
                .resolver(options.resolver.clone())
                .observer(options.observer.clone())
                .clock(options.clock.clone()),
        );
        let authenticator = Authenticator::new(options.keychain.clone());
        Inner {
            options,
            http,
            authenticator,
            cache: ClientCache::default(),
            parallel: Arc::new(Semaphore::new(1)),
            downloads: AtomicUsize::new(0),
            cancellations: Mutex::default(),
        }
    }

    /// Returns the endpoint of a registry, for requests that are for none of its repositories.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`] if `registries.conf` blocks the whole registry.
    pub(crate) fn registry(&self, registry: &Registry) -> Result<Endpoint> {
        self.options.hosts.registries.check(registry)?;
        self.endpoint(registry, false)
    }

    /// Returns the endpoint of a registry; `insecure` as defined by `registries.conf`. The caller has checked that
    /// `registries.conf` does not block what it requests.
    pub(crate) fn endpoint(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of(registry)?, insecure)
    }

    /// Returns the endpoint of a mirror, or of the `location` that replaces a registry in `registries.conf`.
    pub(crate) fn mirror(&self, registry: &Registry, insecure: bool) -> Result<Endpoint> {
        self.endpoint_with(registry, self.options.hosts.of_other(registry).map_err(problem::unusable)?, insecure)
    }

    fn endpoint_with(&self, registry: &Registry, mut settings: HostSettings, insecure: bool) -> Result<Endpoint> {
        if insecure && settings.scheme == Scheme::Https {
            settings.tls.verify = Verify::InsecureAllowHttp;
        }
        let is_tls_expected = self.options.hosts.is_tls_expected(registry);
        Ok(Endpoint { is_tls_expected, ..Endpoint::new(registry, settings)? })
    }

    /// Returns a repository at the registry that its name states.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`] if `registries.conf` blocks it.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Target> {
        self.options.hosts.registries.routes(repository)?;
        let endpoint = self.endpoint(repository.registry(), false)?;
        Ok(Target { endpoint, path: repository.path().to_owned(), place: repository.to_string() })
    }

    /// Sends a request, authenticates where the registry requires it, and retries. The answer can have any status
    /// except those that another attempt may change. A server that another server named gets no credentials.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] without an answer, [`Error::Denied`] without a credential that is accepted.
    pub(crate) async fn call(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        mut request: Request,
        place: &str,
    ) -> Result<Reply> {
        let mut authorization = Authorization::default();
        if let Origin::Server(_) = request.origin {
            return self.http.send(&request).await.map_err(|error| problem::unreachable(error, place));
        }
        loop {
            authorization = self.authorize(endpoint, access, place).await?.after(&authorization);
            request.authorization = authorization.header.clone();
            let outcome = self.http.send(&request).await;
            let reply = outcome.map_err(|error| problem::unreachable(error, place))?;
            if !self.learn(endpoint, access, &mut authorization, &reply, place).await? {
                return Ok(reply);
            }
            reply.answer.drain().await;
        }
    }

    /// Sends a request and reads the whole answer; repeats both if the answer breaks off. The inner error is an answer
    /// with another status than 200.
    pub(crate) async fn fetch(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        request: Request,
        max_bytes: u64,
        place: &str,
    ) -> Result<Result<Fetched, Refusal>> {
        let mut failures = 0;
        loop {
            let (method, asked) = (request.method.clone(), request.url.clone());
            let reply = self.call(endpoint, access, request.clone(), place).await?;
            let status = reply.answer.status;
            if status != 200 {
                return Ok(Err(Refusal { status, problem: Problem::of(reply).await }));
            }
            let (url, headers) = (reply.url, reply.answer.headers.clone());
            match reply.answer.read(max_bytes).await {
                Ok(body) => return Ok(Ok(Fetched { url, headers, body })),
                Err(RequestError::TooLong(_)) => {
                    let what = format!("the answer has more than {max_bytes} bytes");
                    return Err(Error::Unsupported { place: place.to_owned(), what });
                }
                Err(error) => {
                    failures += 1;
                    if error.is_final() || !self.http.back_off(&method, &asked, failures, None).await {
                        return Err(problem::unreachable(error, place));
                    }
                }
            }
        }
    }

    /// Sends a body, in one attempt. The answer may have any status. [`Streamed::Challenged`] means that a new token is
    /// available for the next request. A server that another server named gets no credentials.
    pub(crate) async fn stream(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        mut request: Request,
        body: &dyn BodySource,
        place: &str,
    ) -> Result<Streamed> {
        let mut authorization = match request.origin {
            Origin::User(_) => Some(self.authorize(endpoint, access, place).await?),
            Origin::Server(_) => None,
        };
        request.authorization = authorization.as_ref().and_then(|authorization| authorization.header.clone());
        let reply = match self.http.stream(&request, body).await {
            Ok(reply) => reply,
            Err(error) => return Ok(Streamed::Broken(error)),
        };
        if let Some(authorization) = &mut authorization
            && self.learn(endpoint, access, authorization, &reply, place).await?
        {
            return Ok(Streamed::Challenged);
        }
        Ok(Streamed::Answered(Box::new(reply)))
    }

    /// Adds to an error what is known about the credential: its origin, if access was denied; and that it is rejected,
    /// if the registry answers 404 instead of denying access.
    ///
    /// GitHub Packages answers 404 to a wrong password (containerd/containerd#3291).
    pub(crate) async fn explain_denial(&self, target: &Target, error: Error) -> Error {
        let (endpoint, access) = (&target.endpoint, target.access());
        let problem = match &error {
            Error::Denied { place, problem } if *place == target.place => problem.clone(),
            Error::NotFound { place, .. } | Error::Refused { place, status: 404, .. } if *place == target.place => {
                match self.authenticator.rejection(&self.http, endpoint, &access).await {
                    Some(problem) => format!("{problem}; it answers 404 to requests without a valid credential"),
                    None => return error,
                }
            }
            _ => return error,
        };
        let origin = self.authenticator.origin(&self.http, endpoint, &access.path).await;
        let problem = match origin.map(|origin| format!("; the credential is from {origin}")) {
            Some(origin) if !problem.ends_with(&origin) => format!("{problem}{origin}"),
            _ => problem,
        };
        Error::Denied { place: target.place.clone(), problem }
    }

    async fn authorize(&self, endpoint: &Endpoint, access: &Access, place: &str) -> Result<Authorization> {
        let outcome = self.authenticator.authorize(&self.http, endpoint, access).await;
        outcome.map_err(|error| denied_at(error, place))
    }

    async fn learn(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        authorization: &mut Authorization,
        reply: &Reply,
        place: &str,
    ) -> Result<bool> {
        let outcome = self.authenticator.learn(&self.http, endpoint, access, authorization, reply).await;
        outcome.map_err(|error| denied_at(error, place))
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

/// Replaces the place of an [`Error::Denied`], which names the token service, by the one that the request was for.
fn denied_at(error: Error, place: &str) -> Error {
    match error {
        Error::Denied { problem, .. } => Error::Denied { place: place.to_owned(), problem },
        other => other,
    }
}
