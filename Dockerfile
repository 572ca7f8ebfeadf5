# One image for every process of the Procfile; docker-compose.yml selects the process.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock .
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY voicequeue voicequeue
RUN python -m hatchling build -t wheel

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements-worker.lock .
RUN pip install --require-hashes -r requirements-worker.lock
COPY --from=build /build/dist/*.whl /tmp/
RUN pip install --no-deps /tmp/*.whl && useradd --create-home --uid 10001 voicequeue \
    && install --directory --owner voicequeue /archive /flower /spool
COPY tasks tasks
COPY workers workers
COPY config config
USER voicequeue

# On SIGTERM, requests in progress are completed and no new ones are sent.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "workers", "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
