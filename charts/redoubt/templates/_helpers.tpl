{{- /* Name of the operator's objects. */ -}}
{{- define "redoubt.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-operator" .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Name of the service account. */ -}}
{{- define "redoubt.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "redoubt.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The image, by digest where one is given. */ -}}
{{- define "redoubt.image" -}}
{{- $repository := required "image.repository: needed, where your cluster finds the image of Redoubt, e.g. --set image.repository=registry.example.com/redoubt" .Values.image.repository -}}
{{- $tagged := printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" $tagged .Values.image.digest }}{{ else }}{{ $tagged }}{{ end -}}
{{- end -}}

{{- /* What selects the operator's pods; can never change. */ -}}
{{- define "redoubt.selectorLabels" -}}
app.kubernetes.io/name: redoubt-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of every object. Ours win over those of values. */ -}}
{{- define "redoubt.labels" -}}
{{- $ours := merge (include "redoubt.selectorLabels" . | fromYaml) (dict
  "app.kubernetes.io/component" "operator"
  "app.kubernetes.io/part-of" "redoubt"
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_"))) -}}
{{- toYaml (merge $ours .Values.commonLabels) -}}
{{- end -}}

{{- /* Labels of the operator's pods: without what changes with each version of the chart alone. */ -}}
{{- define "redoubt.podLabels" -}}
{{- $ours := merge (include "redoubt.selectorLabels" . | fromYaml) (dict
  "app.kubernetes.io/component" "operator"
  "app.kubernetes.io/part-of" "redoubt") -}}
{{- toYaml (merge $ours .Values.podLabels .Values.commonLabels) -}}
{{- end -}}

{{- /* `metadata` of an object: dict "root" $ "name" NAME, with "namespace", "labels" and "annotations" where they are further. */ -}}
{{- define "redoubt.metadata" -}}
name: {{ .name }}
{{- if not .clusterWide }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- toYaml (merge (include "redoubt.labels" .root | fromYaml) (.labels | default dict)) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Security context of a pod, and of its container: Pod Security "restricted", and nothing to write to. */ -}}
{{- define "redoubt.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "redoubt.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* What the operator may do where layers are: it names every kind and verb, may not list Secrets, and may not run anything in a
pod. */ -}}
{{- define "redoubt.layerRules" -}}
- apiGroups: [redoubt.dev]
  resources: [datalayers, sessionstores, ratelimitpolicies, cachenamespaces, functionlibraries]
  verbs: [get, list, watch]
# The dedicated layers of uses.
- apiGroups: [redoubt.dev]
  resources: [datalayers]
  verbs: [create, patch]
{{- if not .Values.watchNamespace }}
# Their labels say whom a layer lets in.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}
- apiGroups: [redoubt.dev]
  resources: [datalayers/status, sessionstores/status, ratelimitpolicies/status, cachenamespaces/status, functionlibraries/status]
  verbs: [patch]
# Owner references that block the owner's deletion need this where the admission plugin asks for it.
- apiGroups: [redoubt.dev]
  resources: [datalayers/finalizers, sessionstores/finalizers, ratelimitpolicies/finalizers, cachenamespaces/finalizers, functionlibraries/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
# By name: a claim that another program made does not count as a node's own. Of all, whether they are being deleted.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
# By name: the Lua of function libraries.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
# The passwords of a layer, and the bindings of its uses.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- if .Values.rbac.watchSecrets }}
# Only their metadata is asked for; no rule can say so.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Why a pod is refused is told in events only; asked for by the UID of a StatefulSet or a pod that should be there and is not.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end -}}
