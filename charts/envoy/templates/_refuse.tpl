{{/* Refuses values that only the Go program's chart had, and says what to write instead. */}}
{{- define "envoy.refuse" -}}
{{- $gone := dict
  "apiserver" "it has no successor: a pod knows it; else crossover.extraArgs: [-apiserver=URL]"
  "args" "use extraArgs"
  "argsTemplate" "use extraArgs"
  "codecType" "use listener.httpConnectionManager.codec_type"
  "command" "use image, and extraArgs"
  "files" "use bootstrap, and xds"
  "initContainersTemplate" "use crossover.mode"
  "livenessProbe" "it has no successor: Envoy is asked"
  "ports" "use listener.port, admin.port, status.port and extraPorts"
  "prometheusRule" "it has no successor: write a PrometheusRule of your own"
  "rbac.pspEnabled" "it has no successor: securityContext and containerSecurityContext are \"restricted\""
  "readinessProbe" "it has no successor: Envoy is asked"
  "route" "use xds, with an rds.yaml of your own"
  "secretMounts" "use volumes and volumeMounts"
  "service.enabled" "it has no successor: the Service is always there"
  "service.name" "use fullnameOverride"
  "service.ports" "use service.port and extraPorts"
  "sidecarContainersTemplate" "use crossover.mode"
  "smi" "use upstreams.NAME.smi.enabled; the API server is asked for the version"
  "templates" "use bootstrap, and xds"
  "terminationGracePeriodSeconds" "use drainSeconds"
  "xdsLoader" "use crossover"
-}}
{{- range $old, $new := $gone -}}
  {{- $path := splitList "." $old -}}
  {{- $at := $.Values -}}
  {{- range initial $path -}}{{- $at = get $at . -}}{{- end -}}
  {{- if hasKey $at (last $path) -}}
    {{- fail (printf "the value %s is gone: %s" $old $new) -}}
  {{- end -}}
{{- end -}}
{{- range $name := list "strategy" "podDisruptionBudget" -}}
  {{- if kindIs "string" (get $.Values $name) -}}
    {{- fail (printf "the value %s is not a text any more: write the same as YAML, without the \"|\"" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $upstream := include "envoy.upstreams" . | fromJson -}}
  {{- range $service, $backend := $upstream.backends -}}
    {{- range $old, $new := dict "per_filter_config" "typed_per_filter_config" "http2Options" "http2.protocol_options" -}}
      {{- if hasKey $backend $old -}}
        {{- fail (printf "the value %s of upstream %s, backend %s, is gone: use %s" $old $name $service $new) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $kube := .Capabilities.KubeVersion.Version -}}
{{- if and (eq .Values.crossover.mode "native") (semverCompare "<1.29.0-0" $kube) -}}
  {{- fail (printf "crossover.mode native needs Kubernetes 1.29 or later, and this is %s: set crossover.mode to classic, which needs 1.21" $kube) -}}
{{- end -}}
{{- /* A key that YAML reads as a boolean arrives as true or false. */ -}}
{{- $names := list (list "env" .Values.env) (list "xds" .Values.xds) (list "upstreams" .Values.upstreams) (list "services" .Values.services) -}}
{{- range $name, $upstream := include "envoy.upstreams" . | fromJson -}}
  {{- $names = append $names (list (printf "backends of upstream %s" $name) $upstream.backends) -}}
{{- end -}}
{{- range $names -}}
  {{- $map := index . 1 | default dict -}}
  {{- if or (hasKey $map "true") (hasKey $map "false") -}}
    {{- fail (printf "%s: a name is true or false. YAML makes that of no, off, n, on, yes and y: write such a name in quotes" (index . 0)) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $value := .Values.env -}}
  {{- /* Helm rounds numbers above this one. */ -}}
  {{- if and (kindIs "float64" $value) (or (gt $value 9007199254740991.0) (lt $value -9007199254740991.0)) -}}
    {{- fail (printf "the value env.%s is a number that loses digits: write it in quotes" $name) -}}
  {{- end -}}
{{- end -}}
{{- $own := list "bootstrap" "token" "xds" -}}
{{- if .Values.admin.socket -}}{{- $own = append $own "admin" -}}{{- end -}}
{{- range .Values.volumes -}}
  {{- if has .name $own -}}
    {{- fail (printf "the chart has a volume %s of its own: leave it out of volumes" .name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
