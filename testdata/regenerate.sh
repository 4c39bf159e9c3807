#!/usr/bin/env bash
# Makes every fixture here anew with the programs that tests/peers/install.sh installs, then writes expected.json.
#
#   tests/peers/install.sh default fixtures && testdata/regenerate.sh
#   testdata/regenerate.sh --facts     leaves the fixtures alone and writes expected.json only
#
# Needs root for dockerd and podman, and curl, jq, zstd and python3. All daemons run in namespaces of their own (mounts,
# processes, network), with their files in one temporary folder: nothing of them outlives this script, and nothing
# comes from outside.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# 2024-01-01T00:00:00Z, where the producer lets us say it.
epoch=1704067200
created=2024-01-01T00:00:00Z

# Ends up in some fixtures, so it stays the same from one time to the next; the namespace has all ports free.
registry=127.0.0.1:5959

fail() { printf 'regenerate.sh: %s\n' "$*" >&2; exit 1; }

PATH=$("$here/../tests/peers/install.sh" --print-path):$PATH:/usr/sbin:/sbin
export PATH

enter_namespace() {
  [[ $# == 0 || $* == --facts ]] || fail "takes --facts or nothing, not '$*'"
  [[ $(id -u) == 0 ]] || fail "needs root: dockerd and podman do"
  local command
  for command in curl jq zstd python3 unshare; do command -v "$command" >/dev/null || fail "$command is missing"; done
  "$here/../tests/peers/install.sh" --check default fixtures >/dev/null
  [[ $(dockerd --version) == *' 20.10.'* ]] || fail "dockerd is not Debian's 20.10: what it saves has another shape"
  work=$(mktemp -d --tmpdir fixtures.XXXXXX)
  trap leave_namespace EXIT
  trap 'exit 1' INT TERM HUP
  # In the background, because bash runs no trap before a command in the foreground has ended.
  unshare --net --mount --pid --fork --mount-proc --kill-child --propagation private "$0" --inside "$work" "$@" &
  inside=$!
  wait "$inside"
}

leave_namespace() {
  local tries
  # unshare lets other signals pass by. Its end is the end of the first process inside, and so of all.
  if [[ ${inside-} ]]; then kill -KILL "$inside" 2>/dev/null || true; fi
  for ((tries = 0; tries < 50; tries++)); do
    if rm -rf "$work" 2>/dev/null; then break; fi
    sleep 0.1
  done
  # runc leaves the empty parent behind.
  find /sys/fs/cgroup -maxdepth 2 -type d -name buildkit -exec rmdir {} + 2>/dev/null || true
}

wait_for() {
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    ((++tries < 200)) || { tail -n 20 "$work/$what.log" >&2; fail "$what did not start"; }
    sleep 0.1
  done
}

start() {
  local what=$1
  shift
  "$@" >"$work/$what.log" 2>&1 &
}

# --- the world ------------------------------------------------------------------------------------

prepare() {
  busybox ip link set lo up
  # skopeo, podman and dockerd write to fixed places below these.
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /var/lib
  if [[ -d /etc/docker ]]; then mount -t tmpfs tmpfs /etc/docker; fi
  export HOME=$work/home TMPDIR=$work/tmp DOCKER_CONFIG=$work/home/.docker
  unset XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_DATA_HOME XDG_CACHE_HOME REGISTRY_AUTH_FILE DOCKER_HOST BUILDKIT_HOST
  umask 022
  mkdir -p "$HOME" "$TMPDIR"
  export BUILDKIT_HOST=unix://$work/buildkitd.sock

  start buildkitd buildkitd --root "$work/buildkit" --addr "$BUILDKIT_HOST" --oci-worker-snapshotter=native
  start olareg olareg serve --addr "${registry%:*}" --port "${registry#*:}" --store-type mem
  wait_for buildkitd buildctl debug workers
  wait_for olareg curl -sf "http://$registry/v2/"
  regctl registry set --tls disabled "$registry"
}

# Every time in the context is the epoch, so that layers come out the same without `rewrite-timestamp`.
write_context() {
  local context=$work/context long
  long=$(printf 'long-%.0s' {1..30})
  mkdir -p "$context"/{etc/"$long",app,platform,other,scanner}
  printf 'name = "acme"\n' >"$context/etc/acme.conf"
  printf 'neither ASCII nor short: such names need PAX headers\n' >"$context/etc/grüße.txt"
  printf 'the end\n' >"$context/etc/$long/end.txt"
  printf '#!/bin/sh\necho "$@"\n' >"$context/app/app"
  ln -s app "$context/app/current"
  printf 'linux/amd64\n' >"$context/platform/amd64"
  printf 'linux/arm64\n' >"$context/platform/arm64"
  printf 'linux/arm/v7\n' >"$context/platform/armv7"
  printf 'other\n' >"$context/other/other.txt"
  cp "$(command -v busybox)" "$context/scanner/busybox"
  cp "$here/recipe/scan" "$context/scanner/scan"
  find "$context" -exec touch -h -d "@$epoch" {} +
}

# solve NAME [buildctl option…]
solve() {
  local name=$1
  shift
  buildctl build --progress=plain --frontend dockerfile.v0 --local "context=$work/context" \
    --local "dockerfile=$here/recipe" --opt "filename=$name.Dockerfile" \
    --opt "build-arg:SOURCE_DATE_EPOCH=$epoch" "$@" 2>"$work/solve.log" ||
    { tail -n 30 "$work/solve.log" >&2; fail "buildctl failed for $name $*"; }
}

# The folder of one fixture, empty but for its README.
folder() {
  mkdir -p "$here/$1"
  find "$here/$1" -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
  printf '%s\n' "$1" >&2
}

# --- BuildKit -------------------------------------------------------------------------------------

platforms=linux/amd64,linux/arm64,linux/arm/v7

buildkit_fixtures() {
  local out

  out=$here/buildkit-single
  folder buildkit-single
  solve app --output "type=oci,dest=$out/image.tar,annotation.org.opencontainers.image.source=https://git.acme.example/app,annotation.org.opencontainers.image.revision=0123456789abcdef0123456789abcdef01234567,annotation.org.opencontainers.image.created=$created"
  gzip -9 -n -c "$out/image.tar" >"$out/image.tar.gz"
  zstd -q -19 -c "$out/image.tar" >"$out/image.tar.zst"

  folder buildkit-multi
  solve app --opt "platform=$platforms" --output "type=oci,dest=$here/buildkit-multi/image.tar,rewrite-timestamp=true"

  folder buildkit-tags
  solve app --output "type=oci,dest=$here/buildkit-tags/image.tar,\"name=docker.io/acme/app:1,docker.io/acme/app:2\""

  folder buildkit-zstd
  solve app --output "type=oci,dest=$here/buildkit-zstd/image.tar,compression=zstd,force-compression=true"

  out=$here/buildkit-docker
  folder buildkit-docker
  solve app --output "type=docker,dest=$out/image.tar,name=docker.io/acme/app:1"
  solve app --output "type=docker,dest=$out/schema2.tar,name=docker.io/acme/app:1,oci-mediatypes=false"

  folder buildkit-annotated
  solve app --opt platform=linux/amd64,linux/arm64 --output "type=oci,dest=$here/buildkit-annotated/image.tar,$(
    printf '%s,' \
      'annotation.com.acme.bare=every manifest' \
      'annotation[linux/arm64].com.acme.bare-arm64=the manifest for arm64' \
      'annotation-manifest.com.acme.manifest=every manifest' \
      'annotation-manifest[linux/amd64].com.acme.manifest-amd64=the manifest for amd64' \
      'annotation-manifest-descriptor.com.acme.manifest-descriptor=every descriptor in the index' \
      'annotation-manifest-descriptor[linux/amd64].com.acme.manifest-descriptor-amd64=the descriptor for amd64' \
      'annotation-index.com.acme.index=the index'
  )annotation-index-descriptor.com.acme.index-descriptor=the descriptor in index.json"

  out=$here/buildkit-attested
  folder buildkit-attested
  solve scanner --output "type=image,name=$registry/acme/scanner:1,push=true"
  local attest=(--opt attest:provenance=mode=max --opt "attest:sbom=generator=$registry/acme/scanner:1")
  solve app "${attest[@]}" --output "type=oci,dest=$out/image.tar"
  solve app "${attest[@]}" --opt platform=linux/amd64,linux/arm64 \
    --output "type=oci,dest=$out/multi.tar,name=docker.io/acme/app:1"
  solve app "${attest[@]}" --output "type=oci,dest=$out/config.tar,oci-artifact=false"

  folder layout-buildkit
  solve app --output "type=oci,dest=$here/layout-buildkit/layout,tar=false,name=docker.io/acme/app:1"

  folder layout-buildkit-cache
  solve app --export-cache "type=local,dest=$here/layout-buildkit-cache/layout,image-manifest=false"
}

# --- Docker and podman ----------------------------------------------------------------------------

# with_dockerd NAME [option…] -- runs `NAME_saves` against a daemon of its own
with_dockerd() {
  local name=$1 pid
  shift
  export DOCKER_HOST=unix://$work/$name.sock
  start "$name" "$@" --iptables=false --bridge=none --data-root "$work/$name/data" --exec-root "$work/$name/exec" \
    -H "$DOCKER_HOST" -p "$work/$name.pid"
  pid=$!
  wait_for "$name" docker version
  "${name}_saves"
  kill "$pid"
  wait "$pid" || true
  unset DOCKER_HOST
}

docker_load() { solve "$1" --output "type=docker,name=docker.io/acme/$1:1" | docker load --quiet >/dev/null; }

docker20_saves() {
  docker_load pair
  docker_load other
  docker tag acme/pair:1 acme/pair:latest
  docker save -o "$here/docker-archive/docker20-tags.tar" acme/pair:1 acme/pair:latest
  docker save -o "$here/docker-archive/docker20-two.tar" acme/pair:1 acme/other:1
  docker save -o "$here/docker-archive/docker20-untagged.tar" "$(docker image inspect -f '{{.Id}}' acme/pair:1)"
}

moby_graph_saves() {
  docker_load pair
  docker_load other
  docker tag acme/pair:1 acme/pair:latest
  docker save -o "$here/docker-archive/moby-tags.tar" acme/pair:1 acme/pair:latest
  docker save -o "$here/docker-archive/moby-two.tar" acme/pair:1 acme/other:1
}

moby_containerd_saves() {
  docker_load pair
  docker tag acme/pair:1 acme/pair:latest
  solve app --opt "platform=$platforms" --output type=oci,name=docker.io/acme/app:1 | docker load --quiet >/dev/null
  docker save -o "$here/docker-archive/moby-containerd.tar" acme/pair:1 acme/pair:latest acme/app:1
}

docker_fixtures() {
  local out=$here/docker-archive
  folder docker-archive
  with_dockerd docker20 dockerd
  with_dockerd moby_graph moby-dockerd --ip6tables=false --feature containerd-snapshotter=false
  with_dockerd moby_containerd moby-dockerd --ip6tables=false --feature containerd-snapshotter=true

  skopeo copy -q "oci-archive:$here/buildkit-single/image.tar" "docker-archive:$out/skopeo.tar:docker.io/acme/app:1"
  crane pull --format tarball --platform linux/amd64 "$registry/acme/app:single" "$registry/acme/app:1" "$out/crane.tar"

  local podman=(podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver vfs
    --cgroup-manager cgroupfs --events-backend none --log-level error)
  local image
  for image in pair other; do
    solve "$image" --output "type=docker,name=docker.io/acme/$image:1" | "${podman[@]}" load -q >/dev/null
  done
  "${podman[@]}" tag docker.io/acme/pair:1 docker.io/acme/pair:latest
  "${podman[@]}" save -q -o "$out/podman.tar" docker.io/acme/pair:1 docker.io/acme/pair:latest
  "${podman[@]}" save -q -m -o "$out/podman-two.tar" docker.io/acme/pair:1 docker.io/acme/other:1
  folder archive-podman
  "${podman[@]}" save -q --format oci-archive -o "$here/archive-podman/image.tar" docker.io/acme/pair:1
}

# --- clients of registries ------------------------------------------------------------------------

push_images() {
  local copy=(skopeo copy -q --multi-arch all --dest-tls-verify=false)
  "${copy[@]}" "oci-archive:$here/buildkit-single/image.tar" "docker://$registry/acme/app:single"
  "${copy[@]}" "oci-archive:$here/buildkit-multi/image.tar" "docker://$registry/acme/app:1"
  "${copy[@]}" "oci-archive:$here/buildkit-attested/image.tar" "docker://$registry/acme/app:attested"
}

client_fixtures() {
  local out

  out=$here/layout-skopeo/layout
  folder layout-skopeo
  skopeo copy -q "oci-archive:$here/buildkit-single/image.tar" "oci:$out:single"
  skopeo copy -q --multi-arch all "oci-archive:$here/buildkit-multi/image.tar" "oci:$out:1"

  folder archive-skopeo
  skopeo copy -q --multi-arch all "oci-archive:$here/buildkit-multi/image.tar" "oci-archive:$here/archive-skopeo/image.tar:1"

  out=$here/layout-crane/layout
  folder layout-crane
  crane pull --format oci "$registry/acme/app:single" "$out"
  crane pull --format oci --annotate-ref "$registry/acme/app:1" "$out"

  out=$here/layout-regctl/layout
  folder layout-regctl
  regctl image copy -v error "$registry/acme/app:1" "ocidir://$out:1" >/dev/null
  regctl image copy -v error --referrers "$registry/acme/app:attested" "ocidir://$out:attested" >/dev/null

  out=$here/archive-regctl
  folder archive-regctl
  regctl image export --name docker.io/acme/app:single "$registry/acme/app:single" "$out/image.tar"
  regctl image export --name docker.io/acme/app:1 "$registry/acme/app:1" "$out/multi.tar"

  out=$here/layout-sha512/layout
  folder layout-sha512
  regctl image copy "ocidir://$here/layout-regctl/layout:1" "ocidir://$work/sha512:1" >/dev/null
  regctl image mod "ocidir://$work/sha512:1" --digest-algo sha512 --create "ocidir://$out:1" >/dev/null

  out=$here/layout-oras/layout
  folder layout-oras
  oras cp --no-tty --from-plain-http "$registry/acme/app:1" --to-oci-layout "$out:1" >/dev/null

  out=$here/layout-oras-referrers/layout
  folder layout-oras-referrers
  oras cp --no-tty -r --from-plain-http "$registry/acme/app:attested" --to-oci-layout "$out:1" >/dev/null
  printf 'a note\n' >"$work/note.txt"
  (cd "$work" && oras attach --no-tty --oci-layout "$out:1" --artifact-type application/vnd.acme.note \
    --annotation "org.opencontainers.image.created=$created" note.txt:text/plain >/dev/null)

  folder archive-oras
  oras backup --no-tty --plain-http --include-referrers --output "$here/archive-oras/image.tar" \
    "$registry/acme/app:1,attested" >/dev/null

  # Two indexes above the one that BuildKit wrote, and beside the second of them an image.
  local nested=ocidir://$work/nested
  folder archive-nested
  regctl image copy "$registry/acme/app:1" "$nested:1" >/dev/null
  regctl image copy "$registry/acme/app:single" "$nested:single" >/dev/null
  regctl index create "$nested:middle" --ref "$nested:1" --annotation com.acme.level=middle >/dev/null
  regctl index create "$nested:top" --ref "$nested:middle" --ref "$nested:single" --annotation com.acme.level=top >/dev/null
  local tag
  for tag in 1 single middle; do regctl tag delete "$nested:$tag"; done
  tar -C "$work/nested" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" \
    --mode=u=rwX,go=rX -cf "$here/archive-nested/image.tar" .
}

umoci_fixture() {
  local out=$here/layout-umoci/layout bundle=$work/bundle
  local history=(--history.created "$created" --history.author acme)
  folder layout-umoci
  skopeo copy -q "oci-archive:$here/buildkit-single/image.tar" "oci:$out:1"
  umoci unpack --image "$out:1" "$bundle" >/dev/null
  rm -r "$bundle/rootfs/etc/acme.conf" "$bundle"/rootfs/etc/long-*
  mkdir "$bundle/rootfs/app/empty"
  mkfifo "$bundle/rootfs/app/fifo"
  printf 'new\n' >"$bundle/rootfs/app/new"
  chmod 4755 "$bundle/rootfs/app/new"
  ln "$bundle/rootfs/app/new" "$bundle/rootfs/app/hard"
  # A reader that takes PAX records apart at line ends loses its way here.
  python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.acme", b"two\nlines")' "$bundle/rootfs/app/new"
  find "$bundle/rootfs" -exec touch -h -d "@$epoch" {} +
  umoci repack --image "$out:2" "${history[@]}" --history.created_by 'umoci repack' "$bundle" >/dev/null
  # Moves the tag and leaves the manifest and the config it pointed to, which nothing mentions any more.
  umoci config --image "$out:2" "${history[@]}" --history.created_by 'umoci config' --created "$created" \
    --config.label com.acme.repacked=yes
  umoci tag --image "$out:2" latest
}

# --------------------------------------------------------------------------------------------------

main() {
  if [[ ${1-} != --inside ]]; then
    enter_namespace "$@"
    return
  fi
  work=$2
  prepare
  if [[ ${3-} != --facts ]]; then
    write_context
    buildkit_fixtures
    push_images
    client_fixtures
    umoci_fixture
    docker_fixtures
    # Some are 0600 or 0444. Git keeps only one bit of that.
    find "$here" -mindepth 2 -type f -exec chmod 644 {} +
  fi
  "$here/facts.sh" "$registry" "$work/facts" >"$work/expected.json"
  cp "$work/expected.json" "$here/expected.json"
}

main "$@"
