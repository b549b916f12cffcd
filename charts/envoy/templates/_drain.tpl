{{/*
Envoy ends at once on SIGTERM. Its image has no shell and no HTTP client with which a preStop hook could ask it to drain. So
the hook is a second Envoy, which sends two requests, both as health checks:
1. It asks the admin port to drain. From then on, every answer asks its client to reconnect; the listeners stay open.
2. It sends a request to the listener below. After drainSeconds, this passes the request on to the hook's own admin port, which
   ends the hook.
Then Kubernetes sends SIGTERM. In mode embedded, crossover does all of this.
*/}}

{{- define "envoy.drain.listener" -}}
- name: drain
  address:
    {{- include "envoy.pipe" (list . "drain") | nindent 4 }}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: drain
        route_config:
          virtual_hosts:
          - name: drain
            domains: ["*"]
            routes:
            - match: {path: /quitquitquit}
              route: {cluster: drain-hook}
        http_filters:
        - name: envoy.filters.http.fault
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
            delay: {fixed_delay: {{ int64 .Values.drainSeconds }}s, percentage: {numerator: 100}}
        - name: envoy.filters.http.router
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{- define "envoy.drain.bootstrap" -}}
node: {id: drain, cluster: drain}
admin:
  address:
    {{- include "envoy.pipe" (list . "hook") | nindent 4 }}
static_resources:
  clusters:
  - name: drain
    load_assignment:
      {{- include "envoy.endpoint" (list "drain" (include "envoy.admin" .)) | nindent 6 }}
    health_checks:
    - http_health_check: {method: POST, path: "/drain_listeners?graceful"}
      {{- include "envoy.drain.check" . | nindent 6 }}
  - name: quit
    load_assignment:
      {{- include "envoy.endpoint" (list "quit" (include "envoy.pipe" (list . "drain"))) | nindent 6 }}
    health_checks:
    - http_health_check: {method: POST, path: /quitquitquit}
      {{- include "envoy.drain.check" . | nindent 6 }}
{{- end -}}

{{- define "envoy.drain.check" -}}
timeout: {{ add 10 .Values.drainSeconds }}s
interval: 1s
no_traffic_interval: 1s
healthy_threshold: 1
unhealthy_threshold: 1
{{- end -}}
