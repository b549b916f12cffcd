{{/* This file turns the value `upstreams` into virtual hosts, clusters, HTTPRoutes and TrafficSplits. */}}

{{/* The upstreams, by either name, as JSON. */}}
{{- define "envoy.upstreams" -}}
{{- if and .Values.upstreams .Values.services -}}
{{- fail "upstreams and services are two names of one thing: write everything under upstreams" -}}
{{- end -}}
{{- .Values.upstreams | default .Values.services | default dict | toJson -}}
{{- end -}}

{{/* The cluster of a backend. */}}
{{- define "envoy.clusterName" -}}
{{- replace "." "_" . -}}
{{- end -}}

{{/* The TrafficSplits that crossover follows, as a JSON list. */}}
{{- define "envoy.trafficSplits" -}}
{{- $names := list -}}
{{- range $name, $upstream := include "envoy.upstreams" . | fromJson -}}
{{- if dig "smi" "enabled" false $upstream -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- concat $names .Values.crossover.trafficSplits | uniq | toJson -}}
{{- end -}}

{{/* The HTTPRoutes that crossover follows, as a JSON list. */}}
{{- define "envoy.httpRoutes" -}}
{{- $names := list -}}
{{- range $name, $upstream := include "envoy.upstreams" . | fromJson -}}
{{- if dig "httpRoute" "enabled" false $upstream -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- concat $names (.Values.crossover.httpRoutes | default list) | uniq | toJson -}}
{{- end -}}

{{/* The ConfigMaps that crossover reads, as a JSON list: the chart's own first. */}}
{{- define "envoy.configMaps" -}}
{{- prepend .Values.crossover.configMaps (printf "%s-xds" (include "envoy.fullname" .)) | uniq | toJson -}}
{{- end -}}

{{/* The ConfigMaps into which crossover writes the merged files, as a JSON list. */}}
{{- define "envoy.mirrors" -}}
{{- $names := list -}}
{{- $objects := concat (include "envoy.trafficSplits" . | fromJsonArray) (include "envoy.httpRoutes" . | fromJsonArray) -}}
{{- if and .Values.crossover.publish $objects -}}
{{- range include "envoy.configMaps" . | fromJsonArray -}}{{- $names = append $names (printf "%s-gen" .) -}}{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/*
Upstreams with the same domains share a virtual host, and are told apart by prefix. Takes the root; gives a JSON list of
{name, domains, upstreams}.
*/}}
{{- define "envoy.virtualHosts" -}}
{{- $upstreams := include "envoy.upstreams" . | fromJson -}}
{{- $without := list -}}
{{- $hosts := dict -}}
{{- $owners := dict -}}
{{- range $name, $upstream := $upstreams -}}
  {{- if not $upstream.domains -}}{{- $without = append $without $name -}}{{- end -}}
  {{- $domains := $upstream.domains | default (list "*") | uniq | sortAlpha -}}
  {{- $key := join " " $domains -}}
  {{- $host := get $hosts $key | default (dict "name" $name "domains" $domains "upstreams" list) -}}
  {{- range $other := $host.upstreams -}}
    {{- if eq (dig "prefix" "/" $upstream) (dig "prefix" "/" (get $upstreams $other)) -}}
    {{- if not $without -}}
      {{- fail (printf "upstreams %s and %s have the same domains and the same prefix" $other $name) -}}
    {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- range $domains -}}
    {{- if regexMatch ":[0-9*]+$" . -}}
      {{- fail (printf "upstream %s: write the domain %q without its port, as it is compared without one" $name .) -}}
    {{- end -}}
    {{- $owner := get $owners . | default $key -}}
    {{- if ne $owner $key -}}
      {{- fail (printf "upstream %s has the domain %q, as upstream %s does, but not all of its domains" $name . (get $hosts $owner).name) -}}
    {{- end -}}
    {{- $_ := set $owners . $key -}}
  {{- end -}}
  {{- $_ := set $host "upstreams" (append $host.upstreams $name) -}}
  {{- $_ := set $hosts $key $host -}}
{{- end -}}
{{- if and $without (gt (len $upstreams) 1) -}}
  {{- fail (printf "of several upstreams each needs its domains; without are: %s" (join ", " $without)) -}}
{{- end -}}
{{- /* A TrafficSplit or an HTTPRoute finds its virtual host by name or by domain. */ -}}
{{- range $key, $host := $hosts -}}
  {{- range $name := without $host.upstreams $host.name -}}
    {{- $upstream := get $upstreams $name -}}
    {{- $split := dig "smi" "enabled" false $upstream -}}
    {{- if and (or $split (dig "httpRoute" "enabled" false $upstream)) (not (has $name $host.domains)) -}}
      {{- if hasKey $owners $name -}}
        {{- fail (printf "upstream %s has %s.enabled, but its name is a domain of upstream %s" $name ($split | ternary "smi" "httpRoute") (get $hosts (get $owners $name)).name) -}}
      {{- end -}}
      {{- $_ := set $owners $name $key -}}
      {{- $_ := set $host "domains" (append $host.domains $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $all := list -}}
{{- range keys $hosts | sortAlpha -}}{{- $all = append $all (get $hosts .) -}}{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* A cluster of Envoy's; takes (list name backend). */}}
{{- define "envoy.cluster" -}}
{{- $name := index . 0 -}}
{{- $backend := index . 1 -}}
{{- $cluster := include "envoy.clusterName" $name -}}
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: {{ $cluster | toYaml }}
type: STRICT_DNS
dns_lookup_family: V4_PREFERRED
connect_timeout: 1s
# A pod that left the Service gets no more requests, and its connections end.
ignore_health_on_host_removal: true
{{- if dig "http2" "enabled" false $backend }}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config:
      http2_protocol_options: {{ dig "http2" "protocol_options" dict $backend | toJson }}
{{- end }}
load_assignment:
  cluster_name: {{ $cluster | toYaml }}
  endpoints:
  - lb_endpoints:
    - endpoint:
        address:
          socket_address: {address: {{ $name | toYaml }}, port_value: {{ int64 $backend.port }}}
{{- end -}}

{{/* All clusters, as a JSON list: the upstreams', each once, and the values' own. */}}
{{- define "envoy.clusters" -}}
{{- $clusters := dict -}}
{{- range $upstream, $it := include "envoy.upstreams" . | fromJson -}}
  {{- range $name, $backend := $it.backends -}}
    {{- $cluster := mergeOverwrite (include "envoy.cluster" (list $name $backend) | fromYaml) ($backend.cluster | default dict) -}}
    {{- $known := get $clusters $cluster.name | default $cluster -}}
    {{- if ne (toJson $known) (toJson $cluster) -}}
      {{- fail (printf "backend %s of upstream %s is another one elsewhere: port, http2 and cluster must be the same" $name $upstream) -}}
    {{- end -}}
    {{- $_ := set $clusters $cluster.name $cluster -}}
  {{- end -}}
{{- end -}}
{{- $all := list -}}
{{- range keys $clusters | sortAlpha -}}{{- $all = append $all (get $clusters .) -}}{{- end -}}
{{- range .Values.clusters -}}
  {{- $all = append $all (merge (dict "@type" "type.googleapis.com/envoy.config.cluster.v3.Cluster") .) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}
