#!/usr/bin/env bash
# Makes the recipes' base image out of Debian's packages, for a machine that reaches no registry:
# the same name, Python 3.11 and pip under the same commands. Needs root, debootstrap and buildah.
set -euo pipefail
name=docker.io/library/python:3.11-slim-bookworm
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
ln -s /usr/bin/python3 "$root/usr/local/bin/python"
container=$($BUILDAH from scratch)
$BUILDAH add --quiet "$container" "$root" / > /dev/null
$BUILDAH config --cmd python3 "$container"
$BUILDAH commit --quiet --rm "$container" "$name"
