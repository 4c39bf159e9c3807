#!/usr/bin/env bash
# Installs the programs of others that tests, benches and testdata/regenerate.sh run against.
#
#   install.sh [GROUP|NAME…]          install what is missing, then print a table
#   install.sh --check [GROUP|NAME…]  install nothing, say what is missing
#   install.sh --print-path           print the folder that belongs on PATH
#
# README.md beside this file says what each of them is for.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${OCIKIT_PEERS_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/ocikit/peers}
[[ $cache == /* ]] || cache=$PWD/$cache # Go builds in another folder
bin=$cache/bin

# Each name is a folder here with a go.mod; its `tool` lines say which programs it gives.
go_peers=(crane registry regctl oras umoci buildkit olareg)
# Not in the default group: cosign alone takes longer to build than most of the others together.
# fulcio, rekor and timestamp are the services that cosign signs with where there is no key.
signing_peers=(cosign notation fulcio rekor timestamp)
# Programs here, with crates that the workspace does not have.
rust_peers=(sigstore-rs)
# Packages of Python and Node.js with a program that serves them: package-index. Needs python3 with pip, and npm.
package_peers=(packages)
# Published crates with programs: name=crate@version:programs. The crate's own lock file pins what it is built from.
crate_peers=(nydus=nydus-rs@2.2.0:nydus-image,nydusd)
# Readers of lazily pulled formats. storage alone builds as long as most of the others together.
lazy_peers=(estargz storage soci)
lazy_debian_peers=(fsck.erofs=erofs-utils dump.erofs=erofs-utils)
# Docker's engine of today, next to Debian's of 2023: only testdata/regenerate.sh wants both.
fixture_peers=(moby)
# command=package
debian_peers=(
  skopeo=skopeo podman=podman runc=runc dockerd=docker.io docker=docker.io
  docker-registry=docker-registry busybox=busybox-static openssl=openssl
  rootlesskit=rootlesskit newuidmap=uidmap newgidmap=uidmap
)

# Part of the stamp, so that other flags mean another build.
go_flags=(-trimpath -buildvcs=false -mod=readonly)

fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  local debian=("${debian_peers[@]}" "${lazy_debian_peers[@]}")
  printf '\ngroups: default (go and debian), go, debian, signing, lazy, packages, fixtures, all\nnames: %s %s\n' \
    "${go_peers[*]} ${signing_peers[*]} ${lazy_peers[*]} ${rust_peers[*]} ${crate_peers[*]%%=*}" \
    "${fixture_peers[*]} ${debian[*]%%=*}"
}

# --- what was asked for ---------------------------------------------------------------------------

go_wanted=() rust_wanted=() crates_wanted=() package_wanted=() debian_wanted=()

want() {
  local peer
  case $1 in
    default) go_wanted+=("${go_peers[@]}"); debian_wanted+=("${debian_peers[@]}"); return ;;
    go) go_wanted+=("${go_peers[@]}"); return ;;
    debian) debian_wanted+=("${debian_peers[@]}"); return ;;
    signing) go_wanted+=("${signing_peers[@]}"); rust_wanted+=("${rust_peers[@]}"); return ;;
    fixtures) go_wanted+=("${fixture_peers[@]}"); return ;;
    lazy)
      go_wanted+=("${lazy_peers[@]}") crates_wanted+=("${crate_peers[@]}") debian_wanted+=("${lazy_debian_peers[@]}")
      return
      ;;
    packages | package-index) package_wanted+=("${package_peers[@]}"); return ;;
    all) want default; want signing; want lazy; want packages; want fixtures; return ;;
    buildctl | buildkitd) go_wanted+=(buildkit); return ;;
  esac
  for peer in "${go_peers[@]}" "${signing_peers[@]}" "${lazy_peers[@]}" "${fixture_peers[@]}"; do
    if [[ $peer == "$1" ]]; then go_wanted+=("$peer"); return; fi
  done
  for peer in "${rust_peers[@]}"; do
    if [[ $peer == "$1" ]]; then rust_wanted+=("$peer"); return; fi
  done
  for peer in "${crate_peers[@]}"; do
    if [[ ${peer%%=*} == "$1" || ,${peer#*:}, == *",$1,"* ]]; then crates_wanted+=("$peer"); return; fi
  done
  for peer in "${debian_peers[@]}" "${lazy_debian_peers[@]}"; do
    if [[ ${peer%%=*} == "$1" ]]; then debian_wanted+=("$peer"); return; fi
  done
  fail "no group and no program is called '$1' (install.sh --help lists them)"
}

# --- Go programs ----------------------------------------------------------------------------------

tools_of() { sed -n 's/^tool //p' "$here/$1/go.mod"; }

program_of() {
  case $1 in
    */moby/v2/cmd/dockerd) echo moby-dockerd ;; # must not hide Debian's dockerd on PATH
    */cmd/rekor-server/posix) echo rekor-server ;; # the one that keeps its log in files
    *) echo "${1##*/}" ;;
  esac
}

# The version in go.mod is the one that was built, go.sum pins it; some of these programs cannot tell their own.
# A program of this repository has the version of what it is made of, the first requirement.
version_of() {
  local tool
  tool=$(tools_of "$1" | head -n 1)
  if [[ $tool == ocikit.test/* ]]; then
    awk '$1 ~ /\./ && $2 ~ /^v[0-9]/ { print $2; exit }' "$here/$1/go.mod"
    return
  fi
  awk -v tool="$tool" '
    { sub(/^require /, "") }
    $2 ~ /^v[0-9]/ && index(tool "/", $1 "/") == 1 && length($1) > best { best = length($1); version = $2 }
    END { print version }' "$here/$1/go.mod"
}

# BuildKit writes its version into the SBOMs it makes, and both know only a version given at link time.
linker_flags_of() {
  case $1 in
    buildkit) echo "-X github.com/moby/buildkit/version.Version=$(version_of buildkit)" ;;
    moby) echo "-X github.com/moby/moby/v2/dockerversion.Version=$(version_of moby)" ;;
  esac
}

# The build tags of containers/storage leave out drivers that need C libraries.
tags_of() {
  case $1 in
    storage) echo containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper ;;
  esac
}

# soci decompresses with zlib itself.
cgo_of() { [[ $1 == soci ]] && echo 1 || echo 0; }

stamp_of() {
  {
    cat "$here/$1/go.mod" "$here/$1/go.sum"
    find "$here/$1" -name '*.go' -print0 | LC_ALL=C sort -z | xargs -0 -r cat
    echo "${go_flags[*]} $(linker_flags_of "$1")"
  } | sha256sum | cut -d ' ' -f 1
}

is_built() {
  local tool
  [[ -f $cache/stamps/$1 && $(<"$cache/stamps/$1") == "$(stamp_of "$1")" ]] || return 1
  while read -r tool; do [[ -x $bin/$(program_of "$tool") ]] || return 1; done < <(tools_of "$1")
}

require_go() {
  command -v go >/dev/null ||
    fail "Go is missing: unpack a Go 1.26 release to /usr/local/go, put /usr/local/go/bin on PATH, and run this again"
}

build() {
  local tool name stamp
  stamp=$(stamp_of "$1")
  while read -r tool; do
    name=$(program_of "$tool")
    printf 'building %s %s\n' "$name" "$(version_of "$1")" >&2
    # By rename, so that nobody ever starts half a program, and a running one can be replaced.
    (cd "$here/$1" && CGO_ENABLED=$(cgo_of "$1") GOFLAGS='' GOWORK=off go build "${go_flags[@]}" -tags "$(tags_of "$1")" \
      -ldflags "$(linker_flags_of "$1")" -o "$bin/.$name.new" "$tool") || return 1
    mv "$bin/.$name.new" "$bin/$name"
  done < <(tools_of "$1")
  printf '%s\n' "$stamp" >"$cache/stamps/$1"
}

install_go() {
  local peer
  require_go
  mkdir -p "$bin" "$cache/stamps"
  exec 8>"$cache/lock"
  flock 8
  for peer in "$@"; do
    # Another run may have built it while this one waited.
    is_built "$peer" || build "$peer" || printf 'install.sh: %s did not build\n' "$peer" >&2
  done
  exec 8>&-
}

# --- Rust programs --------------------------------------------------------------------------------

rust_stamp_of() { cat "$here/$1"/Cargo.{toml,lock} "$here/$1"/src/*.rs | sha256sum | cut -d ' ' -f 1; }

# The crate that the program is for, which its Cargo.toml pins.
rust_version_of() { sed -n 's/.*version = "=\([^"]*\)".*/\1/p' "$here/$1/Cargo.toml" | head -n 1; }

is_rust_built() { [[ -x $bin/$1 && -f $cache/stamps/$1 && $(<"$cache/stamps/$1") == "$(rust_stamp_of "$1")" ]]; }

build_rust() {
  printf 'building %s %s\n' "$1" "$(rust_version_of "$1")" >&2
  cargo build --release --locked --quiet --manifest-path "$here/$1/Cargo.toml" --target-dir "$cache/target/$1" || return 1
  cp "$cache/target/$1/release/$1" "$bin/.$1.new"
  mv "$bin/.$1.new" "$bin/$1"
  rm -rf -- "$cache/target/$1"
  rust_stamp_of "$1" >"$cache/stamps/$1"
}

install_rust() {
  local peer
  mkdir -p "$bin" "$cache/stamps"
  exec 8>"$cache/lock"
  flock 8
  for peer in "$@"; do
    is_rust_built "$peer" || build_rust "$peer" || printf 'install.sh: %s did not build\n' "$peer" >&2
  done
  exec 8>&-
}

# --- packages -------------------------------------------------------------------------------------

# Wheels depend on the version of Python.
package_stamp_of() { { cat "$here/$1"/*; python3 --version; } | sha256sum | cut -d ' ' -f 1; }

are_packages_there() {
  [[ -x $bin/package-index && -f $cache/stamps/$1 && $(<"$cache/stamps/$1") == "$(package_stamp_of "$1")" ]]
}

download_packages() {
  local new=$cache/packages.new
  printf 'downloading packages of Python and Node.js\n' >&2
  rm -rf -- "$new" "$cache/packages"
  mkdir -p "$new"
  python3 -m pip download --quiet --disable-pip-version-check --only-binary :all: --dest "$new" \
    --requirement "$here/$1/python.txt" >&2 || return 1
  (cd "$new" && xargs npm pack --silent <"$here/$1/node.txt" >/dev/null) || return 1
  mv "$new" "$cache/packages"
  install -m 755 "$here/$1/index.py" "$bin/package-index"
  package_stamp_of "$1" >"$cache/stamps/$1"
}

install_packages() {
  local peer
  mkdir -p "$bin" "$cache/stamps"
  exec 8>"$cache/lock"
  flock 8
  for peer in "$@"; do
    are_packages_there "$peer" || download_packages "$peer" || printf 'install.sh: %s could not be downloaded\n' "$peer" >&2
  done
  exec 8>&-
}

# --- Programs of published crates -----------------------------------------------------------------

crate_programs_of() { tr , '\n' <<<"${1#*:}"; }

crate_version_of() { sed 's/.*@\(.*\):.*/\1/' <<<"$1"; }

is_crate_built() {
  local program
  [[ -f $cache/stamps/${1%%=*} && $(<"$cache/stamps/${1%%=*}") == "$1" ]] || return 1
  while read -r program; do [[ -x $bin/$program ]] || return 1; done < <(crate_programs_of "$1")
}

build_crate() {
  local name=${1%%=*} crate program flags=()
  crate=${1#*=}
  crate=${crate%@*}
  printf 'building %s %s\n' "$name" "$(crate_version_of "$1")" >&2
  while read -r program; do flags+=(--bin "$program"); done < <(crate_programs_of "$1")
  # Not in $here: the toolchain and the settings of this workspace are not those of the crate.
  (cd / && cargo install "$crate" --version "=$(crate_version_of "$1")" --locked --quiet --no-track --force \
    "${flags[@]}" --root "$cache/crates/$name" --target-dir "$cache/target/$name") || return 1
  while read -r program; do mv "$cache/crates/$name/bin/$program" "$bin/$program"; done < <(crate_programs_of "$1")
  rm -rf -- "$cache/target/$name" "$cache/crates/$name"
  printf '%s\n' "$1" >"$cache/stamps/$name"
}

install_crates() {
  local peer
  mkdir -p "$bin" "$cache/stamps"
  exec 8>"$cache/lock"
  flock 8
  for peer in "$@"; do
    is_crate_built "$peer" || build_crate "$peer" || printf 'install.sh: %s did not build\n' "${peer%%=*}" >&2
  done
  exec 8>&-
}

# --- Debian programs ------------------------------------------------------------------------------

# Daemons live in sbin, which an ordinary user may not have on PATH.
path_of() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" 2>/dev/null; }

is_installed() {
  local path
  path=$(path_of "$1") || return 1
  # A busybox with shared libraries starts in no image made `FROM scratch`.
  [[ $1 != busybox ]] || ! ldd "$path" 2>/dev/null | grep -q '=>'
}

apt_command() { printf 'apt-get install -y --no-install-recommends %s' "$*"; }

policy=/usr/sbin/policy-rc.d
policy_kept=$policy.before-ocikit-peers

# docker.io and docker-registry come with services. Tests start their own on ports and folders of their
# choice, and in a container the attempt to start one fails or hangs.
forbid_services() {
  restore_services # a run that was killed may have left its own
  if [[ -e $policy ]]; then mv "$policy" "$policy_kept"; else : >"$policy_kept.none"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
}

restore_services() {
  if [[ -e $policy_kept ]]; then
    mv -f "$policy_kept" "$policy"
  elif [[ -e $policy_kept.none ]]; then
    rm -f "$policy" "$policy_kept.none"
  fi
}

install_debian() {
  command -v apt-get >/dev/null || { printf 'install.sh: no apt-get here\n' >&2; return 0; }
  [[ $(id -u) == 0 ]] || { printf 'install.sh: not root, so apt-get was not tried\n' >&2; return 0; }
  (
    exec 8>/run/lock/ocikit-peers.lock
    flock 8
    trap restore_services EXIT
    trap 'exit 1' INT TERM HUP
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    forbid_services &&
      apt-get update -q >&2 </dev/null &&
      apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold \
        "$@" >&2 </dev/null
  ) || printf 'install.sh: apt-get failed\n' >&2
}

# Each of these answers in a few milliseconds; asking dpkg would miss a program that came another way.
debian_version() {
  local said
  case $1 in
    busybox) said=$("$2" 2>&1 | head -n 1) || true ;;
    *.erofs) said=$("$2" -V 2>/dev/null | head -n 1) || true ;;
    *) said=$("$2" --version 2>/dev/null | head -n 1) || true ;;
  esac
  grep -oE -m 1 '[0-9]+\.[0-9]+[^ ,]*' <<<"$said" | head -n 1 || echo '?'
}

# --- the three things it does ---------------------------------------------------------------------

go_missing=() rust_missing=() crates_missing=() package_missing=() debian_missing=() packages_missing=()

look() {
  local peer
  go_missing=() rust_missing=() crates_missing=() package_missing=() debian_missing=() packages_missing=()
  for peer in "${go_wanted[@]}"; do is_built "$peer" || go_missing+=("$peer"); done
  for peer in "${rust_wanted[@]}"; do is_rust_built "$peer" || rust_missing+=("$peer"); done
  for peer in "${crates_wanted[@]}"; do is_crate_built "$peer" || crates_missing+=("$peer"); done
  for peer in "${package_wanted[@]}"; do are_packages_there "$peer" || package_missing+=("$peer"); done
  for peer in "${debian_wanted[@]}"; do
    is_installed "${peer%%=*}" && continue
    debian_missing+=("${peer%%=*}")
    [[ " ${packages_missing[*]} " == *" ${peer#*=} "* ]] || packages_missing+=("${peer#*=}")
  done
}

report_missing() {
  if ((${#go_missing[@]})); then
    printf 'missing, or built from another go.mod: %s\n  tests/peers/install.sh %s\n' "${go_missing[*]}" "${go_missing[*]}"
  fi
  if ((${#rust_missing[@]})); then
    printf 'missing, or built from other sources: %s\n  tests/peers/install.sh %s\n' "${rust_missing[*]}" "${rust_missing[*]}"
  fi
  if ((${#crates_missing[@]})); then
    printf 'missing, or of another version: %s\n  tests/peers/install.sh %s\n' "${crates_missing[*]%%=*}" "${crates_missing[*]%%=*}"
  fi
  if ((${#package_missing[@]})); then
    printf 'missing, or of another version: %s\n  tests/peers/install.sh %s\n' "${package_missing[*]}" "${package_missing[*]}"
  fi
  if ((${#debian_missing[@]})); then
    printf 'missing: %s\n  apt-get update && %s\n' "${debian_missing[*]}" "$(apt_command "${packages_missing[@]}")"
    printf '  or, as root: tests/peers/install.sh %s\n' "${debian_missing[*]}"
  fi
}

table() {
  local peer tool path
  printf '%-16s %-22s %s\n' NAME VERSION PATH
  for peer in "${go_wanted[@]}"; do
    while read -r tool; do
      printf '%-16s %-22s %s\n' "$(program_of "$tool")" "$(version_of "$peer")" "$bin/$(program_of "$tool")"
    done < <(tools_of "$peer")
  done
  for peer in "${rust_wanted[@]}"; do
    printf '%-16s %-22s %s\n' "$peer" "$(rust_version_of "$peer")" "$bin/$peer"
  done
  for peer in "${crates_wanted[@]}"; do
    while read -r tool; do
      printf '%-16s %-22s %s\n' "$tool" "$(crate_version_of "$peer")" "$bin/$tool"
    done < <(crate_programs_of "$peer")
  done
  for peer in "${package_wanted[@]}"; do printf '%-16s %-22s %s\n' package-index - "$bin/package-index"; done
  for peer in "${debian_wanted[@]}"; do
    path=$(path_of "${peer%%=*}")
    printf '%-16s %-22s %s\n' "${peer%%=*}" "$(debian_version "${peer%%=*}" "$path")" "$path"
  done
}

main() {
  local check=no asked=()
  while (($#)); do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --print-path) printf '%s\n' "$bin"; exit 0 ;;
      --check) check=yes ;;
      -*) fail "unknown option $1 (install.sh --help lists them)" ;;
      *) asked+=("$1") ;;
    esac
    shift
  done
  ((${#asked[@]})) || asked=(default)
  local name
  for name in "${asked[@]}"; do want "$name"; done

  look
  if [[ $check == no ]]; then
    if ((${#packages_missing[@]})); then install_debian "${packages_missing[@]}"; fi
    if ((${#go_missing[@]})); then install_go "${go_missing[@]}"; fi
    if ((${#rust_missing[@]})); then install_rust "${rust_missing[@]}"; fi
    if ((${#crates_missing[@]})); then install_crates "${crates_missing[@]}"; fi
    if ((${#package_missing[@]})); then install_packages "${package_missing[@]}"; fi
    look
  fi
  if ((${#go_missing[@]} + ${#rust_missing[@]} + ${#crates_missing[@]} + ${#package_missing[@]} + ${#debian_missing[@]})); then
    report_missing >&2
    exit 1
  fi
  table
}

main "$@"
