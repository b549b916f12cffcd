{{/*
Names and labels. A name that is a whole value goes through toYaml, which quotes what YAML would read as something else: no, on, 123.
*/}}

{{- define "envoy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name is cut so that the longest ending, "-xds-gen", fits. */}}
{{- define "envoy.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- end -}}

{{- define "envoy.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "envoy.fullname" .) "default") -}}
{{- end -}}

{{- define "envoy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "envoy.name" . | toYaml }}
app.kubernetes.io/instance: {{ .Release.Name | toYaml }}
{{- end -}}

{{- define "envoy.labels" -}}
{{ include "envoy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A value as text. Go writes a number from a file as 1.2e+07; this writes its digits. */}}
{{- define "envoy.text" -}}
{{- if not (kindIs "float64" .) -}}{{ toString . }}
{{- else if eq . (floor .) -}}{{ printf "%.0f" . }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* An image's name; takes (list image tag), the tag where the image has none. */}}
{{- define "envoy.image" -}}
{{- $image := index . 0 -}}
{{- printf "%s:%s" $image.repository (include "envoy.text" ($image.tag | default (index . 1))) | quote -}}
{{- end -}}

{{/*
A security context; takes (list root context). OpenShift's restricted-v2 gives each namespace user ids of its own, and admits no others.
*/}}
{{- define "envoy.securityContext" -}}
{{- $context := index . 1 -}}
{{- (index . 0).Values.openshift | ternary (omit $context "runAsUser" "runAsGroup" "fsGroup" "supplementalGroups") $context | toYaml -}}
{{- end -}}

{{/*
"true" if the cluster has this object already and it does not belong to this release, as Helm would refuse to install it. Without a
cluster (`helm template`, Argo CD), `lookup` finds nothing. Takes (list root apiVersion kind namespace name).

An object that this release has rendered before is rendered again, even if its annotations in the cluster were changed: Helm deletes
what is not rendered any more.
*/}}
{{- define "envoy.foreign" -}}
{{- $root := index . 0 -}}
{{- $name := index . 4 -}}
{{- with lookup (index . 1) (index . 2) (index . 3) $name -}}
  {{- $annotations := .metadata.annotations | default dict -}}
  {{- $owner := printf "%s/%s" (get $annotations "meta.helm.sh/release-namespace") (get $annotations "meta.helm.sh/release-name") -}}
  {{- $own := lookup "v1" "ConfigMap" $root.Release.Namespace (include "envoy.fullname" $root | printf "%s-bootstrap") -}}
  {{- $rendered := dig "metadata" "annotations" "crossover/rendered" "" $own | splitList " " -}}
  {{- if not (or (eq $owner (printf "%s/%s" $root.Release.Namespace $root.Release.Name)) (has $name $rendered)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The objects that are rendered only if the cluster does not have them (the definition of TrafficSplits, the mirrors), as a JSON list of names. */}}
{{- define "envoy.rendered" -}}
{{- $names := list -}}
{{- $definition := "trafficsplits.split.smi-spec.io" -}}
{{- if .Values.crd.create -}}
  {{- if not (include "envoy.foreign" (list . "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $definition)) -}}
    {{- $names = append $names $definition -}}
  {{- end -}}
{{- end -}}
{{- range include "envoy.mirrors" . | fromJsonArray -}}
  {{- if not (include "envoy.foreign" (list $ "v1" "ConfigMap" $.Release.Namespace .)) -}}
    {{- $names = append $names . -}}
  {{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}
