# A builder image on top of another image, such as node:22-alpine or python:3.12-slim: its tools, BuildKit and ocikit, as root.
# docs/build.md says how to build and run it.

# An image of BuildKit, such as moby/buildkit, with its digest.
ARG BUILDKIT
# The image with the tools.
ARG TOOLCHAIN

FROM ${BUILDKIT} AS buildkit

FROM ${TOOLCHAIN}

# These programs are static, so they run in any image.
COPY --from=buildkit /usr/bin/buildctl /usr/bin/buildkitd /usr/bin/buildkit-runc /usr/bin/
# A static ocikit, from the context `program`: --build-context program=DIRECTORY
COPY --from=program --chmod=0755 ocikit /usr/local/bin/ocikit

USER 0:0
WORKDIR /build
WORKDIR /source
VOLUME ["/source", "/build"]

ENTRYPOINT ["/usr/local/bin/ocikit", "build"]
