#!/bin/sh
# Makes a Redis Cluster of the nodes, and keeps it one. A round asks every node what it knows and does what is missing; where nothing is
# missing, it does nothing.
#
#   reconcile.sh         a round every five seconds
#   reconcile.sh once    one round; exit code 0: the cluster is complete, and nothing was done
#
# NODES     host:port of every node; the masters of a new cluster come first
# SLOTS     the slots of a new cluster: a range for each of its masters
# MASTERS   how many masters there are to be; all other nodes are replicas
# STATE     a folder for two files: `alive` is as old as the last round, `complete` is there as long as the cluster is complete
# REDIS_PASSWORD   the nodes' password, when they have one
set -eu
[ -z "${REDIS_PASSWORD:-}" ] || export REDISCLI_AUTH="$REDIS_PASSWORD"

# ask HOST:PORT COMMAND…
ask() {
  node=$1
  shift
  timeout 5 redis-cli -e -h "${node%:*}" -p "${node##*:}" "$@"
}

# What every node knows: CLUSTER NODES, each line behind the node that said it, and `NODE = link`, a replica's to its master. Of a node that
# says nothing `NODE ! why`.
views() {
  for node in $NODES; do
    if view=$(ask "$node" CLUSTER NODES 2>&1); then
      printf '%s\n' "$view" | sed "s/^/$node /"
      printf '%s = %s\n' "$node" "$(ask "$node" ROLE 2>&1 | sed -n 4p)"
    else
      printf '%s ! %s\n' "$node" "${view:-no answer}" | head -n 1
    fi
  done
}

# What is to be done: `NODE COMMAND`, or `wait WHY`. Nothing: the cluster is complete.
plan() {
  awk -v expected="$(echo "$NODES" | wc -w)" -v masters="$MASTERS" -v slots="$SLOTS" '
    function act(node, command) { print node, command; done++ }
    function wait(why) { print "wait", why; waits++ }
    # Whether node x knows node y, by the address that y has now: every pod that starts again has another one.
    function knows(x, y) {
      return address[x, id[y]] == address[y, id[y]] && flags[x, id[y]] !~ /handshake|noaddr/
    }
    function meet(x, y,    port, host) {
      host = port = address[y, id[y]]
      sub(/:[^:]*$/, "", host)
      sub(/.*:/, "", port)
      sub(/@/, " ", port)
      act(x, "CLUSTER MEET " host " " port)
    }
    BEGIN {
      ranges = split(slots, range, " ")
      for (r = 1; r <= ranges; r++) { split(range[r], ends, "-"); first[r] = ends[1] + 0; last[r] = ends[2] + 0 }
    }
    $2 == "!" { sub(/ !/, ":"); wait($0); next }
    $2 == "=" { master_link[$1] = $3; next }
    # Node, ID, host:port@bus,hostname, flags, master, two times, epoch, link, slots.
    {
      line[++lines] = $1; of[lines] = $2; serves[lines] = 0
      sub(/,.*/, "", $3)
      address[$1, $2] = $3; flags[$1, $2] = $4; link[$1, $2] = $9
      for (i = 10; i <= NF; i++) {
        # A slot that is on its way.
        if ($i ~ /^\[/) continue
        from = to = $i; sub(/-.*/, "", from); sub(/.*-/, "", to)
        serves[lines] += to - from + 1
        for (r = 1; r <= ranges; r++) if (from + 0 <= last[r] && to + 0 >= first[r]) taken[r] = 1
      }
      served[$1] += serves[lines]
      if (serves[lines]) is_owner[$2] = 1
    }
    $4 ~ /myself/ {
      node[++n] = $1; id[$1] = $2; is_node[$2] = 1; own[$1] = serves[lines]
      if ($4 ~ /master/) { is_master[$1] = 1; count++ } else replicas[$5]++
    }
    END {
      for (i = 1; i < n; i++) for (j = i + 1; j <= n; j++) {
        if (!knows(node[i], node[j])) meet(node[i], node[j])
        else if (!knows(node[j], node[i])) meet(node[j], node[i])
      }
      if (done) exit
      # Slots that no node has ever heard of an owner of: the cluster is new.
      if (n == expected) for (r = 1; r <= ranges; r++) {
        if (!taken[r] && is_master[node[r]]) act(node[r], "CLUSTER ADDSLOTSRANGE " first[r] " " last[r])
      }
      if (done) exit
      # A node without slots: a new one, or one that has lost its volume. It follows the master with the fewest replicas.
      for (i = n; i > 0 && count > masters; i--) {
        if (!is_master[node[i]] || own[node[i]]) continue
        best = ""
        for (j = n; j > 0; j--) {
          if (own[node[j]] && (best == "" || replicas[id[node[j]]] + 0 <= replicas[id[best]] + 0)) best = node[j]
        }
        if (best == "") break
        act(node[i], "CLUSTER REPLICATE " id[best]); replicas[id[best]]++; count--
      }
      if (done || n < expected) exit
      for (l = 1; l <= lines; l++) {
        x = line[l]; y = of[l]
        # It was a node, and its volume is lost.
        if (flags[x, y] ~ /(^|,)(fail|noaddr)(,|$)/ && !is_node[y] && !is_owner[y]) act(x, "CLUSTER FORGET " y)
        else if (flags[x, y] ~ /fail|noaddr/) wait(x ": " address[x, y] " has failed")
        else if (flags[x, y] !~ /myself/ && link[x, y] != "connected") wait(x ": no connection to " address[x, y])
      }
      for (i = 1; i <= n; i++) {
        if (served[node[i]] != 16384) wait(node[i] ": it knows of " served[node[i]] + 0 " slots")
        if (!is_master[node[i]] && master_link[node[i]] != "connected") wait(node[i] ": it has not all of its master yet")
      }
      if (n == expected && count > masters) wait("there are " count " masters")
    }'
}

# One round. What is to be done is told when it is something else than in the round before.
round() {
  now=$(views | plan)
  : >"$STATE/alive"
  if [ -z "$now" ]; then
    [ "$now" = "$before" ] || echo "the cluster is complete"
    before=$now
    : >"$STATE/complete"
    return 0
  fi
  rm -f "$STATE/complete"
  printf '%s\n' "$now" | while read -r node command; do
    if [ "$node" = wait ]; then
      said=$command
    else
      # Its words are arguments.
      # shellcheck disable=SC2086
      said="$node $command: $(ask "$node" $command 2>&1 </dev/null || :)"
    fi
    [ "$now" = "$before" ] || echo "$said"
  done
  before=$now
  return 1
}

before=-
if [ "${1:-}" = once ]; then
  round
  exit
fi
trap 'exit 0' TERM INT
while :; do
  round || :
  sleep 5 &
  wait $!
done
