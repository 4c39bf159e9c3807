use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use ocikit::registry::hosts::{HostOptions, HostSettings, Identity, Pem, Scheme, TlsSettings, Verify};
use ocikit::registry::{
    ClientOptions, Credential, CredentialScope, DockerConfig, Environment, FileJournal, Fixed, Journal, Keychain,
    Keychains, Named, Redirects, RequestObserver, RetryOptions, Timeouts,
};
use ocikit::sync::Access;
use ocikit::{Client, Location, Name, Observer, Registry, Repository, Session, SessionOptions};
use ocikit_build::Upload;
use ocikit_sign::HttpOptions;
use zeroize::Zeroizing;

use crate::credentials::{self, EnvironmentCredentials, LoginInput};
use crate::environment::{cache_directory, variable};
use crate::failure::{Code, Failure, Result};
use crate::hosts;
use crate::output::Output;
use crate::probe_result::ProbeResult;
use crate::progress::ProgressFormat;
use crate::verbose::RequestLog;

/// How long a failed or interrupted command may take to cancel its upload sessions.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print results as JSON, one object per command
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// Print results only
    #[arg(long, short, global = true, help_heading = "Output")]
    quiet: bool,
    /// Print each request to a registry: method, URL, status and time
    #[arg(long, short, global = true, conflicts_with = "quiet", help_heading = "Output")]
    verbose: bool,
    /// Show progress in this format on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Output")]
    progress: ProgressFormat,
    /// Copy this many blobs in parallel; default: 8
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Registry")]
    jobs: Option<u16>,
    /// Keep the blobs of OCI layouts in this directory
    #[arg(long, global = true, value_name = "DIR", help_heading = "Archives and layouts")]
    shared_blobs: Option<PathBuf>,
    /// Use plain HTTP for this registry, or for all registries
    ///
    /// A registry on a loopback address does not need this flag.
    #[arg(long, global = true, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*", help_heading = "Registry")]
    plain_http: Vec<String>,
    /// Do not verify TLS certificates of this registry, or of all registries
    #[arg(long, global = true, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*", help_heading = "Registry")]
    insecure: Vec<String>,
    /// Verify TLS certificates; `false` is a synonym of --insecure
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registry")]
    tls_verify: Option<bool>,
    /// Also trust the CA certificates in this file (PEM)
    ///
    /// The file may also hold the self-signed certificate of a registry.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Registry")]
    ca_file: Option<PathBuf>,
    /// Whether the command calls signing services, which --ca-file applies to as well.
    #[arg(skip)]
    pub(crate) calls_services: bool,
    /// Whether the command stores credentials, so that the file of --authfile need not exist yet.
    #[arg(skip)]
    pub(crate) stores_credentials: bool,
    /// Send this client certificate to registries (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "key_file", help_heading = "Registry")]
    cert: Option<PathBuf>,
    /// Use this private key for the client certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "cert", help_heading = "Registry")]
    key_file: Option<PathBuf>,
    /// Allow public registries to redirect to private and local addresses
    ///
    /// Applies to redirects and to token services.
    #[arg(long, global = true, help_heading = "Registry")]
    trust_redirects: bool,
    /// Retry a failed request at most this many times; default: 5
    #[arg(long, global = true, value_name = "N", help_heading = "Registry")]
    retries: Option<u32>,
    /// Close a connection that is idle for this many seconds; default: 60
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Registry")]
    timeout: Option<u64>,
    /// Read credentials from this file first (config.json or auth.json)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Registry")]
    authfile: Option<PathBuf>,
    /// Log in with this user name
    ///
    /// The password comes from --password-stdin or OCIKIT_PASSWORD.
    #[arg(long, short = 'u', global = true, value_name = "NAME", help_heading = "Registry")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, global = true, conflicts_with = "token_stdin", help_heading = "Registry")]
    password_stdin: bool,
    /// Read a registry token from standard input
    #[arg(long, global = true, help_heading = "Registry")]
    token_stdin: bool,
}

impl Global {
    /// Returns whether results and errors are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }
}

/// What every command has: the global flags, the environment and the output.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    pub(crate) progress: ProgressFormat,
    global: Global,
    /// `SOURCE_DATE_EPOCH`: the time to write instead of the current time, in seconds since 1970.
    pub(crate) epoch: Option<u64>,
    secret: Option<LoginInput>,
    /// The clients of all sessions, which [`Context::settle`] waits for.
    clients: Mutex<Vec<Client>>,
    environment: EnvironmentCredentials,
    /// The credentials of `--authfile`.
    authfile: OnceLock<Arc<DockerConfig>>,
    /// Where docker and podman keep the settings of registries.
    registries: Environment,
}

impl Context {
    pub(crate) fn new(global: Global) -> Result<Context> {
        let output = Output { json: global.json, quiet: global.quiet, mute: false };
        let epoch = variable("SOURCE_DATE_EPOCH").map(|text| {
            text.parse().map_err(|_| {
                Failure::usage(format_args!("cannot read SOURCE_DATE_EPOCH: `{text}` is not a number of seconds"))
            })
        });
        let epoch = epoch.transpose()?;
        let environment = EnvironmentCredentials::read()?;
        let (name, stdin) = (global.username.as_deref(), (global.password_stdin, global.token_stdin));
        let secret = credentials::given(name, stdin.0, stdin.1, &environment)?;
        let progress = global.progress.settled(global.quiet || global.json, global.verbose);
        Ok(Context {
            output,
            progress,
            global,
            epoch,
            secret,
            environment,
            clients: Mutex::default(),
            registries: Environment::of_process(),
            authfile: OnceLock::new(),
        })
    }

    /// Returns the time to write, RFC 3339: that of `SOURCE_DATE_EPOCH`, or else the current time.
    pub(crate) fn time(&self) -> Result<String> {
        let time = match self.epoch {
            Some(epoch) => {
                let seconds = i64::try_from(epoch).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
                seconds.ok_or_else(|| Failure::usage("cannot use SOURCE_DATE_EPOCH: the time is out of range"))?
            }
            None => jiff::Timestamp::now(),
        };
        Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    /// Returns a context without any output, for a command that runs as a step of another command.
    pub(crate) fn mute(global: Global) -> Result<Context> {
        let context = Context::new(global)?;
        let output = Output { quiet: true, mute: true, ..context.output };
        Ok(Context { output, progress: ProgressFormat::None, ..context })
    }

    /// Returns a session for a command that uses these locations.
    pub(crate) fn session(&self, locations: &[&Location]) -> Result<Session> {
        self.session_with(locations, SessionOptions::default())
    }

    /// Returns a session with options of the command. The global flags are applied here.
    pub(crate) fn session_with(&self, locations: &[&Location], options: SessionOptions) -> Result<Session> {
        Ok(self.session_of(self.client(locations)?, options))
    }

    /// Waits up to [`SETTLE_TIMEOUT`] until the upload sessions of a failed or interrupted command are cancelled.
    pub(crate) async fn settle(&self) {
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let settled = join_all(clients.iter().map(Client::settle));
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
    }

    /// Returns a session whose copies show no progress, for a command that shows its own.
    pub(crate) fn session_without_progress(&self, locations: &[&Location], options: SessionOptions) -> Result<Session> {
        Ok(self.session_showing(self.client(locations)?, options, None))
    }

    fn session_of(&self, client: Client, options: SessionOptions) -> Session {
        self.session_showing(client, options, self.progress.of_copy())
    }

    fn session_showing(&self, client: Client, options: SessionOptions, observer: Option<Arc<dyn Observer>>) -> Session {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        let archive = options.archive.clone().modified(self.epoch.unwrap_or_default());
        let options = options
            .jobs(self.global.jobs.map(usize::from))
            .observer(observer)
            .archive(archive)
            .shared_blobs(self.global.shared_blobs.clone())
            .scratch(Some(std::env::temp_dir()));
        Session::new(client, options)
    }

    /// Returns a session for a command whose input file has settings for registries.
    pub(crate) fn session_with_registries(
        &self,
        registries: &BTreeMap<String, Access>,
        session: SessionOptions,
    ) -> Result<Session> {
        if self.secret.is_some() {
            return Err(Failure::usage("cannot use one credential for several registries")
                .hint("log in to each registry with `ocikit login`"));
        }
        let mut options = self.client_options()?;
        let named = registries.keys().map(|name| name.parse()).collect::<Result<_, _>>()?;
        self.add_environment(&mut options, &named)?;
        let mut keychains = Vec::new();
        for (name, access) in registries {
            let name: Registry = name.parse()?;
            let others = options.hosts.others.clone();
            let settings = options.hosts.named.entry(name.clone()).or_insert(others);
            // A loopback registry is addressed with plain HTTP by default, unless a TLS option applies to it.
            if access.insecure && (!name.is_loopback() || settings.scheme == Scheme::Https) {
                settings.tls.verify = Verify::InsecureAllowHttp;
            }
            if let Some(directory) = &access.certificates {
                settings.add_certificates(directory)?;
            }
            let credential = access.credential.clone();
            keychains.extend(credential.map(|found| keychain_of("the file that names the registry", &name, found)));
        }
        keychains.push(options.keychain);
        options.keychain = Arc::new(Keychains(keychains));
        Ok(self.session_of(Client::new(options), session))
    }

    /// Returns the value of `--jobs`: the number of blobs to copy or read in parallel.
    pub(crate) fn jobs(&self) -> Option<usize> {
        self.global.jobs.map(usize::from)
    }

    /// Returns the credential for a registry from the command line, or else from the environment.
    pub(crate) fn given(&self, registry: &Registry) -> Result<Option<LoginInput>> {
        match &self.secret {
            Some(LoginInput::Name(name)) => Ok(Some(self.environment.complete(name, registry))),
            Some(given) => Ok(Some(given.clone())),
            None => self.environment.given(registry),
        }
    }

    /// Returns the flags, and the variable, that the credential of the command line comes from.
    fn origin_of_secret(&self) -> &'static str {
        match (&self.global.username, self.global.token_stdin, self.global.password_stdin) {
            (_, true, _) => "--token-stdin",
            (Some(_), _, true) => "--username and --password-stdin",
            (Some(_), _, false) => "--username and OCIKIT_PASSWORD",
            (None, ..) => "OCIKIT_USERNAME and --password-stdin",
        }
    }

    /// Adds the credential of the environment, for the registry in `OCIKIT_REGISTRY`. Without that variable it is used only if
    /// the command names exactly one registry.
    fn add_environment(&self, options: &mut ClientOptions, registries: &BTreeSet<Registry>) -> Result {
        if !self.environment.has_secret() {
            return Ok(());
        }
        let registry = match self.environment.registry() {
            // The variables are for another registry and may be incomplete.
            Some(registry) if !registries.contains(registry) => return Ok(()),
            Some(registry) => registry,
            None if registries.len() > 1 => {
                let problem = "OCIKIT_USERNAME, OCIKIT_PASSWORD and OCIKIT_TOKEN are ignored: the command names several registries";
                self.output.say(format!("warning: {problem}"));
                self.output.say("hint: set OCIKIT_REGISTRY to the registry of the credentials");
                return Ok(());
            }
            None => match registries.first() {
                Some(registry) => registry,
                None => return Ok(()),
            },
        };
        let Some(credential) = self.environment.credential()? else { return Ok(()) };
        let own = keychain_of(self.environment.origin(), registry, credential);
        options.keychain = Arc::new(Keychains(vec![own, options.keychain.clone()]));
        Ok(())
    }

    /// Returns a client for a command that uses these locations.
    fn client(&self, locations: &[&Location]) -> Result<Client> {
        self.client_of(locations.iter().filter_map(|location| registry_of(location)))
    }

    /// Returns a session with separate credentials for some locations, as `copy --src-creds` needs it. `origin` says
    /// where they come from.
    pub(crate) fn session_as(
        &self,
        locations: &[&Location],
        credentials: &[(&Location, Credential)],
        origin: &str,
        options: SessionOptions,
    ) -> Result<Session> {
        let mut own: BTreeMap<&Registry, &Credential> = BTreeMap::new();
        for (location, credential) in credentials {
            let registry = registry_of(location).ok_or_else(|| {
                Failure::usage(format_args!("cannot use credentials for {location}: it is not in a registry"))
            })?;
            if own.insert(registry, credential).is_some_and(|other| other != credential) {
                return Err(Failure::usage(format_args!("cannot use two different credentials for {registry}")));
            }
        }
        let fixed =
            |(registry, credential): (&Registry, &Credential)| keychain_of(origin, registry, credential.clone());
        self.session_by(locations, Arc::new(Keychains(own.into_iter().map(fixed).collect())), options)
    }

    /// Returns a session with a further source of credentials, which comes first.
    pub(crate) fn session_by(
        &self,
        locations: &[&Location],
        keychain: Arc<dyn Keychain>,
        options: SessionOptions,
    ) -> Result<Session> {
        let registries: BTreeSet<_> = locations.iter().filter_map(|location| registry_of(location)).collect();
        let mut client = self.options_of(&registries)?;
        client.keychain = Arc::new(Keychains(vec![keychain, client.keychain.clone()]));
        Ok(self.session_of(Client::new(client), options))
    }

    /// Returns a client for a command that uses these registries.
    pub(crate) fn client_of<'a>(&self, registries: impl IntoIterator<Item = &'a Registry>) -> Result<Client> {
        Ok(Client::new(self.options_of(&registries.into_iter().collect())?))
    }

    /// Returns how BuildKit uploads to a repository: with the credential that this process would use, and as insecurely.
    pub(crate) async fn upload(&self, repository: &Repository) -> Result<Upload> {
        let registry = repository.registry();
        let options = self.options_of(&BTreeSet::from([registry]))?;
        let settings = options.hosts.named.get(registry).unwrap_or(&options.hosts.others);
        let mut upload = Upload::to(repository.clone());
        upload.is_insecure = settings.scheme == Scheme::Http || settings.tls.verify != Verify::default();
        // What cannot be read is reported with the first request from here.
        upload.credential = options.keychain.credential(registry, repository.path()).await.unwrap_or_default();
        Ok(upload)
    }

    fn options_of(&self, registries: &BTreeSet<&Registry>) -> Result<ClientOptions> {
        // A command on local files must not fail because of a broken registries.conf.
        let mut options = if registries.is_empty() { self.flags()? } else { self.client_options()? };
        let known = |registry: &&Registry| options.hosts.of(registry).map(drop);
        registries.iter().try_for_each(known).map_err(hosts::configuration_failure)?;
        let known = |registry: &&Registry| Some(((*registry).clone(), ProbeResult::read(registry)?.capabilities));
        options.capabilities = registries.iter().filter_map(known).collect();
        let Some(given) = &self.secret else {
            self.add_environment(&mut options, &registries.iter().map(|registry| (*registry).clone()).collect())?;
            return Ok(options);
        };
        // With several registries, the credential would be sent to the wrong one.
        let registry = match registries.iter().copied().collect::<Vec<_>>()[..] {
            [] => return Ok(options),
            [registry] => registry,
            _ => {
                return Err(Failure::usage("cannot use one credential for several registries")
                    .hint("log in to each registry with `ocikit login`"));
            }
        };
        let given = match given {
            LoginInput::Name(name) => self.environment.complete(name, registry),
            given => given.clone(),
        };
        let LoginInput::Whole(credential) = given else {
            return Err(Failure::usage("cannot log in: --username is given without a password")
                .hint("add --password-stdin, or set OCIKIT_PASSWORD"));
        };
        options.keychain = keychain_of(self.origin_of_secret(), registry, credential);
        Ok(options)
    }

    /// Returns the client options from the command line, the configuration files of this machine, and the credentials of
    /// docker and podman.
    pub(crate) fn client_options(&self) -> Result<ClientOptions> {
        let mut options = self.flags()?;
        self.registries.add_to(&mut options.hosts).map_err(hosts::configuration_failure)?;
        Ok(options)
    }

    /// Returns the client options without the configuration files.
    fn flags(&self) -> Result<ClientOptions> {
        let global = &self.global;
        let default = ClientOptions::default();
        let mut keychains = self.registries.credential_places().keychain(&self.registries.helpers());
        if let Some(file) = &global.authfile {
            keychains.0.insert(0, self.credentials_file(file)?);
        }
        let keychain: Arc<dyn Keychain> = Arc::new(keychains);
        let retry = self.retry();
        let timeouts = match global.timeout.map(Duration::from_secs) {
            // The limit for a whole document is at least as long as the limit for a pause.
            Some(limit) => Timeouts::default()
                .connect(limit)
                .answer(limit)
                .silence(limit)
                .document(limit.max(MIN_DOCUMENT_TIMEOUT)),
            None => Timeouts::default(),
        };
        let user_agent = format!("ocikit/{}", env!("CARGO_PKG_VERSION"));
        let journal =
            cache_directory().map(|cache| Arc::new(FileJournal::new(cache.join("uploads"))) as Arc<dyn Journal>);
        let hosts = self.hosts()?;
        let redirects = if global.trust_redirects { Redirects::Trusted } else { Redirects::Guarded };
        let proxies = self.registries.proxies();
        let requests = RequestLog { form: self.progress, output: self.output, requests: global.verbose };
        let observer = Some(Arc::new(requests) as Arc<dyn RequestObserver>);
        let default =
            default.retry(retry).timeouts(timeouts).user_agent(user_agent).journal(journal).observer(observer);
        let options = default.keychain(keychain).hosts(hosts).proxies(proxies).redirects(redirects);
        options.check().map_err(|error| {
            let failure = Failure::from(error);
            let code =
                if failure.code == Code::Missing && !named_files_exist(global) { Code::Missing } else { Code::Usage };
            Failure { code, ..failure }.hint("give PEM files with --ca-file, --cert and --key-file")
        })?;
        Ok(options)
    }

    /// Returns the credentials of `--authfile`. A pipe, such as `<(command)`, is read at once, since it can be read only
    /// once.
    fn credentials_file(&self, file: &Path) -> Result<Arc<DockerConfig>> {
        if let Some(found) = self.authfile.get() {
            return Ok(found.clone());
        }
        let metadata = match std::fs::metadata(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.global.stores_credentials => {
                return Ok(Arc::new(DockerConfig::with_helpers(file, self.registries.helpers())));
            }
            found => found.map_err(|error| Failure::io("read", file.display(), &error))?,
        };
        if metadata.is_dir() {
            return Err(Failure::usage(format_args!("cannot read {}: it is a directory", file.display())));
        }
        let config = match metadata.is_file() {
            true => DockerConfig::with_helpers(file, self.registries.helpers()),
            false => DockerConfig::parse(file, &Zeroizing::new(crate::file::read(file)?), self.registries.helpers())?,
        };
        Ok(self.authfile.get_or_init(|| Arc::new(config)).clone())
    }

    fn hosts(&self) -> Result<HostOptions> {
        let global = &self.global;
        // Services around signing need --ca-file too, beside a loopback registry with plain HTTP; that one gets no
        // credentials.
        let needs_tls = global.cert.is_some()
            || global.tls_verify == Some(true)
            || global.ca_file.is_some() && !global.calls_services;
        let identity = global.cert.clone().zip(global.key_file.clone());
        let identity = identity.map(|(certificate, key)| Identity { certificate: certificate.into(), key: key.into() });
        let tls = TlsSettings::default()
            .authorities(global.ca_file.iter().cloned().map(Pem::File).collect())
            .identity(identity);
        let scheme = if needs_tls { Scheme::Https } else { Scheme::Guess };
        let common = HostSettings::default().scheme(scheme).tls(tls);
        let mut hosts = HostOptions::default().others(common.clone());
        let set_plain: fn(&mut HostSettings) = |settings| settings.scheme = Scheme::Http;
        let set_insecure: fn(&mut HostSettings) = |settings| {
            settings.tls.verify = Verify::Nothing;
            // An explicit --plain-http has precedence.
            if settings.scheme == Scheme::Guess {
                settings.scheme = Scheme::Https;
            }
        };
        if global.tls_verify == Some(false) {
            set_insecure(&mut hosts.others);
        }
        let named = global.plain_http.iter().map(|host| (host, set_plain));
        for (host, set) in named.chain(global.insecure.iter().map(|host| (host, set_insecure))) {
            if host == "*" {
                set(&mut hosts.others);
                hosts.named.values_mut().for_each(set);
            } else {
                let registry: Registry = host.parse()?;
                let others = hosts.others.clone();
                set(hosts.named.entry(registry).or_insert(others));
            }
        }
        Ok(hosts)
    }

    /// Returns the HTTP options for signing services. They trust `--ca-file` besides the system's certificate authorities, and
    /// use the same proxies and the same number of retries as registries.
    pub(crate) fn http_options(&self) -> Result<HttpOptions> {
        let authorities = self.global.ca_file.as_deref().map(crate::file::read).transpose()?;
        let tls = TlsSettings::default().authorities(authorities.into_iter().map(Pem::from).collect());
        Ok(HttpOptions::default().tls(tls).proxies(self.registries.proxies()).retries(self.retry()))
    }

    /// Returns the retry options for registries and signing services.
    fn retry(&self) -> RetryOptions {
        let default = RetryOptions::default();
        let attempts = self.global.retries.map_or(default.attempts, |retries| retries.saturating_add(1));
        default.attempts(attempts)
    }

    /// Returns the credential file that `login` writes to: the named file, or the first file that already has a credential for
    /// the registry and would take precedence, or the file of docker.
    pub(crate) async fn docker_config(&self, scope: &CredentialScope) -> Result<DockerConfig> {
        let places = self.registries.credential_places();
        let none =
            || Failure::usage("cannot store credentials: HOME is not set").hint("set DOCKER_CONFIG to a directory");
        if let Some(path) = self.global.authfile.clone().or(places.registry_auth_file.clone()) {
            return Ok(DockerConfig::with_helpers(path, self.registries.helpers()));
        }
        let mut files = places.files();
        let last = files.pop().ok_or_else(none)?;
        for file in files {
            let file = DockerConfig::with_helpers(file, self.registries.helpers());
            if file.mentions(scope).await {
                return Ok(file);
            }
        }
        Ok(DockerConfig::with_helpers(last, self.registries.helpers()))
    }

    /// Expands a location to write to; `/dev/stdout` and its synonyms become `-`.
    pub(crate) fn expand_output(&self, location: &Location) -> Location {
        match location {
            Location::Path { path, name: Name::Only } if crate::file::is_stdout(path) => Location::Stdio,
            location => self.expand(location),
        }
    }

    /// Expands a location to read from; `/dev/stdin` and its synonyms become `-`.
    pub(crate) fn expand_input(&self, location: &Location) -> Location {
        match location {
            Location::Path { path, name: Name::Only } if crate::file::is_stdin(path) => Location::Stdio,
            location => self.expand(location),
        }
    }

    /// Expands a leading `~/` of a location, which the shell leaves as it is behind `oci:`.
    pub(crate) fn expand(&self, location: &Location) -> Location {
        let mut location = location.clone();
        if let (Some(path), Some(home)) = (location.path_mut(), std::env::var_os("HOME"))
            && let Ok(rest) = path.strip_prefix("~")
        {
            *path = PathBuf::from(home).join(rest);
        }
        location
    }
}

fn registry_of(location: &Location) -> Option<&Registry> {
    Some(location.reference()?.registry())
}

/// Returns a keychain with one credential for one registry. Messages call its origin by this name.
fn keychain_of(origin: &str, registry: &Registry, credential: Credential) -> Arc<dyn Keychain> {
    let keychain = Fixed { registry: Some(registry.clone()), credential };
    Arc::new(Named { origin: origin.to_owned(), keychain })
}

/// Returns whether the certificate and key files of the command line exist.
fn named_files_exist(global: &Global) -> bool {
    [&global.ca_file, &global.cert, &global.key_file].into_iter().flatten().all(|file| file.exists())
}

/// The minimum time limit for a whole small document, even if `--timeout` is shorter.
const MIN_DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestArguments {
        #[command(flatten)]
        global: Global,
    }

    #[test]
    fn redirects_are_trusted_only_with_the_flag() {
        for (arguments, redirects) in
            [(&["ocikit"][..], Redirects::Guarded), (&["ocikit", "--trust-redirects"], Redirects::Trusted)]
        {
            let context = Context::new(TestArguments::parse_from(arguments).global).unwrap();
            assert_eq!(context.flags().unwrap().redirects, redirects);
        }
    }
}
