# container-manager in a container:
#
#   docker build -t container-manager .
#   docker run -d -p 127.0.0.1:8080:8080 -v jobs:/var/lib/container-manager \
#     -v /var/run/docker.sock:/var/run/docker.sock \
#     --group-add "$(stat -c %g /var/run/docker.sock)" container-manager --trust gateway
#
# Any image with Python 3.11 or newer, pip 22.3 or newer, and a shell will do as the base.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# pip's own variables, for those who have packages from elsewhere. They stay in this stage.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python3 -m venv --without-pip /opt/container-manager
COPY requirements.txt .
RUN python3 -m pip --python /opt/container-manager install --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY container_manager container_manager
RUN python3 -m pip --python /opt/container-manager install --no-deps .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="container-manager" \
      org.opencontainers.image.description="A masterless job queue for containers"
COPY --from=build /opt/container-manager /opt/container-manager
ENV PATH=/opt/container-manager/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CONTAINER_MANAGER_DATA_DIR=/var/lib/container-manager
# For any --user, as /tmp is; the files in there are their owner's alone. New volumes take it over.
RUN mkdir -p /var/lib/container-manager /run/cluster \
    && chmod 1777 /var/lib/container-manager /run/cluster
VOLUME /var/lib/container-manager
# No user's number is known to be in the group of the engine's socket, and none is needed for it:
# the group is given by --group-add.
USER 10001:10001
EXPOSE 8080 4001
# Healthy is a daemon that can deploy. 127.0.0.1 needs no token.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python3", "-c", "\
import http.client, os, sys; \
port = int(os.environ.get('CONTAINER_MANAGER_PORT', '8080')); \
connection = http.client.HTTPConnection('127.0.0.1', port, timeout=4); \
connection.request('GET', '/readyz'); \
answer = connection.getresponse(); \
print(answer.read().decode()); \
sys.exit(answer.status != 200)"]
# It is process 1 and gets SIGTERM itself.
ENTRYPOINT ["container-manager"]
# Last, since it changes most often.
ARG REVISION=
LABEL org.opencontainers.image.revision="${REVISION}"
