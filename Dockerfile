# Jobmon's services: one image for JSM, JQS, the health monitor, distributors and the set-up of the database.
# ./runserver.py --docker builds it; by hand: docker build -t jobmon .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheels
ARG HATCHLING=1.33.0
WORKDIR /src
# What Jobmon needs, in a layer of its own: it is built again only when the pins change.
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --quiet --disable-pip-version-check --wheel-dir /wheels -r constraints.txt \
 && pip install --quiet --disable-pip-version-check "hatchling==${HATCHLING}"
COPY pyproject.toml README.md ./
COPY migrations migrations
COPY sql sql
COPY jobmon jobmon
RUN pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 jobmon \
 && useradd --uid 10001 --gid jobmon --no-create-home --home-dir /tmp --shell /usr/sbin/nologin jobmon
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --quiet --no-cache-dir --no-index --disable-pip-version-check --root-user-action ignore \
        --find-links /wheels jobmon
COPY --chmod=755 wait-for-db.sh wait-for-tables.sh /usr/local/bin/
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
# JOBMON_ROLE says which service a container is.
HEALTHCHECK --interval=10s --timeout=15s --start-period=300s --retries=3 \
    CMD ["python", "-m", "jobmon.containers.healthy"]
CMD ["jobmon", "--help"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Jobmon" \
      org.opencontainers.image.description="Keeps the truth about batch jobs: JSM, JQS, health monitor, distributor" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
