#!/usr/bin/env bash
# Installs ocikit, and starts a BuildKit for builds. Programs that are there are used as they are. The source of ocikit has the
# version of the action: GitHub downloads the whole repository.
set -euo pipefail

buildkit=moby/buildkit:v0.32.2

if ! command -v ocikit >/dev/null; then
  cargo install --locked --path "$(dirname "${BASH_SOURCE[0]}")/../../../cli"
fi
if [[ -z ${IMAGE:-} ]] && ! command -v buildctl >/dev/null; then
  docker run --detach --privileged --name ocikit-buildkitd "$buildkit" >/dev/null
  bin=$(mktemp -d)
  docker cp ocikit-buildkitd:/usr/bin/buildctl "$bin/buildctl"
  echo "$bin" >>"$GITHUB_PATH"
  echo BUILDKIT_HOST=docker-container://ocikit-buildkitd >>"$GITHUB_ENV"
fi
