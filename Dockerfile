# One image for every stage. The base is an argument, so that a mirror or a pinned digest can take its place.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/rgsud && /opt/rgsud/bin/pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
# The pinned packages come first: this layer changes only with the lock.
COPY requirements.lock ./
RUN /opt/rgsud/bin/uv pip install --no-cache --python /opt/rgsud/bin/python --compile-bytecode --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY rgsud_lib rgsud_lib
COPY components components
COPY pipelines pipelines
RUN /opt/rgsud/bin/uv pip install --no-cache --python /opt/rgsud/bin/python --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}
COPY --from=build /opt/rgsud /opt/rgsud
# A fixed id: volumes on a cluster are handed out by number.
RUN useradd --uid 10001 --user-group --create-home rgsud
USER 10001:10001
WORKDIR /home/rgsud
ENV PATH=/opt/rgsud/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["rgsud"]
