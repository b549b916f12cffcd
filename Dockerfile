# For a machine that has nothing but Docker: builds the binary, then the image of Dockerfile.scratch.
ARG RUST=rust:1.95-bookworm
FROM $RUST AS build
COPY . /src
RUN cd /src && make build ARCH=$(dpkg --print-architecture) && mv target/image/*/crossover /

FROM scratch
COPY --from=build /crossover /crossover
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/crossover"]
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title=crossover \
  org.opencontainers.image.description="Keeps Envoy's xDS files in step with Kubernetes ConfigMaps." \
  org.opencontainers.image.licenses=Apache-2.0 \
  org.opencontainers.image.version=$VERSION \
  org.opencontainers.image.revision=$REVISION
