use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use futures::future::join_all;
use ocikit::layout::TarOptions;
use ocikit::registry::hosts::{HostOptions, HostSettings, Identity, ProxyOptions, Scheme, TlsSettings, Verify};
use ocikit::registry::{
    ClientOptions, Credential, CredentialPlaces, DockerConfig, FileJournal, Fixed, HelperOptions, Journal, Keychain,
    Keychains, Redirects, RequestObserver, RetryOptions, Timeouts,
};
use ocikit::sync::Access;
use ocikit::{Client, Location, Registry, Session, SessionOptions};
use ocikit_sign::HttpOptions;
use zeroize::Zeroizing;

use crate::commands::login;
use crate::commands::probe::Known;
use crate::failure::{Code, Failure, Result};
use crate::hosts;
use crate::output::Output;
use crate::progress::Form;
use crate::verbose::Requests;

/// How long a failed or interrupted command may take to cancel its upload sessions.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// State facts as JSON, one object per command
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// Say nothing but the result
    #[arg(long, short, global = true, help_heading = "Output")]
    quiet: bool,
    /// Show each request to a registry, on standard error: method, address, status and time
    #[arg(long, short, global = true, conflicts_with = "quiet", help_heading = "Output")]
    verbose: bool,
    /// How progress is shown, on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM", help_heading = "Output")]
    progress: Form,
    /// How many blobs are moved at the same time
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Registry")]
    jobs: Option<u16>,
    /// The directory in which OCI layouts keep their blobs together
    #[arg(long, global = true, value_name = "DIR", help_heading = "Archives and layouts")]
    shared_blobs: Option<PathBuf>,
    /// Speak plain HTTP to this registry, or to all; one on a loopback address needs no flag
    #[arg(long, global = true, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*", help_heading = "Registry")]
    plain_http: Vec<String>,
    /// Do not check the certificate of this registry, or of any
    #[arg(long, global = true, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*", help_heading = "Registry")]
    insecure: Vec<String>,
    /// With `false`, the same as --insecure
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registry")]
    tls_verify: Option<bool>,
    /// Trust the certificates in this file as well (PEM): certificate authorities, or the registry's own
    #[arg(long, global = true, value_name = "FILE", help_heading = "Registry")]
    ca_file: Option<PathBuf>,
    /// Whether the command calls services around signing, which --ca-file is for as well.
    #[arg(skip)]
    pub(crate) calls_services: bool,
    /// Present this certificate to registries (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "key_file", help_heading = "Registry")]
    cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "cert", help_heading = "Registry")]
    key_file: Option<PathBuf>,
    /// Follow redirects and token services of public registries to addresses of private networks and of this machine
    #[arg(long, global = true, help_heading = "Registry")]
    trust_redirects: bool,
    /// How often a request that failed is tried again
    #[arg(long, global = true, value_name = "N", help_heading = "Registry")]
    retries: Option<u32>,
    /// Give up a connection on which nothing has moved for this many seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Registry")]
    timeout: Option<u64>,
    /// Read credentials from this file before all others (config.json of docker, auth.json of podman)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Registry")]
    authfile: Option<PathBuf>,
    /// Log in with this name; the password comes from --password-stdin or OCIKIT_PASSWORD
    #[arg(long, short = 'u', global = true, value_name = "NAME", help_heading = "Registry")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, global = true, conflicts_with = "token_stdin", help_heading = "Registry")]
    password_stdin: bool,
    /// Read a token for the registry from standard input
    #[arg(long, global = true, help_heading = "Registry")]
    token_stdin: bool,
}

/// What every command has: the flags that all take, the environment, and where words go.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    pub(crate) progress: Form,
    global: Global,
    /// `SOURCE_DATE_EPOCH`, for everything that names a time.
    pub(crate) epoch: Option<u64>,
    secret: Option<login::Given>,
    /// The clients of all sessions, for [`Context::settle`].
    clients: Mutex<Vec<Client>>,
    environment: login::Environment,
}

impl Context {
    pub(crate) fn new(global: Global) -> Result<Context> {
        let output = Output { json: global.json, quiet: global.quiet, mute: false };
        let epoch = match variable("SOURCE_DATE_EPOCH") {
            Some(text) => {
                let refuse = |_| Failure::usage(format_args!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"));
                Some(text.parse().map_err(refuse)?)
            }
            None => None,
        };
        let environment = login::Environment::read()?;
        let (name, stdin) = (global.username.as_deref(), (global.password_stdin, global.token_stdin));
        let secret = login::given(name, stdin.0, stdin.1, &environment)?;
        let progress = global.progress.settled(global.quiet || global.json, global.verbose);
        Ok(Context { output, progress, global, epoch, secret, environment, clients: Mutex::default() })
    }

    /// The same for a command that is a part of another and says nothing.
    pub(crate) fn mute(global: Global) -> Result<Context> {
        let context = Context::new(global)?;
        let output = Output { quiet: true, mute: true, ..context.output };
        Ok(Context { output, progress: Form::None, ..context })
    }

    /// A session for a command that speaks of these locations.
    pub(crate) fn session(&self, locations: &[&Location]) -> Result<Session> {
        self.session_with(locations, SessionOptions::default())
    }

    /// The same with options of the command's own; what all commands take is set here.
    pub(crate) fn session_with(&self, locations: &[&Location], options: SessionOptions) -> Result<Session> {
        Ok(self.session_of(self.client(locations)?, options))
    }

    /// Waits for the upload sessions of a failed or interrupted command to be cancelled, for a moment.
    pub(crate) async fn settle(&self) {
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let settled = join_all(clients.iter().map(Client::settle));
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
    }

    fn session_of(&self, client: Client, options: SessionOptions) -> Session {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        let options = SessionOptions {
            jobs: self.global.jobs.map(usize::from),
            observer: self.progress.of_copy(),
            archive: TarOptions { modified: self.epoch.unwrap_or_default(), ..options.archive },
            shared_blobs: self.global.shared_blobs.clone(),
            scratch: Some(std::env::temp_dir()),
            ..options
        };
        Session::new(client, options)
    }

    /// A session for a command whose file says how registries are spoken to.
    pub(crate) fn session_that_knows(
        &self,
        registries: &BTreeMap<String, Access>,
        session: SessionOptions,
    ) -> Result<Session> {
        if self.secret.is_some() {
            return Err(Failure::usage("one name and password, and more than one registry")
                .hint("log in to each with `ocikit login`"));
        }
        let mut options = self.client_options()?;
        self.add_environment(
            &mut options,
            &registries.keys().map(|name| name.parse()).collect::<Result<BTreeSet<_>, _>>()?,
        )?;
        let mut credentials = HashMap::new();
        for (name, access) in registries {
            let name: Registry = name.parse()?;
            let others = options.hosts.others.clone();
            let settings = options.hosts.named.entry(name.clone()).or_insert(others);
            // A loopback registry is addressed with plain HTTP anyway, unless a TLS option applies to it.
            if access.insecure && (!name.is_loopback() || settings.scheme == Scheme::Https) {
                settings.tls.verify = Verify::NorTls;
            }
            if let Some(directory) = &access.certificates {
                settings.tls.add_directory(directory)?;
            }
            credentials.extend(access.credential.clone().map(|credential| (name, credential)));
        }
        options.keychain = Arc::new(FromFile { credentials, others: options.keychain });
        Ok(self.session_of(Client::new(options), session))
    }

    /// How many blobs are moved or read at the same time, if the command line says so.
    pub(crate) fn jobs(&self) -> Option<usize> {
        self.global.jobs.map(usize::from)
    }

    /// What the command line gives to log in to a registry, or else the environment.
    pub(crate) fn given(&self, registry: &Registry) -> Result<Option<login::Given>> {
        match &self.secret {
            Some(login::Given::Name(name)) => Ok(Some(self.environment.complete(name, registry))),
            Some(given) => Ok(Some(given.clone())),
            None => self.environment.given(registry),
        }
    }

    /// Adds the credential of the environment: for the registry that the environment names, and without that only for the
    /// one registry of the command.
    fn add_environment(&self, options: &mut ClientOptions, registries: &BTreeSet<Registry>) -> Result {
        let Some(credential) = self.environment.credential()? else { return Ok(()) };
        let registry = match self.environment.registry() {
            Some(registry) => registry,
            None if registries.len() > 1 => {
                self.output.say(
                    "warning: the credentials of the environment are not used, since the command names several registries\n\
                     hint: set OCIKIT_REGISTRY to the registry that they are for",
                );
                return Ok(());
            }
            None => match registries.first() {
                Some(registry) => registry,
                None => return Ok(()),
            },
        };
        let own = Arc::new(Fixed { registry: Some(registry.clone()), credential });
        options.keychain = Arc::new(Keychains(vec![own, options.keychain.clone()]));
        Ok(())
    }

    /// A client for a command that speaks of these locations.
    fn client(&self, locations: &[&Location]) -> Result<Client> {
        self.client_of(locations.iter().filter_map(|location| registry_of(location)))
    }

    /// A session for a command with a credential of its own for some of its locations.
    pub(crate) fn session_as(
        &self,
        locations: &[&Location],
        credentials: &[(&Location, Credential)],
        options: SessionOptions,
    ) -> Result<Session> {
        let registries: BTreeSet<_> = locations.iter().filter_map(|location| registry_of(location)).collect();
        let mut own: BTreeMap<&Registry, &Credential> = BTreeMap::new();
        for (location, credential) in credentials {
            let registry = registry_of(location).ok_or_else(|| {
                Failure::usage(format_args!("there are credentials for {location}, which is in no registry"))
            })?;
            if own.insert(registry, credential).is_some_and(|other| other != credential) {
                return Err(Failure::usage(format_args!("there are two credentials for {registry}")));
            }
        }
        let mut client = self.options_of(&registries)?;
        let fixed = |(registry, credential): (&Registry, &Credential)| {
            Arc::new(Fixed { registry: Some(registry.clone()), credential: credential.clone() }) as Arc<dyn Keychain>
        };
        let own = own.into_iter().map(fixed).chain([client.keychain.clone()]);
        client.keychain = Arc::new(Keychains(own.collect()));
        Ok(self.session_of(Client::new(client), options))
    }

    /// A client for a command that speaks to these registries.
    pub(crate) fn client_of<'a>(&self, registries: impl IntoIterator<Item = &'a Registry>) -> Result<Client> {
        Ok(Client::new(self.options_of(&registries.into_iter().collect())?))
    }

    fn options_of(&self, registries: &BTreeSet<&Registry>) -> Result<ClientOptions> {
        // Who looks into an archive is not told that a file about registries is wrong.
        let mut options = if registries.is_empty() { self.flags()? } else { self.client_options()? };
        registries.iter().try_for_each(|registry| hosts::check(&options.hosts, registry))?;
        let known = |registry: &&Registry| Some(((*registry).clone(), Known::read(registry)?.capabilities));
        options.capabilities = registries.iter().filter_map(known).collect();
        let Some(given) = &self.secret else {
            self.add_environment(&mut options, &registries.iter().map(|registry| (*registry).clone()).collect())?;
            return Ok(options);
        };
        // One credential for several registries would show it to the wrong one.
        let registry = match registries.iter().copied().collect::<Vec<_>>()[..] {
            [] => return Ok(options),
            [registry] => registry,
            _ => {
                return Err(Failure::usage("one name and password, and more than one registry")
                    .hint("log in to each with `ocikit login`"));
            }
        };
        let given = match given {
            login::Given::Name(name) => self.environment.complete(name, registry),
            given => given.clone(),
        };
        let login::Given::Whole(credential) = given else {
            return Err(Failure::usage("there is a name and no password for it")
                .hint("give --password-stdin, or set OCIKIT_PASSWORD"));
        };
        options.keychain = Arc::new(Fixed { registry: Some(registry.clone()), credential });
        Ok(options)
    }

    /// How registries are spoken to, with what the files of this machine say, and the credentials that docker and podman
    /// keep.
    pub(crate) fn client_options(&self) -> Result<ClientOptions> {
        let mut options = self.flags()?;
        hosts::add_files(&mut options.hosts)?;
        Ok(options)
    }

    /// The same as far as the command line says it.
    fn flags(&self) -> Result<ClientOptions> {
        let global = &self.global;
        let default = ClientOptions::default();
        let mut keychains = credential_places().keychain(&helpers());
        if let Some(file) = &global.authfile {
            if !file.is_file() {
                return Err(Failure::new(Code::Missing, format_args!("cannot read {}: no such file", file.display())));
            }
            keychains.0.insert(0, Arc::new(DockerConfig::with_helpers(file, helpers())));
        }
        let keychain: Arc<dyn Keychain> = Arc::new(keychains);
        let retry = self.retry();
        let timeouts = match global.timeout.map(Duration::from_secs) {
            // A small document may take longer than one pause, and not forever.
            Some(limit) => {
                Timeouts { connect: limit, answer: limit, silence: limit, document: limit.max(SHORTEST_DOCUMENT) }
            }
            None => Timeouts::default(),
        };
        let user_agent = format!("ocikit/{}", env!("CARGO_PKG_VERSION"));
        let journal =
            cache_directory().map(|cache| Arc::new(FileJournal::new(cache.join("uploads"))) as Arc<dyn Journal>);
        let hosts = self.hosts()?;
        let redirects = if global.trust_redirects { Redirects::Trusted } else { Redirects::Guarded };
        let proxies = proxies();
        let requests = Requests { form: self.progress, output: self.output, requests: global.verbose };
        let observer = Some(Arc::new(requests) as Arc<dyn RequestObserver>);
        let default = ClientOptions { retry, timeouts, user_agent, journal, observer, ..default };
        let options = ClientOptions { keychain, hosts, proxies, redirects, ..default };
        options.check().map_err(|error| {
            let failure = Failure::from(error);
            let code =
                if failure.code == Code::Missing && !named_files_exist(global) { Code::Missing } else { Code::Usage };
            Failure { code, ..failure }.hint("name a PEM file with --ca-file, --cert or --key-file")
        })?;
        Ok(options)
    }

    fn hosts(&self) -> Result<HostOptions> {
        let global = &self.global;
        // Services around signing need --ca-file too, beside a loopback registry with plain HTTP; that one gets no
        // credentials.
        let needs_tls = global.cert.is_some()
            || global.tls_verify == Some(true)
            || global.ca_file.is_some() && !global.calls_services;
        let common = HostSettings {
            scheme: if needs_tls { Scheme::Https } else { Scheme::Guess },
            tls: TlsSettings {
                verify: Verify::default(),
                authorities: global.ca_file.iter().cloned().collect(),
                identity: global
                    .cert
                    .clone()
                    .zip(global.key_file.clone())
                    .map(|(certificate, key)| Identity { certificate, key }),
            },
        };
        let mut hosts = HostOptions { others: common.clone(), ..HostOptions::default() };
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

    /// How services around signing are spoken to: with the authorities of --ca-file besides those of the system, through the
    /// proxies of the environment, again as often as registries.
    pub(crate) fn http_options(&self) -> Result<HttpOptions> {
        let authorities = self.global.ca_file.as_deref().map(crate::file::read).transpose()?.unwrap_or_default();
        Ok(HttpOptions { authorities, proxies: proxies(), retries: self.retry(), ..HttpOptions::default() })
    }

    /// How often anybody is asked again.
    fn retry(&self) -> RetryOptions {
        match self.global.retries {
            Some(retries) => RetryOptions { attempts: retries.saturating_add(1), ..RetryOptions::default() },
            None => RetryOptions::default(),
        }
    }

    /// The file that logging in to a registry writes to: the one that is named, or the first that has a credential for the
    /// registry and would hide another, or docker's.
    pub(crate) async fn docker_config(&self, registry: &Registry) -> Result<DockerConfig> {
        let places = credential_places();
        let none = || Failure::usage("there is no home directory to keep credentials in").hint("set DOCKER_CONFIG");
        if let Some(path) = self.global.authfile.clone().or(places.registry_auth_file.clone()) {
            return Ok(DockerConfig::with_helpers(path, helpers()));
        }
        let mut files = places.files();
        let last = files.pop().ok_or_else(none)?;
        for file in files {
            let file = DockerConfig::with_helpers(file, helpers());
            if file.mentions(registry).await {
                return Ok(file);
            }
        }
        Ok(DockerConfig::with_helpers(last, helpers()))
    }

    /// Where something is written, as it was typed; a name that the system has for standard output is `-`.
    pub(crate) fn expand_output(&self, location: &Location) -> Location {
        match location {
            Location::Path { path, .. } if crate::file::is_stdout(path) => Location::Stdio,
            location => self.expand(location),
        }
    }

    /// Where something is read, as it was typed; a name that the system has for standard input is `-`.
    pub(crate) fn expand_input(&self, location: &Location) -> Location {
        match location {
            Location::Path { path, .. } if crate::file::is_stdin(path) => Location::Stdio,
            location => self.expand(location),
        }
    }

    /// A location as it was typed, `~/` meaning the home directory where no shell has seen to that.
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
    match location {
        Location::Registry(reference) => Some(reference.registry()),
        _ => None,
    }
}

/// Credentials that a file gives for some registries, before those that are kept elsewhere.
#[derive(Debug)]
struct FromFile {
    credentials: HashMap<Registry, Credential>,
    others: Arc<dyn Keychain>,
}

#[async_trait]
impl Keychain for FromFile {
    async fn credential(&self, registry: &Registry, path: &str) -> ocikit::Result<Option<Credential>> {
        match self.credentials.get(registry) {
            Some(credential) => Ok(Some(credential.clone())),
            None => self.others.credential(registry, path).await,
        }
    }
}

/// A variable of the environment; one that is empty counts as unset.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where we keep what can be found out again.
pub(crate) fn cache_directory() -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    Some(cache?.join("ocikit"))
}

fn credential_places() -> CredentialPlaces {
    let path = |name: &str| variable(name).map(PathBuf::from);
    CredentialPlaces {
        registry_auth_file: path("REGISTRY_AUTH_FILE"),
        runtime_directory: path("XDG_RUNTIME_DIR"),
        configuration_directory: path("XDG_CONFIG_HOME"),
        run_directory: user_id().map(|user| PathBuf::from(format!("/run/containers/{user}"))),
        docker_config: path("DOCKER_CONFIG"),
        home: path("HOME"),
    }
}

fn helpers() -> HelperOptions {
    let directories = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    HelperOptions { directories, ..HelperOptions::default() }
}

/// Proxies as Go's `httpproxy` reads them from the environment: in upper case, or else in lower case.
fn proxies() -> ProxyOptions {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase()));
    // Where a web server starts us, HTTP_PROXY is a header of a request (https://httpoxy.org).
    let http = if variable("REQUEST_METHOD").is_some() { None } else { either("HTTP_PROXY") };
    ProxyOptions {
        http: http.map(Zeroizing::new),
        https: either("HTTPS_PROXY").map(Zeroizing::new),
        except: either("NO_PROXY").unwrap_or_default(),
    }
}

/// The number of the user, from the owner of our entry in `/proc`.
#[cfg(unix)]
fn user_id() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn user_id() -> Option<u32> {
    None
}

/// Whether the files that the command line names are there.
fn named_files_exist(global: &Global) -> bool {
    [&global.ca_file, &global.cert, &global.key_file].into_iter().flatten().all(|file| file.exists())
}

/// How long a small document may take at least, however short --timeout is.
const SHORTEST_DOCUMENT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
    }

    #[test]
    fn servers_are_trusted_with_redirects_only_where_that_is_said() {
        for (arguments, redirects) in
            [(&["ocikit"][..], Redirects::Guarded), (&["ocikit", "--trust-redirects"], Redirects::Trusted)]
        {
            let context = Context::new(Line::parse_from(arguments).global).unwrap();
            assert_eq!(context.flags().unwrap().redirects, redirects);
        }
    }
}
