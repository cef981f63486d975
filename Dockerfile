# One image for every stage, the MLflow server and serving. The base is an argument, so that a mirror or a pinned
# digest can take its place. Built by `make image`, which fills in VERSION and COMMIT.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS packages
WORKDIR /src
# The installer stays behind in this stage; without pip nobody adds to the finished image.
RUN python3 -m venv --without-pip /opt/rgsud \
    && python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
# Compiled now, since nothing can be written later.
COPY requirements.lock ./
RUN /opt/uv/bin/uv pip install --no-cache --python /opt/rgsud/bin/python --compile-bytecode --require-hashes -r requirements.lock

FROM packages AS code
COPY pyproject.toml README.md ./
COPY rgsud_lib rgsud_lib
COPY components components
COPY pipelines pipelines
RUN /opt/uv/bin/uv pip install --no-cache --python /opt/rgsud/bin/python --target /opt/code --compile-bytecode \
    --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}
# A fixed id: volumes on a cluster are handed out by number. Only the cache folder and /tmp are written to, so the
# root file system may be read-only with those two mounted.
RUN groupadd --gid 10001 rgsud \
    && useradd --uid 10001 --gid 10001 --home-dir /var/cache/rgsud --no-create-home --shell /usr/sbin/nologin rgsud \
    && install -d -o 10001 -g 10001 /var/cache/rgsud \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-*
# Packages and code apart: a change of code is a layer of a megabyte, not of six gigabytes.
COPY --from=packages /opt/rgsud /opt/rgsud
COPY --from=code /opt/code /opt/code
ENV PATH=/opt/code/bin:/opt/rgsud/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/cache/rgsud \
    RGSUD_CACHE=/var/cache/rgsud \
    XDG_CACHE_HOME=/var/cache/rgsud \
    HF_HOME=/var/cache/rgsud/huggingface \
    TORCH_HOME=/var/cache/rgsud/torch \
    MPLCONFIGDIR=/var/cache/rgsud/matplotlib
ARG VERSION=unknown
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="rgsud" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT
ENV RGSUD_COMMIT=$COMMIT
USER 10001:10001
WORKDIR /var/cache/rgsud
HEALTHCHECK --interval=10m --timeout=60s --start-period=60s CMD ["rgsud", "doctor"]
CMD ["rgsud", "--help"]
