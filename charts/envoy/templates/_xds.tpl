{{/* Listener, clusters and routes. A template for each xDS file: a key of `xds` can include one. */}}

{{/* A ConfigSource; takes (list $ file). Envoy gets nothing but a path: it then loads just the files that changed. */}}
{{- define "envoy.source" -}}
resource_api_version: V3
path_config_source: {path: {{ printf "%s/current/%s" (index . 0).Values.crossover.outputDir (index . 1) | quote }}}
{{- end -}}

{{- define "envoy.httpConnectionManager" -}}
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
stat_prefix: http
rds:
  route_config_name: http
  config_source:
    {{- include "envoy.source" (list . "rds.yaml") | nindent 4 }}
http_filters:
- name: envoy.filters.http.router
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{- define "envoy.filterChain" -}}
{{- $manager := mergeOverwrite (include "envoy.httpConnectionManager" . | fromYaml) (deepCopy .Values.listener.httpConnectionManager) -}}
filters:
- name: envoy.filters.network.http_connection_manager
  typed_config:
    {{- toYaml $manager | nindent 4 }}
{{- end -}}

{{/* The listener; it stands in the bootstrap, or in an lds.yaml of the values'. */}}
{{- define "envoy.listener" -}}
{{- $chain := mergeOverwrite (include "envoy.filterChain" . | fromYaml) (deepCopy .Values.listener.filterChain) -}}
name: http
address:
  socket_address: {address: {{ .Values.listener.address | quote }}, port_value: {{ int64 .Values.listener.port }}}
filter_chains:
-
  {{- toYaml $chain | nindent 2 }}
{{- end -}}

{{- define "envoy.lds" -}}
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  {{- include "envoy.listener" . | nindent 2 }}
{{- end -}}

{{- define "envoy.cds" -}}
resources:
  {{- include "envoy.clusters" . | fromJsonArray | toYaml | nindent 2 }}
{{- end -}}

{{- define "envoy.rds" -}}
{{- $upstreams := include "envoy.upstreams" . | fromJson -}}
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: http
  # example.com:8080 is example.com, too.
  ignore_port_in_host_matching: true
  virtual_hosts:
  {{- range include "envoy.virtualHosts" . | fromJsonArray }}
  - name: {{ .name | toYaml }}
    domains:
    {{- toYaml .domains | nindent 4 }}
    routes:
    {{- /* Envoy takes the first route that matches. */}}
    {{- $order := list }}
    {{- range .upstreams }}
    {{- $prefix := dig "prefix" "/" (get $upstreams .) }}
    {{- $order = append $order (printf "%05d %s" (sub 99999 (len $prefix)) .) }}
    {{- end }}
    {{- range sortAlpha $order }}
    {{- $name := splitList " " . | last }}
    {{- include "envoy.route" (list $name (get $upstreams $name)) | nindent 4 }}
    {{- end }}
  {{- else }} []
  {{- end }}
{{- end -}}

{{/* An upstream's route; takes (list name upstream). */}}
{{- define "envoy.route" -}}
{{- $name := index . 0 -}}
{{- $upstream := index . 1 -}}
{{- $sum := 0 -}}
- match: {prefix: {{ dig "prefix" "/" $upstream | quote }}}
  route:
    {{- with $upstream.route }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    weighted_clusters:
      clusters:
      {{- range $service, $backend := $upstream.backends }}
      {{- $weight := dig "weight" 1 $backend | int64 }}
      {{- $sum = add $sum $weight }}
      - name: {{ include "envoy.clusterName" $service | toYaml }}
        weight: {{ $weight }}
        {{- with $backend.request_headers_to_add }}
        request_headers_to_add:
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $backend.typed_per_filter_config }}
        typed_per_filter_config:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      {{- end }}
{{- if or (lt $sum 1) (gt $sum 4294967295) -}}
{{- fail (printf "upstream %s: the weights of its backends add up to %d; Envoy takes 1 to 4294967295" $name $sum) -}}
{{- end -}}
{{- end -}}

{{/* Every file, as the data of a ConfigMap. */}}
{{- define "envoy.files" -}}
{{- $files := dict "cds.yaml" (include "envoy.cds" . | println) "rds.yaml" (include "envoy.rds" . | println) -}}
{{- range $name, $content := .Values.xds -}}
{{- $text := tpl (kindIs "string" $content | ternary $content (toYaml $content | println)) $ -}}
{{- /* Envoy reads a file by its name's ending. Templates come first: JSON would escape their quotes. */ -}}
{{- if and (hasSuffix ".json" $name) (not (kindIs "string" $content)) -}}
  {{- $object := fromYaml $text -}}
  {{- with $object.Error -}}{{- fail (printf "xds, %s: its templates leave no YAML: %s" $name .) -}}{{- end -}}
  {{- $text = toPrettyJson $object | println -}}
{{- end -}}
{{- $_ := set $files $name $text -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}
