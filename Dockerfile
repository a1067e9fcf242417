# The API server. Built from the same lock file and the same make targets as CI's environment.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/server.txt requirements/server.txt
RUN python -m venv /opt/fanxing && \
    /opt/fanxing/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/server.txt
COPY . .
RUN /opt/fanxing/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation ./offline_sdk .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/fanxing fanxing && \
    install -d -o fanxing -g fanxing -m 700 /var/lib/fanxing
COPY --from=build /opt/fanxing /opt/fanxing
ENV PATH=/opt/fanxing/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FANXING_HOME=/var/lib/fanxing \
    FANXING_HOST=0.0.0.0
USER fanxing
VOLUME /var/lib/fanxing
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"
CMD ["fanxing", "serve"]
