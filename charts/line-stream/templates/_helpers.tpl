{{/*
The objects of base/ and components/ are loaded, changed as the values say, and printed. A template that changes an object prints nothing:
its callers assign the result to $_.
*/}}

{{/* line-stream.load (root, file): the objects of a file, as a YAML list. */}}
{{- define "line-stream.load" -}}
{{- $objects := list -}}
{{- range regexSplit "(?m)^---$" (required (printf "%s is not in the chart" .file) (.root.Files.Get .file)) -1 -}}
{{- with fromYaml . -}}{{- $objects = append $objects . -}}{{- end -}}
{{- end -}}
{{- toYaml $objects -}}
{{- end -}}

{{/* line-stream.print (root, object): an object with this release's namespace and labels. */}}
{{- define "line-stream.print" -}}
{{- $object := .object -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $common := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) -}}
{{- $_ := set $object.metadata "labels" (mergeOverwrite (dict) ($object.metadata.labels | default dict) .root.Values.labels $common) -}}
{{- if eq ($object.metadata.namespace | default "") "line-stream" -}}
{{- $_ := set $object.metadata "namespace" $namespace -}}
{{- end -}}
{{- range ($object.subjects | default list) -}}
{{- if eq .namespace "line-stream" -}}{{- $_ := set . "namespace" $namespace -}}{{- end -}}
{{- end -}}
{{- if eq $object.kind "APIService" -}}
{{- $_ := set $object.spec.service "namespace" $namespace -}}
{{- end }}
---
{{ toYaml $object }}
{{ end -}}

{{/* line-stream.env (object, name, value): sets a variable of the main container. */}}
{{- define "line-stream.env" -}}
{{- $container := first .object.spec.template.spec.containers -}}
{{- $env := list -}}
{{- range ($container.env | default list) -}}
{{- if ne .name $.name -}}{{- $env = append $env . -}}{{- end -}}
{{- end -}}
{{- $_ := set $container "env" (append $env (dict "name" .name "value" (toString .value))) -}}
{{- end -}}

{{/* line-stream.claim (claim, storage): size, class and access modes of a claim. */}}
{{- define "line-stream.claim" -}}
{{- $_ := set .claim.spec "accessModes" .storage.accessModes -}}
{{- $_ := set .claim.spec.resources.requests "storage" .storage.size -}}
{{- with .storage.className -}}
{{- $_ := set $.claim.spec "storageClassName" (ternary "" . (eq . "-")) -}}
{{- end -}}
{{- end -}}

{{/* line-stream.image (root, image): the image that the values have for that of an object. */}}
{{- define "line-stream.image" -}}
{{- $images := .root.Values.images -}}
{{- $name := regexReplaceAll "^.*/([^/:]+):.*$" .image "${1}" -}}
{{- if eq $name "line-stream" -}}
{{- with .root.Values.image -}}
{{- .repository -}}{{- if .digest -}}@{{ .digest }}{{- else -}}:{{ .tag | default $.root.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- else -}}
{{- get (dict "busybox" $images.busybox "redis" $images.redis "redis_exporter" $images.redisExporter "prometheus" $images.prometheus "prometheus-adapter" $images.prometheusAdapter) $name | required (printf "no value for the image %s" .image) -}}
{{- end -}}
{{- end -}}

{{/* line-stream.pod (root, object, values): what the values of a workload change in its pods. */}}
{{- define "line-stream.pod" -}}
{{- $template := .object.spec.template -}}
{{- $pod := $template.spec -}}
{{- $main := first $pod.containers -}}
{{- with .values.resources -}}{{- $_ := set $main "resources" . -}}{{- end -}}
{{- $values := mergeOverwrite (deepCopy .root.Values.pods) .values.pod -}}
{{- $_ := set $template.metadata "labels" (mergeOverwrite (dict) $values.labels $template.metadata.labels) -}}
{{- with $values.annotations -}}
{{- $_ := set $template.metadata "annotations" (mergeOverwrite ($template.metadata.annotations | default dict) .) -}}
{{- end -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with get $values $name -}}{{- $_ := set $pod $name . -}}{{- end -}}
{{- end -}}
{{- with .root.Values.image.pullSecrets -}}
{{- $secrets := list -}}
{{- range . -}}{{- $secrets = append $secrets (dict "name" .) -}}{{- end -}}
{{- $_ := set $pod "imagePullSecrets" $secrets -}}
{{- end -}}
{{- range $container := $pod.containers -}}
{{- $_ := set $container "image" (include "line-stream.image" (dict "root" $.root "image" .image)) -}}
{{- $_ := set $container "imagePullPolicy" $.root.Values.image.pullPolicy -}}
{{- end -}}
{{- with $values.extraEnv -}}{{- $_ := set $main "env" (concat ($main.env | default list) .) -}}{{- end -}}
{{- with $values.extraVolumeMounts -}}{{- $_ := set $main "volumeMounts" (concat $main.volumeMounts .) -}}{{- end -}}
{{- with $values.extraVolumes -}}{{- $_ := set $pod "volumes" (concat ($pod.volumes | default list) .) -}}{{- end -}}
{{- with $values.initContainers -}}{{- $_ := set $pod "initContainers" (concat ($pod.initContainers | default list) .) -}}{{- end -}}
{{- with $values.extraContainers -}}{{- $_ := set $pod "containers" (concat $pod.containers .) -}}{{- end -}}
{{- if .root.Values.openshift -}}
{{- range list "runAsUser" "runAsGroup" "fsGroup" -}}{{- $_ := unset $pod.securityContext . -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* line-stream.checksum (object, config): restarts the pods when their configuration changes. */}}
{{- define "line-stream.checksum" -}}
{{- $metadata := .object.spec.template.metadata -}}
{{- $sum := dict "checksum/config" (toYaml .config | sha256sum) -}}
{{- $_ := set $metadata "annotations" (mergeOverwrite ($metadata.annotations | default dict) $sum) -}}
{{- end -}}

{{/* line-stream.without (container, object): removes a sidecar. */}}
{{- define "line-stream.without" -}}
{{- $kept := list -}}
{{- range .object.spec.template.spec.containers -}}
{{- if ne .name $.container -}}{{- $kept = append $kept . -}}{{- end -}}
{{- end -}}
{{- $_ := set .object.spec.template.spec "containers" $kept -}}
{{- end -}}

{{/* line-stream.redis (root): the name of Redis' objects; empty for one that exists. */}}
{{- define "line-stream.redis" -}}
{{- get (dict "standalone" "redis" "sentinel" "redis-sentinel" "cluster" "redis-cluster") .root.Values.redis.mode -}}
{{- end -}}

{{/* line-stream.url (root): the services' URL of Redis. */}}
{{- define "line-stream.url" -}}
{{- $redis := .root.Values.redis -}}
{{- if $redis.url -}}
{{- $redis.url -}}
{{- else if eq $redis.mode "cluster" -}}
{{- $nodes := list -}}
{{- range until 6 -}}{{- $nodes = append $nodes (printf "redis-cluster-%d.redis-cluster:6379" .) -}}{{- end -}}
{{ ternary "rediss" "redis" $redis.tls.enabled }}-cluster://{{ join "," $nodes }}{{ ternary "?ca=/tls/ca.crt&server_name=redis-cluster" "" $redis.tls.enabled }}
{{- else if eq $redis.mode "sentinel" -}}
{{- $nodes := list -}}
{{- range until 3 -}}{{- $nodes = append $nodes (printf "redis-sentinel-%d.redis-sentinel:26379" .) -}}{{- end -}}
{{ ternary "rediss" "redis" $redis.tls.enabled }}-sentinel://{{ join "," $nodes }}/line-stream{{ ternary "?ca=/tls/ca.crt&server_name=redis-sentinel" "" $redis.tls.enabled }}
{{- else -}}
{{ ternary "rediss" "redis" $redis.tls.enabled }}://redis:6379{{ ternary "?ca=/tls/ca.crt" "" $redis.tls.enabled }}
{{- end -}}
{{- end -}}

{{/* line-stream.tls (root, object, containers, server): mounts the certificates in these containers; only a server gets its key. */}}
{{- define "line-stream.tls" -}}
{{- if .root.Values.redis.tls.enabled -}}
{{- $pod := .object.spec.template.spec -}}
{{- $secret := dict "secretName" .root.Values.redis.tls.secret -}}
{{- if .server -}}
{{- $_ := set $secret "defaultMode" 288 -}}
{{- else -}}
{{- $_ := set $secret "items" (list (dict "key" "ca.crt" "path" "ca.crt")) -}}
{{- end -}}
{{- $_ := set $pod "volumes" (append ($pod.volumes | default list) (dict "name" "tls" "secret" $secret)) -}}
{{- range $container := $pod.containers -}}
{{- if has .name $.containers -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "tls" "mountPath" "/tls" "readOnly" true)) -}}
{{- if eq .name "reconciler" -}}
{{- $_ := set . "env" (concat .env (list (dict "name" "REDIS_CA" "value" "/tls/ca.crt") (dict "name" "REDIS_SERVER_NAME" "value" "redis-cluster"))) -}}
{{- end -}}
{{- if $.server -}}{{- $_ := set . "env" (append .env (dict "name" "REDIS_TLS" "value" "yes")) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* line-stream.scaling (root): `adapter`, `hpa` (served by another adapter), `keda` or `none`: what scales the writers of any stream. */}}
{{- define "line-stream.scaling" -}}
{{- $found := "none" -}}
{{- range .root.Values.streams -}}
{{- $writer := mergeOverwrite (deepCopy $.root.Values.writer) (deepCopy (.writer | default dict)) -}}
{{- if and (not $writer.perPartition) (ne $writer.autoscaler.kind "none") -}}{{- $found = $writer.autoscaler.kind -}}{{- end -}}
{{- end -}}
{{- ternary "adapter" $found (and (eq $found "hpa") .root.Values.adapter.enabled) -}}
{{- end -}}
