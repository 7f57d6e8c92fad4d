FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PATH=/opt/lcm-worker/bin:$PATH

RUN python -m venv /opt/lcm-worker
WORKDIR /src

# Before the code, so that a change of the code alone installs nothing anew.
COPY requirements.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY worker ./worker
RUN pip install --no-deps --no-build-isolation . \
 && pip uninstall --yes flit_core pip


FROM python:3.13-slim

# No bytecode is written at run time: the root file system may be read-only.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/lcm-worker/bin:$PATH

RUN groupadd --gid 10001 lcm \
 && useradd --uid 10001 --gid lcm --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lcm

COPY --from=build /opt/lcm-worker /opt/lcm-worker

# By number, so that an orchestrator can tell that it isn't root.
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["lcm-worker"]
CMD ["run"]
