#!/bin/bash
# Runs the README's commands and the broken Pods on one cluster and writes what they show, normalised, to OUTDIR:
#   compare.sh KUBECTL KUBECONFIG OUTDIR [NETNS]
# Run it on two clusters and `diff -r` the folders. Names, uids, ages and addresses are replaced; nothing else is.
set -u
kubectl=$1 config=$2 out=$3 netns=${4:-}
here=$(cd "$(dirname "$0")" && pwd); root=$(dirname "$here"); mkdir -p "$out"
K() { ${netns:+nsenter --net=/run/netns/$netns} "$kubectl" --kubeconfig "$config" "$@"; }

normalise() {
  sed -E \
    -e 's/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/UID/g' \
    -e 's/(ku8-redis-slave|web-[bcdfghjklmnpqrstvwxz2456789]+|web)-[bcdfghjklmnpqrstvwxz2456789]{5}\b/\1-XXXXX/g' \
    -e 's/\bweb-[bcdfghjklmnpqrstvwxz2456789]{6,10}\b/web-HASH/g' \
    -e 's/pod-template-hash=[a-z0-9]+/pod-template-hash=HASH/g' \
    -e 's/kube-api-access-[a-z0-9]{5}/kube-api-access-XXXXX/g' \
    -e 's/\b([0-9]{1,3}\.){3}[0-9]{1,3}(\/[0-9]+)?\b/ADDRESS/g' \
    -e 's/(containerd:\/\/|sha256:)[0-9a-f]{12,}/\1DIGEST/g' \
    -e 's/:3[0-2][0-9]{3}\b/:NODEPORT/g; s/(NodePort: .*) 3[0-2][0-9]{3}\/TCP/\1 NODEPORT\/TCP/' \
    -e 's/(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]+ \+0000/TIME/g' \
    -e 's/\b[0-9]+(ms|s|m|h|d)([0-9]+(ms|s|m|h))?( ago)?( \(x[0-9]+ over [0-9a-z.]+\))?/AGE/g; s/AGE \(x[0-9]+ over AGE\)/AGE/g; s/in [0-9.]+(m?s|AGE) \([0-9.]+(m?s|AGE) including waiting\)/in AGE/g' \
    -e "s/\\b($(K get nodes -o jsonpath='{.items[*].metadata.name}' | tr ' ' '|'))\\b/NODE/g" \
    -e 's/[ \t]+/ /g; s/ +$//'
}
show() { # NAME COMMAND...
  local name=$1; shift
  { "$@" 2>&1; echo "exit code $?"; } | normalise > "$out/$name"
}
until_true() { for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return 0; sleep 0.4; done; echo "timed out: $*" >&2; return 1; }
has() { K get "$1" "$2" -o "jsonpath=$3" 2>/dev/null | grep -qE "$4"; }
reasons() { K get events --field-selector "involvedObject.name=$1" -o 'jsonpath={range .items[*]}{.type} {.reason} {.source.component}{.reportingComponent} {.message}{"\n"}{end}' | sort -u; }

# Upstream pulls an image without a tag every time, and there is no registry here: both clusters are told not to.
input=$(mktemp -d); trap 'rm -rf "$input"' EXIT
for file in redis-master redis-slave-rc; do
  sed -E 's/^( *)(image: .*)/\1\2\n\1imagePullPolicy: IfNotPresent/; s/- name: server/- name: server/' "$root/examples/redis/$file.yaml" > "$input/$file.yaml"
done
K delete pod,rc,deployment --all --wait --grace-period=1 >/dev/null 2>&1
K delete service -l '!component' >/dev/null 2>&1
show create-master K create -f "$input/redis-master.yaml"
show create-again K create -f "$input/redis-master.yaml"
show create-slaves K create -f "$input/redis-slave-rc.yaml"
until_true has rc ku8-redis-slave '{.status.readyReplicas}' '^2$'; until_true has pod ku8-redis-master '{.status.phase}' Running
show get-pods K get pods --sort-by=.metadata.name
show get-pods-wide K get pods -o wide --sort-by=.metadata.name
show get-rc K get rc -o wide
show get-svc K get svc ku8-redis-master -o wide
show get-endpoints K get endpoints ku8-redis-master
show describe-master K describe pod ku8-redis-master
show describe-rc K describe rc ku8-redis-slave
show describe-svc K describe svc ku8-redis-master
show conditions-master K get pod ku8-redis-master -o 'jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}{"\n"}{end}'
show logs-master K logs ku8-redis-master --tail=1
show exec K exec ku8-redis-master -- redis-cli ping
show exec-fails K exec ku8-redis-master -- sh -c 'exit 7'
show scale K scale --replicas=3 rc/ku8-redis-slave
until_true has rc ku8-redis-slave '{.status.readyReplicas}' '^3$'
show get-rc-scaled K get rc
show delete-pod K delete pod -l app=ku8-redis-slave --wait=false
show get-missing K get pod missing
show get-nothing K get pods -n kube-public
show bad-kind K get nonsense
show create-deployment K create deployment web --image=redis --replicas=2
K patch deployment web --type=json -p '[{"op":"add","path":"/spec/template/spec/containers/0/imagePullPolicy","value":"IfNotPresent"}]' >/dev/null
show rollout-status K rollout status deployment/web --timeout=60s
show set-env K set env deployment/web A=b
show rollout-status-2 K rollout status deployment/web --timeout=60s
show rollout-history K rollout history deployment/web
show rollout-undo K rollout undo deployment/web
show rollout-status-3 K rollout status deployment/web --timeout=60s
show get-deployment K get deployment web -o wide
show conditions-deployment K get deployment web -o 'jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}{"\n"}{end}'
show expose K expose deployment web --port=80 --target-port=6379 --type=NodePort
show get-web-svc K get svc web
show apply K apply -f "$here/broken/no-room.yaml"
show apply-again K apply -f "$here/broken/no-room.yaml"
K delete pod no-room --wait >/dev/null 2>&1
for pod in no-image failing-command no-config-map no-room; do K create -f "$here/broken/$pod.yaml" >/dev/null; done
for _ in 1 2 3 4; do until_true has pod no-image '{.status.containerStatuses[0].state.waiting.reason}' 'ErrImagePull|ImagePullBackOff' && break; done
until_true has pod failing-command '{.status.containerStatuses[0].state.waiting.reason}' CrashLoopBackOff
until_true has pod no-config-map '{.status.containerStatuses[0].state.waiting.reason}' CreateContainerConfigError
until_true has pod no-room '{.status.conditions[0].reason}' Unschedulable
for pod in no-image failing-command no-config-map no-room; do
  show "broken-$pod-get" K get pod "$pod"
  show "broken-$pod-describe" K describe pod "$pod"
  show "broken-$pod-events" reasons "$pod"
done
show delete-broken K delete -f "$here/broken" --grace-period=1
show delete-all K delete -f "$input" --grace-period=1
K delete deployment,svc web --grace-period=1 >/dev/null 2>&1
