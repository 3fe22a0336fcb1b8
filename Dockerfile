# The service; with --target app the web page. How to build, run and deploy both: nbs/34_deploy.ipynb

# The Python that constraints.txt was tested with, by the digest that its tag had on 2026-09-19. A newer one: make base-image
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS model
ARG MODEL=models/quickstart
# A name with a star may match nothing, so that a missing model is told below; LICENSE is there because a COPY must match something
COPY LICENSE *${MODEL} /model/
RUN rm /model/LICENSE; chmod -R a+rX /model; test -f /model/sentiment_nb.json || { \
    echo "There is no model in ${MODEL}: run 'make quickstart' first, or name another one by --build-arg MODEL=models/NAME" >&2; exit 1; }
# Where int8 passed its gate, nobody asks the float file
RUN find /model -name model_int8.onnx -execdir rm -f model.onnx \;

FROM ${BASE} AS package
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY deploy/locks locks
# Files whose hashes are not in deploy/locks are rejected, and none is built here but the package itself
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r locks/api.txt && \
    pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --target /build -r locks/build.txt
COPY LICENSE README.md settings.ini setup.py ./
COPY sentiment_nb sentiment_nb
RUN PYTHONPATH=/build pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-build-isolation .

FROM package AS package-app
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r locks/app.txt

FROM ${BASE} AS runtime
# ONNX Runtime's own builds report on their use to Microsoft unless they are told not to
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /

FROM runtime AS app
COPY --from=package-app /opt/venv /opt/venv
ENV HOME=/tmp STREAMLIT_BROWSER_GATHER_USAGE_STATS=false
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=2)"]
CMD ["sentiment-nb", "app", "--host", "0.0.0.0", "--port", "8501", "--api", "http://api:8000"]

FROM runtime AS api
COPY --from=package /opt/venv /opt/venv
COPY --from=model /model /model
ENV SENTIMENT_NB_MODEL=/model
RUN ["sentiment-nb", "predict", "--text", "The image is whole"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["sentiment-nb", "serve", "--host", "0.0.0.0", "--port", "8000"]
