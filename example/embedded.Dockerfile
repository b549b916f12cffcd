# Envoy and Crossover in one image: no init container, no sidecar, nothing between them but files.
#   docker build -f embedded.Dockerfile -t envoy-crossover .
ARG CROSSOVER=crossover
ARG ENVOY=envoyproxy/envoy:distroless-v1.40.0
FROM $CROSSOVER AS crossover
FROM $ENVOY
COPY --from=crossover /crossover /usr/local/bin/crossover
# Flags of crossover, then `--`, then the command that it starts once the first files are there.
ENTRYPOINT ["crossover"]
CMD ["-configmap", "envoy-xds", "--", "envoy", "-c", "/etc/envoy/envoy.yaml"]
