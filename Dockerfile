FROM python:3.12-slim AS builder

# A simple index to install from, for networks that serve nothing else:
#   docker build --build-arg INDEX_URL="$(pip config get global.index-url)" .
# Empty: what pip and Poetry use by themselves.
ARG INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    POETRY_NO_INTERACTION=1 \
    VIRTUAL_ENV=/opt/venv

RUN python -m venv /opt/poetry \
    && PIP_INDEX_URL="$INDEX_URL" /opt/poetry/bin/pip install --quiet "poetry >=2.1,<3" poetry-plugin-pypi-mirror \
    && python -m venv --without-pip "$VIRTUAL_ENV"

WORKDIR /app
COPY pyproject.toml poetry.lock ./
# Compiled here, since nobody may write there later.
RUN POETRY_PYPI_MIRROR_URL="$INDEX_URL" /opt/poetry/bin/poetry sync --only main --compile --no-cache


FROM python:3.12-slim

# Nothing from Debian is added. `setpriv`, which ties a Claude Code process to the server's life, belongs to util-linux,
# an essential package of every Debian image; `ca-certificates` comes with the Python image. Claude Code itself is among
# the dependencies, and what the server uses of it needs neither git nor Node.js.

# Not root, but at home in /root, so that `-v ~/.claude:/root/.claude` works as it always did. A host's ~/.claude mostly
# has mode 700 and belongs to uid 1000; for another owner there is `--user $(id -u):$(id -g)`. That user has no entry in
# passwd here, and Claude Code writes into its home: hence HOME is set, and both directories are as open as /tmp (with
# the sticky bit). /root/.claude exists so that a new volume takes over its mode.
RUN useradd --uid 1000 --home-dir /root --no-create-home --shell /usr/sbin/nologin claude \
    && install --directory --owner 1000 --group 1000 --mode 1777 /root /root/.claude

ENV HOME=/root \
    PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000

WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY *.py ./

USER 1000:1000
EXPOSE 8000
STOPSIGNAL SIGTERM

# With http.client, which knows no proxies: a proxy for the way out must not be asked for the server inside.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["python", "-c", "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]

# For development, with the checkout mounted (-v "$(pwd):/app"):
#   python -m uvicorn main:app --host 0.0.0.0 --reload --http h11 --no-proxy-headers
CMD ["python", "main.py"]
