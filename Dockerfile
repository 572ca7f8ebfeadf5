# One image for every process of the Procfile; docker-compose.yml selects the process.
# Base images are pinned by digest. To renew them: docs/guides/image.md
ARG PYTHON=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

# The packages of requirements-worker.lock and voicequeue itself, without the tools that build it.
FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements-build.lock requirements-worker.lock ./
RUN pip install --require-hashes -r requirements-build.lock
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements-worker.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY voicequeue voicequeue
# `voicequeue simulate` is in the wheel.
COPY simulator simulator
# The version that the image's processes report: that of `make version`, because there is no git here.
ARG VERSION_OF_BUILD
RUN python -m hatchling build -t wheel && /venv/bin/pip install --no-deps dist/*.whl

FROM ${PYTHON} AS runtime
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN groupadd --gid 10001 voicequeue && useradd --no-create-home --uid 10001 --gid 10001 voicequeue \
    && install --directory --owner voicequeue /archive /flower /spool
COPY --from=build /venv /venv
COPY tasks tasks
COPY workers workers
COPY config config
# The file system is read-only, so Python could not keep what it compiles.
RUN python -m compileall -q /app
# A number, because Kubernetes does not resolve names.
USER 10001:10001
# On SIGTERM, requests in progress are completed and no new ones are sent.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "workers", "worker", "-n", "worker@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

# With the simulator of MusicAPI, for `docker compose --profile demo up`.
FROM runtime AS demo
COPY simulator simulator

FROM runtime
