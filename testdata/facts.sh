#!/usr/bin/env bash
# Prints expected.json: what tools other than ours say about every fixture. Started by regenerate.sh.
#
#   facts.sh REGISTRY FOLDER     an empty olareg, and a folder for temporary files
#
# Where two tools can be asked, both are, and the script ends if they disagree. README.md says who told what.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
registry=$1
work=$2

fail() { printf 'facts.sh: %s: %s\n' "$fixture" "$*" >&2; exit 1; }

same() { [[ $2 == "$3" ]] || fail "$1: '$2' and '$3' differ"; }

# Collects the JSON values on stdin into an array.
array() { jq -s .; }

# --- OCI layouts ----------------------------------------------------------------------------------

# Every blob hashes to its name, according to coreutils.
check_blobs() {
  local blob algorithm
  for blob in "$1"/blobs/*/*; do
    algorithm=$(basename "$(dirname "$blob")")
    same "hash of a blob" "$("${algorithm}sum" <"$blob" | cut -d ' ' -f 1)" "$(basename "$blob")"
  done
}

skopeo_digest() { skopeo inspect --raw "$@" | sha256sum | sed 's/^\([0-9a-f]*\).*/sha256:\1/'; }

blob() { printf '%s/blobs/%s' "$1" "${2/://}"; }

# Each fixture has a repository of its own.
repository() { printf '%s/facts/%s' "$registry" "${fixture//[^a-z0-9]/-}"; }

# The digest of one entry of index.json, as clients of a registry see it. No client but regctl knows sha512.
check_root() {
  local layout=$1 digest=$2 reference
  reference=$(repository)
  if [[ $digest == sha512:* ]]; then
    same "root of regctl" "$(regctl manifest head "ocidir://$layout@$digest")" "$digest"
    return
  fi
  oras cp --no-tty --from-oci-layout "$layout@$digest" --to-plain-http "$reference:root" >/dev/null
  same "root of crane" "$(crane digest "$reference:root")" "$digest"
  same "root of regctl" "$(regctl manifest head "$reference:root")" "$digest"
  same "root of skopeo" "$(skopeo_digest --tls-verify=false "docker://$reference:root")" "$digest"
}

# One object per image below a manifest or index. Attestations and artifacts come as what they are.
images() {
  local layout=$1 digest=$2 manifest config kind=image
  manifest=$(blob "$layout" "$digest")
  if jq -e 'has("manifests")' "$manifest" >/dev/null; then
    local child
    for child in $(jq -r '.manifests[].digest' "$manifest"); do images "$layout" "$child"; done
    return
  fi
  config=$(jq -r .config.digest "$manifest")
  if jq -e '.layers[0].mediaType == "application/vnd.in-toto+json"' "$manifest" >/dev/null; then
    kind=attestation
  elif jq -e 'has("artifactType")' "$manifest" >/dev/null; then
    kind=artifact
  fi
  jq -n --arg kind "$kind" --arg digest "$digest" --slurpfile manifest "$manifest" \
    --slurpfile config "$(blob "$layout" "$config")" '
    $manifest[0] as $m | $config[0] as $c |
    {kind: $kind, digest: $digest, media_type: $m.mediaType, config: $m.config.digest, layers: [$m.layers[].digest]}
    + if $kind == "image" then
        {platform: ([$c.os, $c.architecture, $c.variant] | map(select(.)) | join("/")), diff_ids: $c.rootfs.diff_ids}
      else {} end'
}

# crane picks the same image for each platform, and reads the same layers from it.
check_platforms() {
  local root=$1 image reference platform digest
  reference=$(repository)
  while read -r image; do
    platform=$(jq -r .platform <<<"$image") digest=$(jq -r .digest <<<"$image")
    same "digest for $platform" "$(crane digest --platform "$platform" "$reference@$root")" "$digest"
    same "layers for $platform" "$(crane manifest "$reference@$digest" | jq -c '[.layers[].digest]')" \
      "$(jq -c .layers <<<"$image")"
    same "diff ids for $platform" "$(crane config "$reference@$digest" | jq -c .rootfs.diff_ids)" \
      "$(jq -c .diff_ids <<<"$image")"
  done < <(jq -c '.[] | select(.kind == "image")')
}

roots() {
  local layout=$1 descriptor digest found depth
  while read -r descriptor; do
    digest=$(jq -r .digest <<<"$descriptor")
    check_root "$layout" "$digest"
    found=$(images "$layout" "$digest" | array)
    depth=$(jq '[.. | objects | select(has("manifests"))] | length' "$(blob "$layout" "$digest")")
    # crane looks one index deep and knows no sha512.
    if [[ $digest != sha512:* && $fixture != archive-nested/* && $depth -gt 0 ]]; then
      check_platforms "$digest" <<<"$found"
    fi
    jq -n --argjson descriptor "$descriptor" --argjson found "$found" '$descriptor + {manifests: $found}'
  done < <(jq -c '[.manifests[] | {digest, media_type: .mediaType, size}] | unique | .[]' "$layout/index.json") | array
}

# What each name in index.json means to oras and regctl, or to skopeo where it is a whole reference: the other two
# know only tags. Where index.json has one name for two things, what each of them takes it for.
tags() {
  local layout=$1 name digest other
  while read -r name; do
    case $name in
      */*)
        digest=$(skopeo_digest "oci:$layout:$name")
        other=$digest
        ;;
      *)
        digest=$(oras resolve --oci-layout "$layout:$name")
        other=$(regctl manifest head "ocidir://$layout:$name")
        ;;
    esac
    if jq -e --arg name "$name" '
      [.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $name).digest] | unique | length > 1
    ' "$layout/index.json" >/dev/null; then
      jq -n --arg name "$name" --arg oras "$digest" --arg regctl "$other" '{($name): {oras: $oras, regctl: $regctl}}'
    else
      same "tag $name" "$digest" "$other"
      jq -n --arg name "$name" --arg digest "$digest" '{($name): $digest}'
    fi
  done < <(oras repo tags --oci-layout "$layout") | jq -s 'add // {}'
}

# containerd and Docker go by another annotation.
names() {
  jq '[.manifests[] | {(.annotations["io.containerd.image.name"] // empty): .digest}] | add // {}' "$1/index.json"
}

# olareg, which by now holds everything that index.json leads to, lists what refers to what.
referrers() {
  local layout=$1 file reference
  reference=$(repository)
  for file in "$layout"/blobs/sha256/*; do
    jq -e 'type == "object" and (has("layers") or has("manifests"))' "$file" >/dev/null 2>&1 || continue
    curl -sf "http://${reference/\//\/v2\/}/referrers/sha256:$(basename "$file")" |
      jq --arg digest "sha256:$(basename "$file")" '
        .manifests | select(length > 0) | {($digest): [.[] | {digest, artifact_type: .artifactType}]}'
  done | jq -s 'add // {}'
}

oci() {
  local layout=$1 roots tags referrers
  check_blobs "$layout"
  if [[ $fixture == layout-buildkit-cache/* ]]; then
    # Its index lists layers as if they were manifests: no client takes it.
    jq '{roots: [.manifests[] | {digest, media_type: .mediaType, size}]}' "$layout/index.json"
  else
    roots=$(roots "$layout")
    tags=$(tags "$layout")
    referrers=$(referrers "$layout")
    jq -n --argjson roots "$roots" --argjson tags "$tags" --argjson names "$(names "$layout")" \
      --argjson referrers "$referrers" '{roots: $roots, tags: $tags, names: $names, referrers: $referrers}'
  fi | jq --arg count "$(find "$layout/blobs" -type f | wc -l)" --arg bytes "$(cat "$layout"/blobs/*/* | wc -c)" \
    '. + {blobs: {count: ($count | tonumber), bytes: ($bytes | tonumber)}}'
}

# --- docker-archives ------------------------------------------------------------------------------

uncompressed() {
  case $(head -c 2 "$1" | od -An -tx1 | tr -d ' ') in
    1f8b) gzip -dc "$1" ;;
    *) cat "$1" ;;
  esac
}

docker_images() {
  local dir=$1 entry config layer diff_ids
  while read -r entry; do
    config=$dir/$(jq -r .Config <<<"$entry")
    diff_ids=()
    for layer in $(jq -r '.Layers[]' <<<"$entry"); do
      diff_ids+=("sha256:$(uncompressed "$dir/$layer" | sha256sum | cut -d ' ' -f 1)")
    done
    same "diff ids" "$(jq -c .rootfs.diff_ids "$config")" "$(jq -cn '$ARGS.positional' --args "${diff_ids[@]}")"
    jq -n --argjson entry "$entry" --arg config "sha256:$(sha256sum "$config" | cut -d ' ' -f 1)" \
      '{tags: ($entry.RepoTags // []), config: $config, diff_ids: $ARGS.positional}' --args "${diff_ids[@]}"
  done < <(jq -c '.[]' "$dir/manifest.json") | array
}

docker_archive() {
  local file=$1 dir=$2 said
  said=$(docker_images "$dir")
  same "tags of skopeo" "$(skopeo list-tags "docker-archive:$file" | jq -c '.Tags - ["@0"] | unique')" \
    "$(jq -c '[.[].tags[]] | unique' <<<"$said")"
  printf '%s' "$said"
}

# --- all of them ----------------------------------------------------------------------------------

# Where GNU tar sees headers, counted in blocks of 512 bytes, and where it sees the end.
blocks() {
  tar -tRf "$1" | jq -Rn '
    [inputs | capture("^block (?<block>[0-9]+): (?<name>.*)$") | {block: (.block | tonumber), name}] as $all |
    {entries: ($all | map(select(.name | startswith("**") | not)) | length),
     end: ($all | map(select(.name | startswith("**")))[0].block),
     index: ([$all[] | select(.name | test("^(\\./)?index.json$"))][0].block),
     manifest: ([$all[] | select(.name | test("^(\\./)?manifest.json$"))][0].block)}'
}

archive() {
  local file=$1 dir=$work/$fixture.d result oci docker
  mkdir -p "$dir"
  tar -xf "$file" -C "$dir"
  result=$(jq -n --arg sha256 "$(sha256sum <"$file" | cut -d ' ' -f 1)" --arg size "$(stat -c %s "$file")" \
    --argjson blocks "$(blocks "$file")" '{file: {sha256: $sha256, size: ($size | tonumber)}, tar: $blocks}')
  if [[ -e $dir/index.json ]]; then
    oci=$(oci "$dir")
    result=$(jq --argjson oci "$oci" '. + {oci: $oci}' <<<"$result")
  fi
  if [[ -e $dir/manifest.json ]]; then
    docker=$(docker_archive "$file" "$dir")
    result=$(jq --argjson docker "$docker" '. + {docker: $docker}' <<<"$result")
  fi
  printf '%s' "$result"
}

compressed() {
  local inner=${1%.*}
  same "what is in it" "$("$2" -dc "$1" | sha256sum)" "$(sha256sum <"$inner")"
  jq -n --arg same "${inner#"$here"/}" --arg sha256 "$(sha256sum <"$1" | cut -d ' ' -f 1)" \
    --arg size "$(stat -c %s "$1")" '{file: {sha256: $sha256, size: ($size | tonumber)}, compressed: $same}'
}

main() {
  local path value
  for path in "$here"/*/*.tar "$here"/*/*.tar.gz "$here"/*/*.tar.zst "$here"/*/layout; do
    fixture=${path#"$here"/}
    case $path in
      *.tar) value=$(archive "$path") ;;
      *.gz) value=$(compressed "$path" gzip) ;;
      *.zst) value=$(compressed "$path" zstd) ;;
      *) value=$(oci "$path" | jq '{oci: .}') ;;
    esac
    jq -n --arg fixture "$fixture" --argjson value "$value" '{($fixture): $value}'
  done | jq -s -S '
    # A manifest is the same wherever it stands, so it is told once.
    add | {
      manifests: ([.[].oci.roots[]?.manifests[]?] | map({(.digest): del(.digest)}) | add),
      fixtures: map_values(if .oci then .oci.roots |= map(if .manifests then .manifests |= map(.digest) else . end) else . end)
    }'
}

main
