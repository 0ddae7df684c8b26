#!/usr/bin/env bash
# Writes the digest that each tag of others' images stands for today into deploy/: 'make pin-images'.
# Each image's own registry is asked, by skopeo; where one does not answer, nothing is written.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v skopeo > /dev/null || { echo "skopeo is missing: apt-get install skopeo" >&2; exit 1; }
ended='(@sha256:[0-9a-f]+)?( AS base)?$'
named="(^FROM|image:( &[a-z]+)?) ([a-z0-9.-]+/)+[a-z0-9.-]+:[a-zA-Z0-9._-]+$ended"
edits=()
for image in $(grep -rhoE "$named" . | grep -oE '[^ @]+/[^ @]+' | sort -u); do
    digest=$(skopeo inspect --raw "docker://$image" | sha256sum)
    edits+=(--expression "s|$image$ended|$image@sha256:${digest%% *}\2|")
    echo "$image is sha256:${digest%% *}"
done
grep -rlE "$named" . | xargs sed --regexp-extended --in-place "${edits[@]}"
