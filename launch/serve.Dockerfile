# An image that serves a model over HTTP (docs/serving.md). From the clone:
#
#   docker build --file launch/serve.Dockerfile --tag midillm_jax-serve .                                  # a CPU
#   docker build --file launch/serve.Dockerfile --tag midillm_jax-serve --build-arg EXTRAS=serve,gpu .     # NVIDIA GPUs
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/model:/model:ro" midillm_jax-serve        # --gpus all
#
# CUDA comes with jax's wheels, so a GPU needs no other base, but the host's driver and container toolkit; BASE is for
# a mirror, or another Python. Not built where it was written: no registry was in reach there.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG EXTRAS=serve
WORKDIR /opt/midillm_jax
COPY setup.py pyproject.toml README.md LICENSE ./
COPY configs ./configs
COPY midillm_jax ./midillm_jax
RUN pip install --no-cache-dir ".[${EXTRAS}]" && useradd --create-home midillm
USER midillm
# Compiled programs lie in the user's cache; a volume there makes the second start fast.
WORKDIR /home/midillm
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "midillm_jax.serve", "--api", "--host", "0.0.0.0"]
CMD ["--model", "/model"]
