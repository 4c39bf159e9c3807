//! The `config.json` of a bundle. Image specification, "Conversion to OCI Runtime Configuration".

use ocikit_archive::unpack::{IdRange, Owners};
use ocikit_spec::Config;
use serde_json::{Map, Value, json};

use super::accounts::Account;

/// The version of the runtime specification.
const OCI_VERSION: &str = "1.2.1";

/// The capabilities of processes, the default of runc.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Returns the configuration for a runtime, with the same defaults as that of umoci.
pub(super) fn config(config: &Config, account: &Account, owners: &Owners) -> Value {
    let execution = config.execution();
    let mut env =
        vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(), "TERM=xterm".to_owned()];
    for variable in &execution.env {
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        match env.iter_mut().find(|known| name(known) == name(variable)) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", account.home));
    }
    let args: Vec<_> = execution.entrypoint.iter().chain(&execution.cmd).cloned().collect();
    // A runtime refuses a process without a program.
    let args = if args.is_empty() { vec!["sh".to_owned()] } else { args };
    let cwd = execution.working_dir.as_deref().filter(|directory| !directory.is_empty()).unwrap_or("/");
    let capabilities: Map<String, Value> = ["bounding", "effective", "inheritable", "permitted", "ambient"]
        .into_iter()
        .map(|set| (set.to_owned(), json!(CAPABILITIES)))
        .collect();
    let mut user = json!({"uid": account.user, "gid": account.group});
    let rootless = *owners == Owners::Rootless;
    // A user namespace with one ID has no other groups.
    if !account.additional.is_empty() && !rootless {
        user["additionalGids"] = json!(account.additional);
    }
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": user,
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": capabilities,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "ocikit",
        "mounts": mounts(&execution.volumes, rootless),
        "annotations": annotations(config),
        "linux": linux(owners),
    })
}

fn mounts(volumes: &[String], rootless: bool) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": destination, "type": kind, "source": source});
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    // A user namespace with one ID does not have the group of terminals.
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let pts = if rootless { &pts[..5] } else { &pts[..] };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if rootless {
        mounts.push(mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]));
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
        let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup));
    }
    let options = ["rw", "nosuid", "nodev", "noexec", "relatime"];
    mounts.extend(volumes.iter().map(|volume| mount(volume, "tmpfs", "none", &options)));
    if rootless {
        mounts.push(mount("/etc/resolv.conf", "bind", "/etc/resolv.conf", &["rbind", "ro"]));
    }
    mounts
}

/// Returns the annotations for the fields of an image; a label with the same name has priority.
fn annotations(config: &Config) -> Map<String, Value> {
    let execution = config.execution();
    let platform = config.platform();
    let mut ports = execution.exposed_ports.clone();
    ports.sort();
    let fields = [
        ("os", platform.map(|platform| platform.os.clone())),
        ("architecture", platform.map(|platform| platform.architecture.clone())),
        ("variant", platform.and_then(|platform| platform.variant.clone())),
        ("os.version", platform.and_then(|platform| platform.os_version.clone())),
        (
            "os.features",
            platform.map(|platform| platform.os_features.join(",")).filter(|features| !features.is_empty()),
        ),
        ("author", config.author().map(str::to_owned)),
        ("created", config.created().map(str::to_owned)),
        ("stopSignal", execution.stop_signal.clone()),
        ("exposedPorts", (!ports.is_empty()).then(|| ports.join(","))),
    ];
    let mut annotations: Map<_, _> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), Value::from(value?))))
        .collect();
    for (key, value) in execution.labels.iter() {
        annotations.insert(key.to_string(), Value::from(value.to_string()));
    }
    annotations
}

fn linux(owners: &Owners) -> Value {
    let masked = [
        "/proc/kcore",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ];
    let readonly = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let mut linux = json!({"maskedPaths": masked, "readonlyPaths": readonly});
    let mut namespaces = vec!["cgroup", "pid", "network", "ipc", "uts", "mount"];
    if *owners == Owners::Rootless {
        // Without privileges there is no way to configure a network.
        namespaces.retain(|namespace| *namespace != "network");
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    if let Some((users, groups)) = maps(owners) {
        (linux["uidMappings"], linux["gidMappings"]) = (ranges(&users), ranges(&groups));
        namespaces.push("user");
    }
    linux["namespaces"] = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    linux
}

/// Returns the ranges of IDs of the user namespace, if there is one.
pub(super) fn maps(owners: &Owners) -> Option<(Vec<IdRange>, Vec<IdRange>)> {
    match owners {
        Owners::Mapped { users, groups, .. } => Some((users.clone(), groups.clone())),
        Owners::Rootless => {
            let (user, group) = ocikit_archive::unpack::current_user();
            let one = |host: u32| vec![IdRange { container: 0, host, size: 1 }];
            Some((one(user), one(group)))
        }
        _ => None,
    }
}

pub(super) fn ranges(ranges: &[IdRange]) -> Value {
    let range = |range: &IdRange| json!({"containerID": range.container, "hostID": range.host, "size": range.size});
    ranges.iter().map(range).collect()
}
