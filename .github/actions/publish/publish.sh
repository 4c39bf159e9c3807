#!/usr/bin/env bash
# Calls `ocikit publish` with the inputs in the environment. Nothing in them is read as shell text.
set -euo pipefail

arguments=(publish --config="${CONFIG:-publish.yaml}")

# Adds a flag for each line of an input that is not empty.
each_line() {
  local line
  while IFS= read -r line; do
    line=${line%$'\r'}
    if [[ -n ${line//[[:space:]]/} ]]; then
      arguments+=("$1=$line")
    fi
  done <<<"$2"
}

each_line --name "${NAME:-}"
each_line --tag "${TAGS:-}"
if [[ -z ${IMAGE:-} ]]; then
  context=${CONTEXT:-.}
  arguments+=("--build=$context" "--file=$context/${DOCKERFILE:-Dockerfile}")
  each_line --build-arg "${BUILD_ARGS:-}"
  each_line --platform "${PLATFORMS:-}"
  each_line --target "${TARGET:-}"
  if [[ ${EXPORT_TAGS:-false} == true ]]; then arguments+=(--export-tags); fi
fi
if [[ ${RESTRICTED:-false} == true ]]; then arguments+=(--restricted); fi
if [[ ${EXCHANGE:-false} == true ]]; then arguments+=(--exchange); fi
if [[ ${DRY_RUN:-false} == true ]]; then arguments+=(--dry-run); fi
while IFS= read -r line; do
  if [[ -n $line ]]; then arguments+=("$line"); fi
done <<<"${ARGUMENTS:-}"
if [[ -n ${IMAGE:-} ]]; then arguments+=(-- "$IMAGE"); fi

exec ocikit "${arguments[@]}"
