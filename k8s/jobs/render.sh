#!/bin/sh
# Prints a Job that mounts the volumes of the writers that have ever been, and proves or merges what they wrote:
#
#   sh k8s/jobs/render.sh verify 5 | kubectl apply -f -     every byte of the input is in the outputs of writer-0 to writer-4, once
#   sh k8s/jobs/render.sh merge 5 | kubectl apply -f -      puts them together, in the order of the input, into merged.txt on the claim `merged`
#
# IMAGE    the image, where it is not docker.io/library/line-stream:0.1.0
# INPUTS   verify: the inputs on the reader's volume, rotated ones too (input.txt)
# SIZE     merge: the size of the claim (16Gi)
# STREAM   the name of one of the chart's streams, where they have names; Job and claim are then verify-NAME, merge-NAME, merged-NAME
#
# The volumes must be free, in this order: no line comes (reader to 0), the backlog is 0, no writer writes (writers to 0).
set -eu
usage="usage: render.sh verify|merge WRITERS"
kind=${1:?$usage}
writers=${2:?$usage}
case $kind in verify | merge) ;; *) echo "render.sh: $kind: $usage" >&2; exit 2 ;; esac
case $writers in '' | *[!0-9]* | 0) echo "render.sh: $writers: how many writers have there ever been? $usage" >&2; exit 2 ;; esac

suffix=${STREAM:+-$STREAM}
job=$kind$suffix

# list LINE: the line for each writer, with its number in place of @.
list() {
    n=0
    while [ "$n" -lt "$writers" ]; do
        echo "$1" | sed "s/@/$n/g"
        n=$((n + 1))
    done
}

if [ "$kind" = merge ]; then
    cat <<EOF
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: merged$suffix
  labels:
    app.kubernetes.io/name: merge
    app.kubernetes.io/part-of: line-stream
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests: {storage: ${SIZE:-16Gi}}
---
EOF
fi
cat <<EOF
apiVersion: batch/v1
kind: Job
metadata:
  name: $job
  labels:
    app.kubernetes.io/name: $kind
    app.kubernetes.io/part-of: line-stream
spec:
  # verify finds the same again; merge goes on where it was interrupted.
  backoffLimit: $([ "$kind" = merge ] && echo 6 || echo 0)
  template:
    metadata:
      labels:
        app.kubernetes.io/name: $kind
        app.kubernetes.io/part-of: line-stream
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: $kind
          image: ${IMAGE:-docker.io/library/line-stream:0.1.0}
          imagePullPolicy: IfNotPresent
          command: [/usr/local/bin/writer, $kind]
          args:
$(list '            - --folder=/writer-@')
EOF
if [ "$kind" = verify ]; then
    for input in ${INPUTS:-input.txt}; do
        echo "            - --input=/reader/$input"
    done
else
    echo "            - --into=/merged/merged.txt"
fi
cat <<EOF
          resources:
            requests: {cpu: 100m, memory: 64Mi}
            limits: {cpu: "2", memory: 512Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
$(list '            - {name: writer-@, mountPath: /writer-@, readOnly: true}')
            - {name: $([ "$kind" = verify ] && echo 'reader, mountPath: /reader, readOnly: true' || echo 'merged, mountPath: /merged')}
      volumes:
$(list "        - {name: writer-@, persistentVolumeClaim: {claimName: data-writer$suffix-@}}")
        - {name: $([ "$kind" = verify ] && echo "reader, persistentVolumeClaim: {claimName: reader$suffix-data}" || echo "merged, persistentVolumeClaim: {claimName: merged$suffix}")}
EOF
