# comporta in a container.
#
#   docker build -t comporta .
#   docker run -p 127.0.0.1:8080:8080 -e OPENAI_API_KEY comporta
#   docker run -p 127.0.0.1:8080:8080 -v "$PWD/gateway.yaml:/etc/comporta/gateway.yaml:ro" -e COMPORTA_CONFIG=/etc/comporta/gateway.yaml comporta
#
# Keys come at run time, by reference (`env:NAME`, `file:/run/secrets/NAME`); none is ever part of the image.
#
# The admin plane (/metrics) listens on the container's own loopback and cannot be reached from outside. To have it scraped, set
# COMPORTA_SERVER__ADMIN_LISTEN=0.0.0.0:8081 and COMPORTA_SERVER__ADMIN_KEY=env:NAME; the scraper shows that key as a bearer token.

# The version of Python that the tests run on. A newer patch of it comes with every build.
FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /src

# What changes seldom comes first. Wheels only: this image has no compiler, and nothing of a source package runs while it is installed.
COPY .ci/requirements/run.txt .ci/requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/comporta \
 && python -m pip --python /opt/comporta/bin/python install --require-hashes --only-binary :all: -r requirements/run.txt \
 && python -m pip install --require-hashes --only-binary :all: -r requirements/build.txt

COPY pyproject.toml README.md LICENSE ./
COPY comporta comporta
COPY proxy proxy
COPY providers providers
COPY policies policies
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/comporta/bin/python install --no-deps --no-index /wheels/*.whl


FROM python:3.11-slim-bookworm

# By number, so that Kubernetes' runAsNonRoot can tell.
RUN groupadd --system --gid 10001 comporta \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin comporta \
 && mkdir --mode 0700 /var/lib/comporta \
 && chown 10001:10001 /var/lib/comporta

COPY --from=build /opt/comporta /opt/comporta

# Inside a container loopback reaches nobody; who may reach the port is decided where it is published, and clients need keys. These are in
# /var/lib/comporta: put a volume there.
ENV PATH=/opt/comporta/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_DATA_HOME=/var/lib \
    COMPORTA_SERVER__LISTEN=0.0.0.0:8080

WORKDIR /etc/comporta
USER 10001:10001
EXPOSE 8080

# Running streams are finished first, for as long as `server.grace` says: give `docker stop --time` more than that.
STOPSIGNAL SIGTERM

# Says that the process lives; whether it takes requests is /readyz. With another port or with TLS, replace it (`--health-cmd`).
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/opt/comporta/bin/python", "-I", "-c", \
  "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["/opt/comporta/bin/comporta"]
CMD ["serve"]
