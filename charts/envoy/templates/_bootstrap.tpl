{{/* This file defines Envoy's bootstrap. */}}

{{- define "envoy.admin" -}}
{{- if .Values.admin.socket -}}
# This is 0660, for the pod's user and group.
pipe: {path: {{ .Values.admin.socket | quote }}, mode: 432}
{{- else -}}
socket_address: {address: {{ .Values.admin.address | quote }}, port_value: {{ int64 .Values.admin.port }}}
{{- end -}}
{{- end -}}

{{/* The admin interface, as a value of -envoy-admin. */}}
{{- define "envoy.admin.url" -}}
{{- $host := .Values.admin.address -}}
{{- if .Values.admin.socket -}}
unix:{{ .Values.admin.socket }}
{{- else -}}
http://{{ contains ":" $host | ternary (printf "[%s]" $host) $host }}:{{ int64 .Values.admin.port }}
{{- end -}}
{{- end -}}

{{/* A socket that only the pod's own containers reach; takes (list $ name). */}}
{{- define "envoy.pipe" -}}
{{- $admin := (index . 0).Values.admin -}}
pipe: {path: {{ printf "@envoy-%s/%s:%d" (index . 1) $admin.address (int64 $admin.port) | quote }}}
{{- end -}}

{{/* A ClusterLoadAssignment; takes (list cluster address). */}}
{{- define "envoy.endpoint" -}}
cluster_name: {{ index . 0 }}
endpoints:
- lb_endpoints:
  - endpoint:
      address:
        {{- index . 1 | nindent 8 }}
{{- end -}}

{{- define "envoy.bootstrap" -}}
admin:
  address:
    {{- include "envoy.admin" . | nindent 4 }}
dynamic_resources:
  cds_config:
    {{- include "envoy.source" (list . "cds.yaml") | nindent 4 }}
  {{- if hasKey .Values.xds "lds.yaml" }}
  lds_config:
    {{- include "envoy.source" (list . "lds.yaml") | nindent 4 }}
  {{- end }}
static_resources:
  clusters:
  - name: envoy-admin
    load_assignment:
      {{- include "envoy.endpoint" (list "envoy-admin" (include "envoy.admin" .)) | nindent 6 }}
  {{- if ne .Values.crossover.mode "embedded" }}
  - name: drain-hook
    load_assignment:
      {{- include "envoy.endpoint" (list "drain-hook" (include "envoy.pipe" (list . "hook"))) | nindent 6 }}
  {{- end }}
  listeners:
  {{- /* The listener is part of the bootstrap, so a new port rolls the pods one by one, and one that Envoy refuses stops the rollout. */}}
  {{- if not (hasKey .Values.xds "lds.yaml") }}
  -
    {{- include "envoy.listener" . | nindent 4 }}
  {{- end }}
  {{- if ne .Values.crossover.mode "embedded" }}
  {{- include "envoy.drain.listener" . | nindent 2 }}
  {{- end }}
  # The admin port can stop Envoy and shows its secrets, so others see only these paths of it.
  - name: status
    address:
      socket_address: {address: {{ .Values.status.address | quote }}, port_value: {{ int64 .Values.status.port }}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: status
          route_config:
            virtual_hosts:
            - name: status
              domains: ["*"]
              routes:
              - match: {path: /ready}
                route: {cluster: envoy-admin}
              # This path answers even while Envoy's health check fails.
              - match: {path: /live}
                route: {cluster: envoy-admin, prefix_rewrite: /hot_restart_version}
              - match: {path: /stats/prometheus}
                route: {cluster: envoy-admin}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{/* The bootstrap with the value `bootstrap` merged into it. Lists of the value replace lists. */}}
{{- define "envoy.bootstrap.merged" -}}
{{- mergeOverwrite (include "envoy.bootstrap" . | fromYaml) (deepCopy .Values.bootstrap) | toYaml -}}
{{- end -}}
