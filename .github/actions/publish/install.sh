#!/usr/bin/env bash
# Installs ocikit, and a BuildKit for builds. What is there is used as it is. The source of ocikit has the version of the action:
# GitHub downloads the whole repository.
set -euo pipefail

if ! command -v ocikit >/dev/null; then
  cargo install --locked --path "$(dirname "${BASH_SOURCE[0]}")/../../../cli"
fi
if [[ -n ${IMAGE:-} ]] || ocikit buildkit status; then
  exit
fi

version=v0.32.2
# The image for users other than root has rootlesskit, too.
if ((EUID == 0)); then buildkit=moby/buildkit:$version; else buildkit=moby/buildkit:$version-rootless; fi
buildkit=${BUILDKIT:-$buildkit}
if [[ $buildkit != *@* ]]; then
  buildkit=$buildkit@$(ocikit digest -- "$buildkit")
fi
ocikit buildkit install --from="$buildkit"

# Ubuntu 24.04 forbids user namespaces to programs without a profile. A machine of GitHub is there for this job only.
restriction=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
if ((EUID != 0)) && [[ ${RUNNER_ENVIRONMENT:-} == github-hosted && -e $restriction && $(<$restriction) == 1 ]]; then
  sudo --non-interactive sysctl --quiet --write kernel.apparmor_restrict_unprivileged_userns=0
fi

# A machine without user namespaces may still have a Docker engine, which starts BuildKit as root in a container.
if ! ocikit buildkit status && command -v docker >/dev/null; then
  docker run --detach --privileged --name ocikit-buildkitd "moby/buildkit:$version" >/dev/null
  echo BUILDKIT_HOST=docker-container://ocikit-buildkitd >>"$GITHUB_ENV"
fi
