# Envoy and crossover in one image, for a pod with one container.
#   docker build -f embedded.Dockerfile -t envoy-crossover .
ARG CROSSOVER=crossover
ARG ENVOY=envoyproxy/envoy:distroless-v1.40.0
FROM $CROSSOVER AS crossover
FROM $ENVOY
COPY --from=crossover /crossover /usr/local/bin/crossover
# First crossover's flags, then `--`, then the command that crossover starts once the first files are there.
ENTRYPOINT ["crossover"]
CMD ["-configmap", "envoy-xds", "--", "envoy", "-c", "/etc/envoy/envoy.yaml"]
