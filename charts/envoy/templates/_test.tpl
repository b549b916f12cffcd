{{/*
An Envoy that sends one request through the Service and then ends itself, with exit code 0. A health check of its own listener makes
the request, every two seconds while the answer is a 5xx or missing. If that goes on, the test fails by the pod's deadline.
*/}}
{{- define "envoy.test.bootstrap" -}}
{{- $service := include "envoy.fullname" . -}}
{{- $host := $service -}}
{{- $path := "/" -}}
{{- with include "envoy.virtualHosts" . | fromJsonArray | first -}}
  {{- $host = first .domains | replace "*" "test" -}}
  {{- $path = dig (first .upstreams) "prefix" "/" (include "envoy.upstreams" $ | fromJson) -}}
{{- end -}}
{{- if eq $host "test" -}}{{- $host = $service -}}{{- end -}}
node: {id: test, cluster: test}
admin:
  address:
    {{- include "envoy.pipe" (list . "test-admin") | nindent 4 }}
static_resources:
  clusters:
  - name: service
    type: STRICT_DNS
    dns_lookup_family: V4_PREFERRED
    connect_timeout: 1s
    load_assignment:
      cluster_name: service
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {address: {{ $service | quote }}, port_value: {{ int64 .Values.service.port }}}
    {{- if hasKey .Values.listener.filterChain "transport_socket" }}
    # The listener uses TLS. The test does not verify its certificate.
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {{ $host | quote }}
    {{- end }}
  - name: admin
    load_assignment:
      {{- include "envoy.endpoint" (list "admin" (include "envoy.pipe" (list . "test-admin"))) | nindent 6 }}
  - name: start
    load_assignment:
      {{- include "envoy.endpoint" (list "start" (include "envoy.pipe" (list . "test"))) | nindent 6 }}
    health_checks:
    - http_health_check: {path: /}
      timeout: 10s
      interval: 2s
      no_traffic_interval: 2s
      healthy_threshold: 1
      unhealthy_threshold: 1
  listeners:
  - name: test
    address:
      {{- include "envoy.pipe" (list . "test") | nindent 6 }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: test
          route_config: {name: none}
          http_filters:
          - name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  local function ask(handle, cluster, method, path, host)
                    local headers = {[":method"] = method, [":path"] = path, [":authority"] = host}
                    return tonumber(handle:httpCall(cluster, headers, nil, 5000)[":status"])
                  end
                  function envoy_on_request(handle)
                    local path, host = {{ $path | quote }}, {{ $host | quote }}
                    local status = ask(handle, "service", "GET", path, host)
                    if status < 500 then
                      ask(handle, "admin", "POST", "/quitquitquit", "admin")
                    else
                      handle:logErr("GET " .. path .. " of host " .. host .. ", through the Service: " .. status)
                    end
                    handle:respond({[":status"] = tostring(status)}, "")
                  end
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}
