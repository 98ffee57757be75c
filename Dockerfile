# docker build -t spokes .
# docker run -p 80:8080 -p 443:8443 -p 22000-22999:22000-22999 -v spokes:/var/lib/spokes \
#     -e SPOKES_DOMAIN=tunnel.example.org spokes

FROM python:3.11-slim-bookworm AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev libssl-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Everything is downloaded once, against the lock's hashes; what follows installs from there and from nowhere else.
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --requirement requirements.lock --dest wheels
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY spokes/ spokes/
RUN python -m venv tools \
 && tools/bin/pip install --quiet --no-index --find-links wheels --upgrade setuptools cython \
 && tools/bin/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist . \
 && python -m venv /opt/spokes \
 && /opt/spokes/bin/pip install --quiet --no-index --find-links wheels dist/spokes-*.whl \
 && /opt/spokes/bin/pip uninstall --quiet --yes setuptools pip

FROM python:3.11-slim-bookworm
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/spokes --shell /usr/sbin/nologin spokes \
 && install -d -o spokes -g spokes -m 0700 /var/lib/spokes
COPY --from=build /opt/spokes /opt/spokes
# High ports: the user inside owns nothing below 1024. `docker run -p 443:8443` gives visitors the usual ones.
ENV PATH=/opt/spokes/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPOKES_DATA=/var/lib/spokes \
    SPOKES_HTTP=0.0.0.0:8080 \
    SPOKES_HTTPS=0.0.0.0:8443
USER spokes
VOLUME /var/lib/spokes
EXPOSE 8080 8443 22000-22999 22000-22999/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["spokes", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["spokes"]
CMD ["server"]
