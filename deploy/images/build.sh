#!/usr/bin/env bash
# Builds the images from their recipes, tagged with the package's version: 'make images'.
#   ENGINE=docker   as anywhere: the base image from its registry, the packages from PyPI
#   ENGINE=buildah  as root on a machine without an engine: the base image from Debian's packages,
#                   the packages from the folder $PACKAGES, the images into the folder $STORAGE
set -euo pipefail
cd "$(dirname "$0")/../.."
build() { # COMMAND...
    for image in vllm-deployment-tools vllm-training-tools; do
        "$@" --file "deploy/images/$image/Dockerfile" --tag "$image:$VERSION" .
    done
    "$@" --file deploy/images/lora-assets-trial/Dockerfile --tag "lora-assets-trial:$VERSION" \
        --build-arg "TRAINING=vllm-training-tools:$VERSION" .
}

if [ "$ENGINE" = docker ]; then
    build docker build
    exit
fi

# Where the kernel takes overlays on this file system, no layer is a copy of those below it.
probe=$(mktemp -d -p "$STORAGE")
mkdir "$probe"/{lower,upper,work,merged}
if mount -t overlay overlay "$probe/merged" \
    -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" 2> /dev/null; then
    umount "$probe/merged"
    export STORAGE_DRIVER=overlay
else
    export STORAGE_DRIVER=vfs
fi
rm -r "$probe"

buildah() { command buildah --root "$STORAGE" --runroot "$STORAGE/run" "$@"; }
base=docker.io/library/python:3.11-slim-bookworm
buildah inspect "$base" > /dev/null 2>&1 || {
    root=$(mktemp -d -p "$STORAGE")
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
        bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}"
    rm -r "$root"/var/cache/apt/archives "$root"/var/lib/apt/lists
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" / > /dev/null
    buildah commit --quiet --rm "$container" "$base" > /dev/null
    rm -r "$root"
}
printf '[global]\nno-index = true\nfind-links = /mnt\n' > "$STORAGE/pip.conf"
# Lent at /mnt, which the base image has, so that no mount point is left in the image.
# Not by --layers: buildah 1.28 then finds nothing in a stage that it took from its cache.
# With requirements of its own, since PyTorch may be there without CUDA.
build buildah bud --isolation chroot --pull-never --build-arg REQUIREMENTS=/mnt \
    --secret "id=pip,src=$STORAGE/pip.conf" --volume "$PACKAGES:/mnt:ro"
