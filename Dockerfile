# syntax=docker/dockerfile:1
# A server for indexes whose model is an ONNX export: Debian's Python and packages of PyPI, without PyTorch.
# docs/search-page.md, section Container, has the commands to build and to run it.
FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.11.* python3-venv=3.11.* \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/cusa
WORKDIR /source
COPY constraints.txt ./
# What `cusa search` and `cusa serve` import with an ONNX model; tests/test_container.py holds this list to the code. For
# run folders as models, which need PyTorch, install '.[cpu,onnx,search]' below instead, without --no-deps.
RUN /opt/cusa/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt \
    faiss-cpu fastapi fastapi-offline numpy onnxruntime pillow prometheus-client pyarrow pydantic python-multipart \
    pyyaml tokenizers tqdm uvicorn
COPY pyproject.toml README.md LICENSE Snakefile ./
COPY src src
COPY workflow workflow
COPY config config
COPY envs envs
RUN /opt/cusa/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.11.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin cusa
COPY --from=build /opt/cusa /opt/cusa
ENV PATH=/opt/cusa/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# A server for others needs a token: --env CUSA_TOKEN, or --no-token after the indexes.
ENTRYPOINT ["cusa", "serve", "--host", "0.0.0.0", "--port", "8000"]
