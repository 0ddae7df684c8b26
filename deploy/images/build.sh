#!/usr/bin/env bash
# Builds both images from their recipes, tagged with the package's version.
#   ENGINE=docker   as anywhere: packages from PyPI, the base image from its registry
#   ENGINE=buildah  on a machine without an engine: needs root; what pip reaches here, by its own
#                   configuration, is downloaded first and lent to the build, and the base image
#                   is Debian's where no registry has been asked for it
# STORAGE is buildah's folder for images (podman's --root finds them there), PYTHON a 3.11 with pip.
set -euo pipefail
cd "$(dirname "$0")/../.."
images="vllm-deployment-tools vllm-training-tools"
version=$(python3 -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')

if [ "${ENGINE:=buildah}" = docker ]; then
    for image in $images; do
        docker build --file "deploy/images/$image/Dockerfile" --tag "$image:$version" .
    done
    exit
fi

lent=$(mktemp -d)
trap 'rm -rf "$lent"' EXIT
"$PYTHON" deploy/images/requirements.py cluster training > "$lent/requirements.txt"
echo "Downloading the packages ..."
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --constraint constraints.txt \
    --wheel-dir "$lent/wheels" --requirement "$lent/requirements.txt" setuptools
# Lent at /mnt, which every Debian has, so that no mount point stays in the image.
printf '[global]\nno-index = true\nfind-links = /mnt\n' > "$lent/pip.conf"

buildah() { command buildah --root "$STORAGE" --runroot "$STORAGE/run" "$@"; }
export -f buildah
deploy/images/debian-base.sh
for image in $images; do
    buildah bud --isolation chroot --pull-never --secret "id=pip,src=$lent/pip.conf" \
        --volume "$lent/wheels:/mnt:ro" \
        --file "deploy/images/$image/Dockerfile" --tag "$image:$version" .
done
