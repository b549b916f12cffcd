{{/* This file defines the containers of the pod. */}}

{{/* The flags that every crossover of the pod has, as a YAML list. */}}
{{- define "envoy.crossover.flags" -}}
{{- $crossover := .Values.crossover -}}
{{- $splits := include "envoy.trafficSplits" . | fromJsonArray -}}
{{- $routes := include "envoy.httpRoutes" . | fromJsonArray -}}
- {{ printf "-output-dir=%s" $crossover.outputDir | toYaml }}
{{- range include "envoy.configMaps" . | fromJsonArray }}
- -configmap={{ . }}
{{- end }}
{{- range $routes }}
- -httproute={{ . }}
{{- end }}
{{- range $splits }}
- -trafficsplit={{ . }}
{{- end }}
{{- if and (or $routes $splits) (not $crossover.publish) }}
- -publish=false
{{- end }}
- -sync-interval={{ $crossover.syncInterval }}
- -log-format={{ $crossover.logFormat }}
{{- with $crossover.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The value of -on-refusal. YAML reads off as false. */}}
{{- define "envoy.onRefusal" -}}
{{- .Values.crossover.onRefusal | default "off" -}}
{{- end -}}

{{/* The flags of the crossover that asks Envoy whether it accepts the files, as a YAML list. */}}
{{- define "envoy.crossover.question" -}}
{{- $onRefusal := include "envoy.onRefusal" . -}}
{{- if ne $onRefusal "off" -}}
- -on-refusal={{ $onRefusal }}
{{ end -}}
- {{ include "envoy.admin.url" . | printf "-envoy-admin=%s" | toYaml }}
{{- end -}}

{{/* A probe that succeeds once Envoy has accepted the files since it started. Its event has the reason if it fails. */}}
{{- define "envoy.crossover.accepted" -}}
exec:
  command: [crossover, -accepted, {{ printf "-output-dir=%s" .Values.crossover.outputDir | quote }}]
timeoutSeconds: 10
{{- end -}}

{{- define "envoy.crossover.env" -}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: RUST_LOG
  value: {{ .Values.crossover.logLevel }}
{{- end -}}

{{- define "envoy.crossover.mounts" -}}
- name: xds
  mountPath: {{ .Values.crossover.outputDir | toYaml }}
# Envoy is exposed to the network, so it does not get the token.
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}

{{/* The mount of Envoy's admin socket, for the containers that send requests to it. */}}
{{- define "envoy.admin.mount" -}}
{{- with .Values.admin.socket -}}
- name: admin
  mountPath: {{ dir . | toYaml }}
{{- end -}}
{{- end -}}

{{/* A container of crossover without its name, arguments and probes. Takes (list root asks); asks says whether it asks Envoy. */}}
{{- define "envoy.crossover.container" -}}
{{- $asks := index . 1 -}}
{{- with index . 0 -}}
{{- $crossover := .Values.crossover -}}
image: {{ include "envoy.image" (list $crossover.image .Chart.AppVersion) }}
imagePullPolicy: {{ $crossover.image.pullPolicy }}
command: [crossover]
env:
{{ include "envoy.crossover.env" . }}
volumeMounts:
{{ include "envoy.crossover.mounts" . }}
{{- if and $asks .Values.admin.socket }}
{{ include "envoy.admin.mount" . }}
{{- end }}
resources:
  {{- toYaml $crossover.resources | nindent 2 }}
securityContext:
  {{- include "envoy.securityContext" (list . .Values.containerSecurityContext) | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* A probe that fails if crossover's event loop hangs. It does not fail while the API server is away. */}}
{{- define "envoy.crossover.liveness" -}}
livenessProbe:
  exec:
    command: [crossover, -live, {{ printf "-output-dir=%s" .Values.crossover.outputDir | quote }}]
  periodSeconds: 60
  timeoutSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* The sidecar, which runs as long as Envoy does. */}}
{{- define "envoy.crossover.sidecar" -}}
{{- $asks := ne (include "envoy.onRefusal" .) "off" -}}
- name: crossover
  {{- include "envoy.crossover.container" (list . $asks) | nindent 2 }}
  args:
  - -watch
  {{- if eq .Values.crossover.mode "classic" }}
  # Kubernetes stops this container when Envoy begins to drain. Until Envoy has ended, its weights are still followed.
  - -drain={{ int64 .Values.drainSeconds }}s
  {{- end }}
  {{- include "envoy.crossover.flags" . | nindent 2 }}
  {{- if $asks }}
  {{- include "envoy.crossover.question" . | nindent 2 }}
  # A new pod whose files Envoy refuses gets no traffic, and a rollout stops at it. No container waits for this.
  readinessProbe:
    {{- include "envoy.crossover.accepted" . | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 6
  {{- end }}
  {{- include "envoy.crossover.liveness" . | nindent 2 }}
  {{- if eq .Values.crossover.mode "native" }}
  restartPolicy: Always
  # Envoy starts once its files are there. The probe waits for an hour, as an API server that is away must not cause restarts.
  startupProbe:
    exec:
      command: [crossover, -ready, {{ printf "-output-dir=%s" .Values.crossover.outputDir | quote }}]
    periodSeconds: 1
    timeoutSeconds: 10
    failureThreshold: 3600
  {{- end }}
{{- end -}}

{{/* The init container, which ends before Envoy starts. */}}
{{- define "envoy.crossover.init" -}}
- name: crossover-init
  {{- include "envoy.crossover.container" (list . false) | nindent 2 }}
  args:
  - -onetime
  # It never gives up, as the kubelet would wait longer and longer before it starts the container again.
  - -onetime-timeout=0
  # If a pod restarts while the API server is away, Envoy starts on the files of the previous run.
  - -stale-ok=10s
  {{- include "envoy.crossover.flags" . | nindent 2 }}
{{- end -}}

{{- define "envoy.args" -}}
- -c
- /etc/envoy/envoy.yaml
- --service-node
- $(POD_NAME)
- --service-cluster
- {{ include "envoy.fullname" . | toYaml }}
- --concurrency
- {{ int64 .Values.concurrency | quote }}
- --log-level
- {{ .Values.logLevel | toYaml }}
# A pod never has two Envoys with the same listeners, so hot restart is not needed.
- --disable-hot-restart
# While Envoy drains, every answer asks its client to reconnect, not only a growing share of them.
- --drain-strategy
- immediate
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "envoy.container" -}}
{{- $embedded := eq .Values.crossover.mode "embedded" -}}
{{- if and $embedded (eq .Values.image.repository "envoyproxy/envoy") -}}
{{- fail "crossover.mode embedded needs an image that holds both envoy and crossover, on its PATH: set image.repository and image.tag" -}}
{{- end -}}
- name: envoy
  image: {{ include "envoy.image" (list .Values.image "latest") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if $embedded }}
  command: [crossover]
  args:
  - -watch
  {{- include "envoy.crossover.flags" . | nindent 2 }}
  - -drain={{ int64 .Values.drainSeconds }}s
  {{- include "envoy.crossover.question" . | nindent 2 }}
  - --
  - envoy
  {{- else }}
  args:
  {{- end }}
  {{- include "envoy.args" . | nindent 2 }}
  env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- if $embedded }}
  {{- include "envoy.crossover.env" . | nindent 2 }}
  {{- end }}
  {{- range $name, $value := .Values.env }}
  - name: {{ $name | toYaml }}
    {{- toYaml (kindIs "map" $value | ternary $value (dict "value" (include "envoy.text" $value))) | nindent 4 }}
  {{- end }}
  ports:
  - name: http
    containerPort: {{ int64 .Values.listener.port }}
  - name: status
    containerPort: {{ int64 .Values.status.port }}
  {{- range .Values.extraPorts }}
  - name: {{ .name | toYaml }}
    containerPort: {{ int64 .port }}
  {{- end }}
  # In mode embedded, Envoy waits for its files in this container, so the probe waits for an hour.
  startupProbe:
    {{- if and $embedded (ne (include "envoy.onRefusal" .) "off") }}
    {{- include "envoy.crossover.accepted" . | nindent 4 }}
    {{- else }}
    httpGet: {path: /ready, port: status}
    {{- end }}
    periodSeconds: 1
    failureThreshold: 3600
  readinessProbe:
    httpGet: {path: /ready, port: status}
    periodSeconds: 5
    timeoutSeconds: 3
  livenessProbe:
    httpGet: {path: /live, port: status}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- if not $embedded }}
  lifecycle:
    preStop:
      exec:
        command: [envoy, -c, /etc/envoy/drain.yaml, --concurrency, "1", --disable-hot-restart, --log-level, error]
  {{- end }}
  volumeMounts:
  - name: bootstrap
    mountPath: /etc/envoy
    readOnly: true
  {{- if $embedded }}
  {{- include "envoy.crossover.mounts" . | nindent 2 }}
  {{- else }}
  - name: xds
    mountPath: {{ .Values.crossover.outputDir | toYaml }}
    readOnly: true
  {{- end }}
  {{- if .Values.admin.socket }}
  {{- include "envoy.admin.mount" . | nindent 2 }}
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    {{- include "envoy.securityContext" (list . .Values.containerSecurityContext) | nindent 4 }}
{{- end -}}
