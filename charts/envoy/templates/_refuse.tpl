{{/* Values of the chart that the Go program had, and what there is instead. */}}
{{- define "envoy.refuse" -}}
{{- $gone := dict
  "apiserver" "it is known in a cluster; else crossover.extraArgs: [-apiserver=URL]"
  "args" "extraArgs"
  "argsTemplate" "extraArgs"
  "codecType" "listener.httpConnectionManager.codec_type"
  "command" "image, and extraArgs"
  "files" "bootstrap, and xds"
  "initContainersTemplate" "crossover.mode"
  "livenessProbe" "nothing: Envoy is asked"
  "ports" "listener.port, admin.port, status.port and extraPorts"
  "prometheusRule" "nothing: write a PrometheusRule of your own"
  "rbac.pspEnabled" "nothing: securityContext and containerSecurityContext are \"restricted\""
  "readinessProbe" "nothing: Envoy is asked"
  "route" "xds, with an rds.yaml and an lds.yaml of your own"
  "secretMounts" "volumes and volumeMounts"
  "service.enabled" "nothing: the Service is always there"
  "service.name" "fullnameOverride"
  "service.ports" "service.port and extraPorts"
  "sidecarContainersTemplate" "crossover.mode"
  "smi" "upstreams.NAME.smi.enabled; the API server is asked for the version"
  "templates" "bootstrap, and xds"
  "terminationGracePeriodSeconds" "drainSeconds"
  "xdsLoader" "crossover"
-}}
{{- range $old, $new := $gone -}}
  {{- $path := splitList "." $old -}}
  {{- $at := $.Values -}}
  {{- range initial $path -}}{{- $at = get $at . -}}{{- end -}}
  {{- if hasKey $at (last $path) -}}
    {{- fail (printf "the value %s is gone; use instead: %s" $old $new) -}}
  {{- end -}}
{{- end -}}
{{- range $name := list "strategy" "podDisruptionBudget" -}}
  {{- if kindIs "string" (get $.Values $name) -}}
    {{- fail (printf "the value %s is no text any more: write the same as YAML, without the \"|\"" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $upstream := include "envoy.upstreams" . | fromJson -}}
  {{- range $service, $backend := $upstream.backends -}}
    {{- range $old, $new := dict "per_filter_config" "typed_per_filter_config" "http2Options" "http2.protocol_options" -}}
      {{- if hasKey $backend $old -}}
        {{- fail (printf "the value %s of upstream %s, backend %s, is gone; use instead: %s" $old $name $service $new) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range .Values.volumes -}}
  {{- if has .name (list "bootstrap" "token" "xds") -}}
    {{- fail (printf "the chart has a volume %s of its own: leave it out of volumes" .name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
