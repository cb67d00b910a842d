# planar3d on CPUs, with the weights of ms-flair-open; no network is needed to run it. See docs/how-to/container.md.
#   docker build -t planar3d .
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY weights weights
COPY planar3d planar3d
RUN python3 -m venv /opt/planar3d
RUN /opt/planar3d/bin/pip install --no-cache-dir ".[study,offline,openvino,dicom,itk,cluster]"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="planar3d"
LABEL org.opencontainers.image.description="Multiple-sclerosis lesions in raw FLAIR scans, by planar 3D transfer learning"
LABEL org.opencontainers.image.version="0.1.0"
LABEL org.opencontainers.image.licenses="MIT AND CC-BY-4.0"
COPY --from=build /opt/planar3d /opt/planar3d
# The licence of the code, and the card of the weights with their origin and licence.
COPY LICENSE weights/ms-flair-open.md /opt/planar3d/
# Any user may run the image (--user), even without a home directory.
ENV PATH=/opt/planar3d/bin:/usr/local/bin:/usr/bin:/bin
ENV HOME=/tmp
ENV PLANAR3D_OFFLINE=1
ENV PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["planar3d"]
CMD ["--help"]
