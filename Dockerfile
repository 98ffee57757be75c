# docker build -t spokes .
# docker run -p 80:8080 -p 443:8443 -p 22000-22999:22000-22999 -p 22000-22999:22000-22999/udp \
#     -v spokes:/var/lib/spokes -e SPOKES_DOMAIN=tunnel.example.org spokes
# Other public ports than 80 and 443: say so with -e SPOKES_PUBLIC_HTTP_PORT=… -e SPOKES_PUBLIC_HTTPS_PORT=…, so that the
# URLs that clients print are right.

# Debian 13: its OpenSSL seals records several times as fast as that of Debian 12.
FROM python:3.11-slim-trixie AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev libssl-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock requirements-runtime.lock packaging/trim-venv.sh ./
# What compiles ours, and what it runs with: both against the locks' hashes, and nothing of what tests take.
RUN python -m venv tools \
 && awk '/^[a-z]/ { wanted = /^(setuptools|cython)==/ } wanted' requirements.lock >tools/requirements.lock \
 && tools/bin/pip install --quiet --require-hashes --requirement tools/requirements.lock \
 && python -m venv /opt/spokes \
 && /opt/spokes/bin/pip install --quiet --require-hashes --requirement requirements-runtime.lock
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY spokes/ spokes/
RUN tools/bin/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist . \
 && /opt/spokes/bin/pip install --quiet --no-index --no-deps dist/spokes-*.whl \
 && ./trim-venv.sh /opt/spokes

FROM python:3.11-slim-trixie
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates libssl3t64 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/spokes --shell /usr/sbin/nologin spokes \
 && install -d -o spokes -g spokes -m 0700 /var/lib/spokes
COPY --from=build /opt/spokes /opt/spokes
# High ports: the user inside owns nothing below 1024. `docker run -p 443:8443` gives visitors the usual ones.
ENV PATH=/opt/spokes/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPOKES_DATA=/var/lib/spokes \
    SPOKES_HTTP=0.0.0.0:8080 \
    SPOKES_HTTPS=0.0.0.0:8443 \
    SPOKES_PUBLIC_HTTP_PORT=80 \
    SPOKES_PUBLIC_HTTPS_PORT=443
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
VOLUME /var/lib/spokes
EXPOSE 8080 8443 22000-22999 22000-22999/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-I", "-m", "spokes.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["spokes"]
CMD ["server"]
